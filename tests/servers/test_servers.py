"""The servers that the other tests rely on do what their fixtures promise."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from tests.servers.consul import Consul
from tests.servers.haproxy import Haproxy
from tests.servers.nginx import HTTP_DEFAULTS, Nginx
from tests.servers.openbao import OpenBao
from tests.servers.ports import free_port
from tests.servers.postgres import Postgres
from tests.waiting import eventually

pytestmark = pytest.mark.servers


def passing(consul: Consul, name: str) -> list[str]:
    answer = requests.get(f"{consul.address}/v1/health/service/{name}?passing=1", timeout=5)
    return [entry["Service"]["ID"] for entry in answer.json()]


def test_openbao_keeps_its_data_over_a_kill_and_a_seal(own_openbao: OpenBao):
    """A killed or sealed OpenBao comes back on its address with what it stored."""
    own_openbao.enable("kv", "secret", version="2")
    assert own_openbao.put_kv2("secret", "app", {"password": "one"}) == 1
    own_openbao.stop(kill=True)
    own_openbao.start()
    own_openbao.seal()
    own_openbao.unseal()

    read = own_openbao.client().secrets.kv.v2.read_secret_version("app", mount_point="secret", raise_on_deleted_version=True)
    assert read["data"]["data"] == {"password": "one"}


def test_openbao_issues_certificates_and_limits_tokens(openbao: OpenBao):
    """A token made from a policy may issue from the PKI and nothing else."""
    pki = openbao.pki("pki", "tests")
    token = openbao.policy_token(f'path "{pki.issue}" {{ capabilities = ["update"] }}', ttl="1m")

    issued = openbao.client(token).write_data(pki.issue, data={"common_name": "web.internal", "ttl": "1m"})
    assert "BEGIN CERTIFICATE" in issued["data"]["certificate"]
    with pytest.raises(Exception, match="permission denied"):
        openbao.client(token).read("sys/mounts")


def test_openbao_tells_what_it_was_asked_and_no_value(openbao: OpenBao):
    """The audit log holds each request that was answered, with its path, and whether it was refused."""
    openbao.enable("kv", "kv1", version="1")
    since = len(openbao.audit())
    openbao.write("kv1/app", password="canary-5b1e")
    with pytest.raises(Exception, match="permission denied"):
        openbao.client("nobody").read("kv1/app")

    assert [(each.operation, each.path, each.refused) for each in openbao.audit(since=since)] == [
        ("create", "kv1/app", False),
        ("read", "kv1/app", True),
    ]
    assert "canary-5b1e" not in openbao._audit.read_text()


def test_postgres_has_the_users_that_openbao_makes(openbao: OpenBao, database: Postgres):
    """A user of the database engine gets in while its lease lives, and is gone once it is revoked."""
    path = database.role(openbao, "app", ttl="1h", max_ttl="2h")
    made = openbao.client().read(path)
    user, password = made["data"]["username"], made["data"]["password"]
    assert user in database.minted()
    assert database.lets_in(user, password)
    assert not database.lets_in(user, "another")
    openbao.client().sys.revoke_lease(made["lease_id"])
    assert not database.lets_in(user, password)


def test_openbao_is_clean_for_each_test(openbao: OpenBao):
    """What one test mounted is gone for the next one."""
    openbao.enable("kv", "one", version="1")
    openbao.clean()
    assert set(openbao.client().sys.list_mounted_secrets_engines()["data"]) == {"sys/", "identity/", "cubbyhole/"}


def test_openbao_serves_tls(openbao_tls: OpenBao):
    """With an authority, OpenBao is reached over TLS by those who trust it."""
    assert openbao_tls.client().sys.read_health_status(method="GET")["sealed"] is False
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(openbao_tls.address, timeout=5)


def test_consul_keeps_its_data_over_a_kill(own_consul: Consul):
    """A killed Consul comes back on its address with its keys and services."""
    own_consul.put("nginx/routes/a", "one")
    first = own_consul.register("web", port=8001)
    own_consul.register("web", "second", port=8002, passing=False)
    own_consul.stop(kill=True)
    own_consul.start()

    assert requests.get(f"{own_consul.address}/v1/kv/nginx/routes/a?raw", timeout=5).text == "one"
    eventually(lambda: passing(own_consul, "web") == [first])


def test_consul_checks_can_fail_and_recover(consul_server: Consul):
    """An instance leaves the passing ones when its check fails, comes back when it recovers, and goes for good when it is taken out."""
    id = consul_server.register("web", port=8001)  # noqa: A001
    eventually(lambda: passing(consul_server, "web") == [id])
    consul_server.fail(id)
    eventually(lambda: passing(consul_server, "web") == [])
    consul_server.recover(id)
    eventually(lambda: passing(consul_server, "web") == [id])
    consul_server.deregister(id)
    eventually(lambda: passing(consul_server, "web") == [])


def test_nginx_serves_and_leaves_no_worker(tmp_path: Path, nginx: Callable[[Path, Path], Nginx]):
    """NGINX serves what its configuration says, checks another one, and takes its workers along when it is killed."""
    port, conf = free_port(), tmp_path / "nginx.conf"
    conf.write_text(f"events {{}}\nhttp {{ {HTTP_DEFAULTS} server {{ listen 127.0.0.1:{port}; location / {{ return 200 hello; }} }} }}\n")
    server = nginx(tmp_path / "nginx", conf)
    subprocess.run(server.test_command(str(conf)), env=server.env, check=True, capture_output=True)
    server.start()
    assert requests.get(f"http://127.0.0.1:{port}/", timeout=5).text == "hello"
    server.stop(kill=True)
    with pytest.raises(requests.ConnectionError):
        requests.get(f"http://127.0.0.1:{port}/", timeout=5)


def test_haproxy_serves_and_leaves_no_worker(tmp_path: Path, haproxy: Callable[[Path, Path], Haproxy]):
    """HAProxy serves what its configuration says, checks another one, and takes its workers along when it is killed."""
    port, conf = free_port(), tmp_path / "haproxy.cfg"
    conf.write_text(
        "defaults\n mode http\n timeout client 5s\n"
        f"frontend web\n bind 127.0.0.1:{port}\n http-request return status 200 content-type text/plain string hello\n",
    )
    server = haproxy(tmp_path / "haproxy", conf)
    subprocess.run(server.test_command(str(conf)), env=server.env, check=True, capture_output=True)
    server.start()
    assert eventually(lambda: requests.get(f"http://127.0.0.1:{port}/", timeout=5).text) == "hello"
    server.stop(kill=True)
    with pytest.raises(requests.ConnectionError):
        requests.get(f"http://127.0.0.1:{port}/", timeout=5)
