#!/usr/bin/env bash
# `make compose-smoke`: docker-compose.yml and the Dockerfiles, as shipped, on a real engine. Builds, starts, sends a job
# through, asks Prometheus, kills a container under a running job, waits for that job, takes everything down.
#
# With Docker and a registry at hand it uses them. On a bare Debian machine (as root) it starts an engine of its own from
# Debian's package and makes stand-ins for the base images; Grafana has none there, and is then left out.
set -euo pipefail
cd "$(dirname "$0")/../.."

WORK=${SMOKE_DIR:-$PWD/.promptq/compose-smoke}
COMPOSE="$PWD/.venv/bin/docker-compose"
export COMPOSE_PROJECT_NAME=promptq-smoke DOCKER_BUILDKIT=0 API_PORT=${API_PORT:-18180} PROMETHEUS_PORT=${PROMETHEUS_PORT:-18190}
export GRAFANA_PORT=${GRAFANA_PORT:-18130} LOCUST_PORT=${LOCUST_PORT:-18189}
API=http://127.0.0.1:$API_PORT
SERVICES=(redis api scaler dispatcher prometheus grafana locust)
mkdir -p "$WORK"

say() { echo "compose-smoke: $* ($SECONDS s)"; }
die() { say "FAILED: $*"; "$COMPOSE" ps -a || true; "$COMPOSE" logs --tail 30 || true; exit 1; }
until_ok() { # until_ok SECONDS WHAT COMMAND…
  local deadline=$((SECONDS + $1)) what=$2; shift 2
  until "$@" >/dev/null 2>&1; do [ $SECONDS -lt $deadline ] || die "waited for $what"; sleep 1; done
}

start_engine() {
  docker info >/dev/null 2>&1 && return
  command -v dockerd >/dev/null || apt-get install -y -qq --no-install-recommends docker.io iptables >/dev/null
  export DOCKER_HOST=unix://$WORK/docker.sock
  dockerd --data-root "$WORK/data" --exec-root "$WORK/exec" --pidfile "$WORK/pid" -H "$DOCKER_HOST" >"$WORK/dockerd.log" 2>&1 &
  ENGINE=$!
  until_ok 60 "the engine; see $WORK/dockerd.log" docker info
}

# One Debian root with python, redis and prometheus in it, under the names that the shipped files use.
stand_ins() {
  docker image inspect promptq-smoke-root >/dev/null 2>&1 || ! docker pull -q python:3.11-slim >/dev/null 2>&1 || return 0
  SERVICES=(redis api scaler dispatcher prometheus locust)
  TORCH_INDEX=https://pypi.org/simple
  ! docker image inspect promptq-smoke-root >/dev/null 2>&1 || return 0
  say "no registry: making stand-ins from Debian's packages"
  command -v mmdebstrap >/dev/null || apt-get install -y -qq --no-install-recommends mmdebstrap >/dev/null
  local packages=python3,python3-venv,python3-pip,ca-certificates,redis-server,prometheus,wget
  mmdebstrap --quiet --variant=minbase --include=$packages bookworm "$WORK/root.tar"
  docker import "$WORK/root.tar" promptq-smoke-root >/dev/null
  rm -rf "$WORK/context" && mkdir -p "$WORK/context/wheels"
  cp -rL /opt/wheels/. "$WORK/context/wheels/" 2>/dev/null || true
  cp -L /etc/ssl/certs/ca-certificates.crt "$WORK/context/ca.crt"
  cat > "$WORK/context/python" <<'FILE'
FROM promptq-smoke-root
COPY ca.crt /etc/ssl/certs/ca-certificates.crt
COPY wheels /opt/wheels
RUN rm -f /usr/lib/python3*/EXTERNALLY-MANAGED && ln -sf python3 /usr/bin/python \
    && printf '[global]\nfind-links = /opt/wheels\ncert = /etc/ssl/certs/ca-certificates.crt\n' > /etc/pip.conf
FILE
  printf 'FROM promptq-smoke-root\nRUN userdel redis; groupadd -g 999 r; useradd -u 999 -g 999 r; install -d -o 999 -g 999 /data\nVOLUME /data\n' > "$WORK/context/redis"
  printf 'FROM promptq-smoke-root\nRUN ln -sf /usr/bin/prometheus /bin/; install -d -o nobody /prometheus\nUSER nobody\nWORKDIR /prometheus\nENTRYPOINT ["/bin/prometheus"]\n' > "$WORK/context/prometheus"
  docker build -q -t python:3.11-slim -f "$WORK/context/python" "$WORK/context" >/dev/null
  docker build -q -t redis:8 -f "$WORK/context/redis" "$WORK/context" >/dev/null
  docker build -q -t prom/prometheus:v3.13.3 -f "$WORK/context/prometheus" "$WORK/context" >/dev/null
}

build() {
  for name in api locust dispatcher scaler; do
    docker build -q --network host ${TORCH_INDEX:+--build-arg TORCH_INDEX=$TORCH_INDEX} -t "promptq-$name" \
      -f "ops/docker/Dockerfile.$name" . >/dev/null 2>"$WORK/build.log" || die "build of $name"
    say "built promptq-$name: $(docker image inspect -f '{{.Size}}' "promptq-$name" | awk '{printf "%d MB", $1 / 1e6}')"
  done
}

field() { python3 -c 'import json, sys; job = json.load(sys.stdin)
for name in sys.argv[1].split("."): job = job[name]
print(job)' "$1"; }
submit() { curl -fsS "$API/v1/jobs" -d "{\"prompt\": \"$1\", \"max_tokens\": $2, \"cache\": false}" | field id; }
has_ended() { [ "$(curl -fsS "$API/v1/jobs/$1?wait=5" | field status)" = succeeded ]; }
runs() { [ "$(curl -fsS "$API/v1/jobs/$1" | field status)" = running ]; }
knows() { curl -fsSG "http://127.0.0.1:$PROMETHEUS_PORT/api/v1/query" --data-urlencode "query=$1" | grep -q '"value"'; }
finish() {
  "$COMPOSE" down -v --timeout 60 >/dev/null 2>&1 || true
  [ -z "${ENGINE:-}" ] || { kill "$ENGINE"; wait "$ENGINE" 2>/dev/null || true; }
  umount "$WORK"/exec/netns/* 2>/dev/null || true # dockerd leaves it mounted, and the folder cannot be removed then
}

trap finish EXIT
start_engine
stand_ins
build
"$COMPOSE" config -q
"$COMPOSE" up -d --no-build --quiet-pull "${SERVICES[@]}" || die "up"
until_ok 120 "every container's health" sh -c "[ \$('$COMPOSE' ps -q | xargs docker inspect -f '{{.State.Health.Status}}' | grep -cx healthy) = ${#SERVICES[@]} ]"
say "up and healthy: ${SERVICES[*]}"

until_ok 300 "a worker" sh -c "curl -fsS $API/v1/workers | grep -q '\"state\":\"idle\"'"
say "a worker is ready"
job=$(submit "Once upon a time" 8)
until_ok 300 "the job" has_ended "$job"
say "a job went through: $(curl -fsS "$API/v1/jobs/$job" | field output.text | head -c 60)"
for series in 'up{job="api"} == 1' 'up{job="scaler"} == 1' 'up{job="dispatcher"} == 1' 'up{job="worker"} == 1' 'up{job="locust"} == 1' \
    'promptq_jobs_finished_total' 'promptq_queue_jobs' 'promptq_http_requests_total'; do
  until_ok 60 "Prometheus to have $series" knows "$series"
done
say "Prometheus has the series of every program"

job=$(submit "Once upon a time" 1500)
until_ok 120 "the job to run" runs "$job"
kill -9 "$(docker inspect -f '{{.State.Pid}}' "$COMPOSE_PROJECT_NAME-scaler-1")"
say "killed the scaler's container, with its worker, under a running job"
until_ok 600 "the job, after its worker was killed" has_ended "$job"
say "the job ended all the same, at attempt $(curl -fsS "$API/v1/jobs/$job" | field attempts)"
"$COMPOSE" logs --no-log-prefix api scaler >"$WORK/programs.log" 2>/dev/null
say "log lines of the API and the scaler: $(wc -l <"$WORK/programs.log"); not JSON: $(grep -vc '^{' "$WORK/programs.log" || true)"
"$COMPOSE" down -v --timeout 60 || die "down"
say "ok"
