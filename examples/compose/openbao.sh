# Runs OpenBao in memory, with a PKI and a token that may issue from it, also after a restart, when it knows nothing.
set -eu
bao server -dev -dev-root-token-id=root -dev-listen-address=0.0.0.0:8200 -dev-no-store-token &
trap 'kill $!; wait; exit' INT TERM
until bao secrets enable pki 2>/dev/null; do sleep 0.2; done
bao write -field=certificate pki/root/generate/internal common_name=example ttl=24h key_type=ec
bao write pki/roles/web allowed_domains=localhost allow_bare_domains=true key_type=ec max_ttl=1h
echo 'path "pki/issue/web" { capabilities = ["update"] }' | bao policy write web -
bao token create -id=web-example -policy=web
wait
