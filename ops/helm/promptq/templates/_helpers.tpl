{{- define "promptq.name" -}}
{{- printf "%s-%s" .root.Release.Name .part | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "promptq.selector" -}}
app.kubernetes.io/name: promptq
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end -}}

{{- define "promptq.labels" -}}
{{ include "promptq.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{- define "promptq.image" -}}
{{- $registry := .root.Values.image.registry -}}
{{- if $registry }}{{ trimSuffix "/" $registry }}/{{ end }}{{ .image }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}
{{- end -}}

{{- define "promptq.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "promptq.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* The environment that all programs share, with the settings of one part over it. */}}
{{- define "promptq.env" -}}
{{- $values := .root.Values -}}
- name: PROMPTQ_REDIS_URL
{{- if $values.redis.enabled }}
  value: redis://{{ include "promptq.name" (dict "root" .root "part" "redis") }}:6379/0
{{- else }}
  valueFrom:
    secretKeyRef:
      name: {{ required "redis.external.urlSecret: name the Secret with the URL, or set redis.enabled" $values.redis.external.urlSecret }}
      key: {{ $values.redis.external.urlKey }}
{{- end }}
{{- if $values.models }}
- {name: PROMPTQ_MODELS_FILE, value: /etc/promptq/models/models.toml}
{{- end }}
{{- $settings := merge (dict) .own $values.settings }}
{{- range $name := keys $settings | sortAlpha }}
- {name: {{ $name }}, value: {{ get $settings $name | quote }}}
{{- end }}
{{- end -}}

{{- define "promptq.mounts" -}}
- {name: tmp, mountPath: /tmp}
{{- if .root.Values.models }}
- {name: models, mountPath: /etc/promptq/models, readOnly: true}
{{- end }}
{{- if .root.Values.redis.external.tlsSecret }}
- {name: redis-tls, mountPath: /etc/promptq/redis-tls, readOnly: true}
{{- end }}
{{- end -}}

{{- define "promptq.volumes" -}}
- {name: tmp, emptyDir: {sizeLimit: 1Gi}}
{{- if .root.Values.models }}
- name: models
  configMap: {name: {{ include "promptq.name" (dict "root" .root "part" "models") }}}
{{- end }}
{{- with .root.Values.redis.external.tlsSecret }}
- name: redis-tls
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- end -}}

{{/* The folder of files and the webhooks' secret, of API and dispatcher. */}}
{{- define "promptq.filesEnv" -}}
- {name: PROMPTQ_FILES_URL, value: {{ .root.Values.files.url | quote }}}
- name: PROMPTQ_WEBHOOK_SECRET_FILE
  value: {{ if .root.Values.webhooks.secret }}/etc/promptq/webhooks/{{ .root.Values.webhooks.key }}{{ else }}/files/webhook.secret{{ end }}
{{- end -}}

{{- define "promptq.filesEnvFrom" -}}
{{- with .root.Values.files.credentialsSecret }}
envFrom: [{secretRef: {name: {{ . }}}}]
{{- end }}
{{- end -}}

{{- define "promptq.hasFolder" -}}
{{- if or (hasPrefix "file:" .root.Values.files.url) (not .root.Values.webhooks.secret) }}yes{{ end -}}
{{- end -}}

{{- define "promptq.filesMounts" -}}
- {name: data, mountPath: /data}
{{- if include "promptq.hasFolder" . }}
- {name: files, mountPath: /files}
{{- end }}
{{- if .root.Values.webhooks.secret }}
- {name: webhooks, mountPath: /etc/promptq/webhooks, readOnly: true}
{{- end }}
{{- end -}}

{{- define "promptq.filesVolumes" -}}
- {name: data, emptyDir: {sizeLimit: 1Gi}}
{{- if include "promptq.hasFolder" . }}
- name: files
  persistentVolumeClaim:
    claimName: {{ .root.Values.files.storage.existingClaim | default (include "promptq.name" (dict "root" .root "part" "files")) }}
{{- end }}
{{- with .root.Values.webhooks.secret }}
- name: webhooks
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- end -}}

{{- define "promptq.pullSecrets" -}}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - {name: {{ . }}}
  {{- end }}
{{- end }}
{{- end -}}
