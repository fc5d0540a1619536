#!/usr/bin/env bash
# The MLflow server of a cluster, on its head. Settings: ~/retable-mlflow.env (mode 600; see mlflow.env.example).
#   serve.sh run      in the foreground: what the systemd unit starts
#   serve.sh ensure   start it unless it answers: through the unit where that is installed, else detached
#   serve.sh stop     end what `ensure` has started detached
set -euo pipefail

settings="$HOME/retable-mlflow.env"
if [ -f "$settings" ]; then
  [ "$(stat -c %a "$settings")" = 600 ] || { echo "mlflow: others may read $settings: chmod 600 $settings" >&2; exit 1; }
  set -a; . "$settings"; set +a
fi
kept="$HOME/mlflow"
host="${MLFLOW_HOST:-127.0.0.1}" port="${MLFLOW_PORT:-5000}"
store="${MLFLOW_STORE:-sqlite:///$kept/mlflow.db}" artifacts="${MLFLOW_ARTIFACTS:-$kept/artifacts}"
pidfile="$kept/server.pid"
export MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
mkdir -p "$kept"

run() {
  local options=(--host "$host" --port "$port" --workers "${MLFLOW_WORKERS:-1}")
  options+=(--backend-store-uri "$store" --artifacts-destination "$artifacts")
  [ -z "${MLFLOW_ALLOWED_HOSTS:-}" ] || options+=(--allowed-hosts "$MLFLOW_ALLOWED_HOSTS")
  [ -z "${MLFLOW_AUTH_CONFIG_PATH:-}" ] || options+=(--app-name basic-auth)
  if [ "$host" != 127.0.0.1 ] && [ -z "${MLFLOW_AUTH_CONFIG_PATH:-}" ]; then
    echo "mlflow: $host is open to the network, and nobody would be asked who he is: set MLFLOW_AUTH_CONFIG_PATH, or" \
      "leave MLFLOW_HOST out and use a tunnel" >&2
    exit 1
  fi
  exec mlflow server "${options[@]}"
}

answers() { curl --silent --fail --max-time 5 --noproxy '*' "http://$host:$port/health" >/dev/null 2>&1; }

case "${1:-}" in
  run) run ;;
  ensure)
    if answers; then exit 0; fi
    server=""
    if [ -d /run/systemd/system ] && systemctl cat retable-mlflow >/dev/null 2>&1; then
      sudo -n systemctl start retable-mlflow
    else  # survives the ssh session that starts it; nothing starts it again after a crash but the next `ensure`
      setsid nohup bash "$0" run >>"$kept/server.log" 2>&1 </dev/null &
      server=$!
      echo "$server" >"$pidfile"
    fi
    for _ in $(seq 600); do  # the first start makes the database's tables
      if answers; then echo "mlflow: http://$host:$port"; exit 0; fi
      if [ -n "$server" ] && ! kill -0 "$server" 2>/dev/null; then break; fi
      sleep 0.5
    done
    echo "mlflow: it does not answer; the end of $kept/server.log:" >&2
    tail -n 20 "$kept/server.log" >&2 || true
    exit 1 ;;
  stop) [ ! -f "$pidfile" ] || { kill -- "-$(cat "$pidfile")" 2>/dev/null || true; rm -f "$pidfile"; } ;;
  *) echo "usage: serve.sh run | ensure | stop" >&2; exit 2 ;;
esac
