#!/usr/bin/env bash
# Runs reloader and Prometheus on this machine until Ctrl-C.
set -euo pipefail
cd "$(dirname "$0")"
for each in reloader prometheus; do
  command -v "$each" >/dev/null || { echo "$0 needs $each on the PATH, see README.md" >&2; exit 1; }
done

work=/tmp/reloader-prometheus # as in prometheus.yaml
mkdir -p "$work/targets"
echo localhost:9090 >"$work/targets/self"
trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT
trap exit INT TERM

reloader once prometheus.yaml # as an init container: the first configuration is there before Prometheus starts
prometheus --config.file="$work/live/prometheus.yml" --storage.tsdb.path="$work/data" --web.enable-lifecycle --log.level=error &
reloader run prometheus.yaml &
wait -n
