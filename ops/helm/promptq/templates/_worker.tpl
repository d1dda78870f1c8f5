{{/* The spec of a worker's pod. `own` is .Values.workers with what differs for one model over it. */}}
{{- define "promptq.workerMeta" -}}
labels: {{- include "promptq.labels" (dict "root" .root "part" "worker") | nindent 2 }}
annotations:
  # What it runs is put back with its progress when it is told to go: a node may be emptied.
  cluster-autoscaler.kubernetes.io/safe-to-evict: "true"
  promptq/models-checksum: {{ .root.Values.models | sha256sum | trunc 16 }}
{{- end -}}

{{- define "promptq.workerSpec" -}}
automountServiceAccountToken: false
securityContext: {{- include "promptq.podSecurity" .root | nindent 2 }}
{{- include "promptq.pullSecrets" . }}
{{- with .own.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .own.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .own.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
containers:
  - name: worker
    image: {{ include "promptq.image" (dict "root" .root "image" .own.image) }}
    imagePullPolicy: {{ .root.Values.image.pullPolicy }}
    command: [python, -X, utf8, -P, -m, gpu_worker]
    env:
      {{- include "promptq.env" (dict "root" .root "own" .own.settings) | nindent 6 }}
      - {name: PROMPTQ_WORKER_METRICS_PORT, value: "9102"}
      - {name: PROMPTQ_WORKER_METRICS_HOST, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
      - {name: PROMPTQ_DRAIN_SECONDS, value: {{ .root.Values.scaler.drainSeconds | quote }}}
    {{- with .own.credentialsSecret }}
    envFrom: [{secretRef: {name: {{ . }}}}]
    {{- end }}
    ports: [{name: metrics, containerPort: 9102}]
    terminationMessagePolicy: FallbackToLogsOnError
    securityContext: {{- include "promptq.containerSecurity" .root | nindent 6 }}
    resources: {{- toYaml .own.resources | nindent 6 }}
    volumeMounts:
      {{- include "promptq.mounts" . | nindent 6 }}
      - {name: data, mountPath: /data}
volumes:
  {{- include "promptq.volumes" . | nindent 2 }}
  - name: data
    {{- if .own.data.existingClaim }}
    persistentVolumeClaim: {claimName: {{ .own.data.existingClaim }}}
    {{- else }}
    emptyDir: {sizeLimit: {{ .own.data.sizeLimit }}}
    {{- end }}
{{- end -}}
