#!/usr/bin/env bash
# Runs Consul (in memory), reloader and NGINX on this machine until Ctrl-C.
set -euo pipefail
cd "$(dirname "$0")"
PATH=$PATH:/usr/sbin # where Debian has nginx
for each in reloader nginx consul; do
  command -v "$each" >/dev/null || { echo "$0 needs $each on the PATH, see README.md" >&2; exit 1; }
done

work=/tmp/reloader-nginx-consul # as in web.yaml
mkdir -p "$work"
trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT
trap exit INT TERM

consul agent -dev -log-level=error >"$work/consul.log" &
until consul kv put nginx/routes/hello hello 2>/dev/null; do
  kill -0 $! || { cat "$work/consul.log"; exit 1; }
  sleep 0.1
done
consul services register -name=app -id=blue -port=9001

reloader once web.yaml # as an init container: the first configuration is there before NGINX starts
nginx -p "$work" -c "$work/live/nginx.conf" -e stderr -g 'daemon off;' &
reloader run web.yaml &
wait -n
