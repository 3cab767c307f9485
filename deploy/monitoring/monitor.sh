#!/bin/sh
# A real Prometheus against the service that runs on this machine, with the rules of this folder:
#
#   monitor.sh [ADDRESS]     default 127.0.0.1:8000; Prometheus listens on 127.0.0.1:9090
#
# Says which targets are up, and runs until Ctrl-C. Its data is thrown away. PORT names another port.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
address=${1:-127.0.0.1:8000}
port=${PORT:-9090}
command -v prometheus >/dev/null || {
    echo "prometheus is not installed; on Debian 'make setup-tools' installs it" >&2
    exit 1
}
data=$(mktemp -d)
server=""
stop() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    [ -z "$server" ] || wait "$server" 2>/dev/null || true
    rm -rf "$data"
}
trap stop EXIT
trap 'exit 130' INT TERM
cp -r "$here/rules" "$data/rules"
sed "s/127\.0\.0\.1:8000/$address/" "$here/prometheus.yml" >"$data/prometheus.yml"
prometheus --config.file="$data/prometheus.yml" --storage.tsdb.path="$data/series" \
    --web.listen-address="127.0.0.1:$port" --log.level=warn &
server=$!
up() {
    python3 - "$port" <<'PYTHON'
import json, sys, urllib.error, urllib.request
try:
    with urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}/api/v1/targets", timeout=2) as got:
        targets = json.load(got)["data"]["activeTargets"]
except (urllib.error.URLError, OSError):
    sys.exit(1)
if not targets or any(target["health"] == "unknown" for target in targets):
    sys.exit(1)
for target in targets:
    print(f"{target['scrapeUrl']}: {target['health']} {target['lastError']}".rstrip())
PYTHON
}
tries=0
until up; do
    kill -0 "$server" 2>/dev/null || { echo "Prometheus ended; is port $port free?" >&2; exit 1; }
    tries=$((tries + 1))
    [ "$tries" -lt 60 ] || { echo "Prometheus has scraped nothing in 30 s" >&2; exit 1; }
    sleep 0.5
done
echo "http://127.0.0.1:$port/alerts and /targets; Ctrl-C ends it"
wait "$server"
