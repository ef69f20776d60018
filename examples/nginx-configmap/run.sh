#!/usr/bin/env bash
# Runs reloader and NGINX on this machine until Ctrl-C. WORK: where (default: tmp/ beside this file). PORT: what NGINX listens on (8080).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
export WORK=${WORK:-$here/tmp} PORT=${PORT:-8080}
export RELOADER_SOURCES__SITE__PATH=$WORK/site RELOADER_VOLUME__PATH=$WORK/live
export RELOADER_TARGET__MATCH__PIDFILE=$WORK/nginx.pid # this NGINX, not another one of this machine
export RELOADER_SERVER__LISTEN=${LISTEN:-127.0.0.1:9533}

PATH=$PATH:/usr/sbin # where Debian has nginx
for each in reloader nginx; do
  command -v "$each" >/dev/null || { echo "$0 needs $each on the PATH, see README.md" >&2; exit 1; }
done

"$here/set.sh" greeting hello
mkdir -p "$WORK/live"
reloader once "$here/web.yaml" # as an init container: the first configuration is there before NGINX starts

trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT
trap exit INT TERM
nginx -p "$WORK" -c "$WORK/live/nginx.conf" -e stderr -g 'daemon off;' &
reloader run "$here/web.yaml" &
wait -n
