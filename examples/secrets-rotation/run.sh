#!/usr/bin/env bash
# Runs reloader and the application on this machine until Ctrl-C, with the OpenBao or Vault at VAULT_ADDR and the PostgreSQL at PGHOST.
# TTL: how long a database user lives (20s), MAX_TTL: if it is renewed (TTL). TOKEN_TTL: how long the sidecar's token lives (24h).
set -euo pipefail
cd "$(dirname "$0")"
work=/tmp/reloader-secrets-rotation # as in app.yaml
rm -rf "$work"/{live,in-use} # those of an earlier run have ended
mkdir -p "$work"
trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT
trap exit INT TERM

export VAULT_ADDR=${VAULT_ADDR:-http://127.0.0.1:8200} VAULT_TOKEN=${VAULT_TOKEN:-root} PGHOST=${PGHOST:-127.0.0.1} PGPORT=${PGPORT:-5432}
bao=$(command -v bao || command -v vault || echo bao)
for each in reloader "$bao"; do
  command -v "$each" >/dev/null || { echo "$0 needs $each on the PATH, see README.md" >&2; exit 1; }
done
"$bao" secrets list | grep ^database/ >/dev/null || "$bao" secrets enable database
"$bao" write database/config/postgres plugin_name=postgresql-database-plugin allowed_roles=app \
  connection_url="postgresql://{{username}}:{{password}}@$PGHOST:$PGPORT/postgres?sslmode=disable" \
  username=postgres password="${POSTGRES_PASSWORD:-postgres}"
"$bao" write database/roles/app db_name=postgres default_ttl="${TTL:-20s}" max_ttl="${MAX_TTL:-${TTL:-20s}}" \
  creation_statements="CREATE ROLE \"{{name}}\" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'"
"$bao" policy write app - <<<'path "database/creds/app" { capabilities = ["read"] }'
(umask 077 && "$bao" token create -policy=app -ttl="${TOKEN_TTL:-24h}" -field=token >"$work/token") # it may do this and nothing else
unset VAULT_TOKEN

reloader run app.yaml 2>"$work/reloader.log" &
until [ -e "$work/live/db.json" ]; do # as a native sidecar: the application starts once it has credentials
  kill -0 $! || { cat "$work/reloader.log"; exit 1; }
  sleep 0.1
done
python3 app.py &
wait -n
