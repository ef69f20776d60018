#!/usr/bin/env bash
# Runs OpenBao (or Vault, in memory), reloader and NGINX on this machine until Ctrl-C. TTL: how long a certificate lives (66s).
set -euo pipefail
cd "$(dirname "$0")"
work=/tmp/reloader-nginx-vault-tls # as in web.yaml
mkdir -p "$work"
trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT
trap exit INT TERM

export VAULT_ADDR=http://127.0.0.1:8200 VAULT_TOKEN=root
bao=$(command -v bao || command -v vault || echo bao)
PATH=$PATH:/usr/sbin # where Debian has nginx
for each in reloader nginx "$bao"; do
  command -v "$each" >/dev/null || { echo "$0 needs $each on the PATH, see README.md" >&2; exit 1; }
done
"$bao" server -dev -dev-root-token-id=root -dev-no-store-token >"$work/server.log" &
until "$bao" secrets enable pki 2>/dev/null; do
  kill -0 $! || { cat "$work/server.log"; exit 1; }
  sleep 0.1
done
"$bao" write -field=certificate pki/root/generate/internal common_name=example ttl=24h key_type=ec >"$work/ca.pem"
"$bao" write pki/roles/web allowed_domains=localhost allow_bare_domains=true key_type=ec max_ttl="${TTL:-66s}"
"$bao" policy write web - <<<'path "pki/issue/web" { capabilities = ["update"] }'
(umask 077 && "$bao" token create -policy=web -field=token >"$work/token") # the sidecar may do this and nothing else
unset VAULT_TOKEN

reloader once web.yaml # as an init container: the first certificate is there before NGINX starts
nginx -p "$work" -c "$work/live/nginx.conf" -e stderr -g 'daemon off;' &
reloader run web.yaml &
wait -n
