"""Every way to log in at a real OpenBao, and what is said where it does not work; what is secret is never said."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from reloader.backends.reads import ReadFailed
from reloader.backends.turns import Turns
from reloader.backends.vault.client import Client
from reloader.plan import Tls, Vault, VaultAuth
from reloader.snapshot import FailureKind
from reloader.world import World
from tests.servers import logins
from tests.servers.certificates import Authority
from tests.servers.logins import Approle
from tests.servers.openbao import OpenBao

pytestmark = pytest.mark.servers

CANARY = "s.canary-c0ffee"
READS = 'path "kv/*" { capabilities = ["read"] }'


@contextmanager
def client_of(server: OpenBao, auth: VaultAuth, **other: Any) -> Iterator[Client]:
    world = World()
    plan = Vault(address=server.address, auth=auth, **other)
    client = Client(plan, Turns(plan.address, plan.max_connections, world), world)
    try:
        yield client
    finally:
        client.close()


@pytest.fixture
def kv(openbao: OpenBao) -> OpenBao:
    return with_a_secret(openbao)


def with_a_secret(server: OpenBao) -> OpenBao:
    server.enable("kv", "kv", version="1")
    server.write("kv/app", password="one")
    server.client().sys.create_or_update_policy("reads", READS)
    return server


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str, str], str]:
    def written(name: str, text: str) -> str:
        (tmp_path / name).write_text(f"{text}\n")
        return str(tmp_path / name)

    return written


def approle_of(role: Approle, secret_id_file: str, **other: Any) -> VaultAuth:
    return VaultAuth(method="approle", role_id=role.role_id, secret_id_file=secret_id_file, **other)


def reads(client: Client) -> bool:
    return bool(client.get("kv/app").body["data"] == {"password": "one"})


def refusal(client: Client) -> str:
    """Return why there is no token, which is everybody's failure and tells nothing secret."""
    with pytest.raises(ReadFailed) as caught:
        client.get("kv/app")
    assert (caught.value.kind, caught.value.everywhere) == (FailureKind.REFUSED, True)
    told = str(caught.value)
    assert "canary" not in told
    assert "canary" not in repr(caught.value)
    assert "canary" not in str(caught.value.__cause__)
    return told


def test_kubernetes_with_the_token_of_the_service_account(kv, tmp_path, file):
    signer = logins.Signer()
    with logins.kubernetes(kv, Authority(tmp_path / "api"), token_policies="reads") as api:
        jwt_file = file("jwt", token := logins.service_account(signer))
        with client_of(kv, VaultAuth(method="kubernetes", role="web", jwt_file=jwt_file)) as client:
            told = refusal(client)  # the API server does not know it
            assert "auth/kubernetes/login: the login was refused (" in told
            assert f"check vault.auth.role web and whom it is bound to, and the service account of {jwt_file}" in told
            assert not any(part in told for part in token.split("."))
            api.known[token] = "system:serviceaccount:apps:web"
            client.identity.wake()
            assert reads(client)


def test_jwt_read_anew_at_each_login(kv, file):
    signer = logins.jwt(kv, token_policies="reads")
    ended = signer.sign(iss="tests", aud="vault", sub="me", exp=1)
    jwt_file = file("jwt", ended)
    with client_of(kv, VaultAuth(method="jwt", role="web", jwt_file=jwt_file)) as client:
        told = refusal(client)
        assert "auth/jwt/login: the login was refused (error validating token: " in told
        assert f"check vault.auth.role web, and the end, issuer and audience of the JWT in {jwt_file}" in told
        assert not any(part in told for part in ended.split("."))
        file("jwt", signer.sign(iss="tests", aud="vault", sub="me"))
        client.identity.wake()
        assert reads(client)


def test_userpass(kv, file):
    logins.userpass(kv, "one", token_policies="reads")
    password_file = file("password", CANARY)
    with client_of(kv, VaultAuth(method="userpass", username="ann", password_file=password_file)) as client:
        told = refusal(client)
        assert "auth/userpass/login/ann: the login was refused (invalid username or password)" in told
        assert f"check vault.auth.username ann, and the password in {password_file}" in told
        file("password", "one")
        client.identity.wake()
        assert reads(client)


def test_approle(kv, file):
    role = Approle(kv, options={"token_policies": "reads"})
    secret_id_file = file("secret_id", CANARY)
    with client_of(kv, approle_of(role, secret_id_file)) as client:
        told = refusal(client)
        assert "auth/approle/login: the login was refused (invalid role or secret ID)" in told
        assert f"check vault.auth.role_id, and {secret_id_file}" in told
        file("secret_id", role.secret_id())
        client.identity.wake()
        assert reads(client)


def test_cert_with_the_certificate_that_is_in_the_file_by_now(openbao_tls, tmp_path):
    server, authority = with_a_secret(openbao_tls), Authority(tmp_path / "clients")
    logins.cert(server, authority.ca_file, token_policies="reads", allowed_common_names="one,two")
    cert_file, key_file = tmp_path / "tls.crt", tmp_path / "tls.key"

    def show(*names: str) -> None:
        for made, place in zip(authority.issue(*names), (cert_file, key_file), strict=True):
            place.write_bytes(made.read_bytes())

    show("other")
    tls = Tls(ca_file=str(server.ca_file), cert_file=str(cert_file), key_file=str(key_file))
    with client_of(server, VaultAuth(method="cert", role="web"), tls=tls) as client:
        assert "auth/cert/login: the login was refused" in refusal(client)
        for name in ("one", "two"):
            show(name)
            client.identity.wake()
            assert reads(client)
            assert client.get("auth/token/lookup-self").body["data"]["meta"]["common_name"] == name
            client.identity.revoke()


def test_a_server_that_cannot_prove_its_name_is_told_no_password(openbao_tls, file):
    server = with_a_secret(openbao_tls)
    logins.userpass(server, CANARY, token_policies="reads")
    auth = VaultAuth(method="userpass", username="ann", password_file=file("password", CANARY))
    with client_of(server, auth, tls=Tls(ca_file=str(server.ca_file), server_name="localhost")) as client:
        assert reads(client)
    asked = len(server.audit("auth/userpass/login"))
    for tls in (Tls(ca_file=str(server.ca_file), server_name="other"), Tls()):
        with client_of(server, auth, tls=tls) as client, pytest.raises(ReadFailed, match=r"TLS failed: .*; check vault\.tls") as caught:
            client.get("kv/app")
        assert (caught.value.kind, caught.value.everywhere) == (FailureKind.MISCONFIGURED, True)
    assert len(server.audit("auth/userpass/login")) == asked == 1


def test_another_mount_and_a_namespace(own_openbao, file):
    client = own_openbao.client()
    client.write_data("sys/namespaces/team", data={})
    client.adapter.namespace = "team"
    client.sys.enable_secrets_engine("kv", path="kv", options={"version": "1"})
    client.write_data("kv/app", data={"password": "one"})
    client.sys.create_or_update_policy("reads", READS)
    role = Approle(own_openbao, mount="apps/roles", namespace="team", options={"token_policies": "reads"})
    auth = approle_of(role, file("secret_id", role.secret_id()), mount="apps/roles")
    with client_of(own_openbao, auth, namespace="team") as client:
        assert reads(client)
    with client_of(own_openbao, auth, namespace="nobody") as client:
        assert "auth/apps/roles/login: the login was refused (namespace not found)" in refusal(client)
    auth = approle_of(role, file("secret_id", role.wrapped()), mount="apps/roles", secret_id_wrapped=True)
    with client_of(own_openbao, auth, namespace="team") as client:
        assert reads(client)


def test_a_mount_that_is_not_there_is_told_as_such(kv, file):
    with client_of(kv, VaultAuth(method="userpass", username="ann", password_file=file("p", CANARY), mount="none")) as client:
        assert "auth/none/login/ann: the login was refused (permission denied); check " in (told := refusal(client))
        assert "vault.auth.mount" in told


@pytest.mark.parametrize(("text", "told"), [(None, "No such file or directory; mount the file"), ("", "is empty")])
def test_a_file_without_a_secret_is_named(kv, tmp_path, file, text, told):
    path = str(tmp_path / "none") if text is None else file("password", text)
    auth = VaultAuth(method="userpass", username="ann", password_file=path)
    with client_of(kv, auth) as client, pytest.raises(ReadFailed, match=rf"vault\.auth\.password_file {path}:? {told}") as caught:
        client.get("kv/app")
    assert (caught.value.kind, caught.value.everywhere) == (FailureKind.MISCONFIGURED, True)


def test_a_wrapped_secret_id_is_unwrapped_once_for_all_logins(kv, file):
    role = Approle(kv, options={"token_policies": "reads"})
    with client_of(kv, approle_of(role, file("wrapped", role.wrapped()), secret_id_wrapped=True)) as client:
        assert reads(client)
        client.identity.revoke()
        assert reads(client)
        file("wrapped", role.wrapped())
        client.identity.revoke()
        assert reads(client)


def test_the_next_run_takes_the_unwrapped_secret_id(kv, file):
    role = Approle(kv, options={"token_policies": "reads"})
    auth = approle_of(role, file("wrapped", role.wrapped()), secret_id_wrapped=True)
    kept: list[Any] = []
    with client_of(kv, auth) as client:
        client.identity.on_change(lambda: kept.append(client.identity.keep()))
        assert reads(client)
        client.identity.revoke()
    with client_of(kv, auth) as client:
        client.identity.adopt({"secret_id": kept[-1]["secret_id"]})
        assert reads(client)


def test_an_unwrapped_secret_id_is_kept_even_where_the_login_fails(kv, file):
    role = Approle(kv, options={"token_policies": "reads"})
    auth = VaultAuth(method="approle", role_id="none", secret_id_file=file("wrapped", role.wrapped()), secret_id_wrapped=True)
    kept: list[Any] = []
    with client_of(kv, auth) as client:
        client.identity.on_change(lambda: kept.append(client.identity.keep()))
        refusal(client)
    assert kept[-1]["secret_id"]["secret_id"]


def test_a_wrapping_token_that_somebody_else_used_is_an_alarm(kv, file):
    role = Approle(kv)
    wrapped = role.wrapped()
    kv.client(wrapped).sys.unwrap()
    with client_of(kv, approle_of(role, path := file("wrapped", wrapped), secret_id_wrapped=True)) as client:
        told = refusal(client)
    assert f"the wrapping token in {path} is not valid: it is too old, or somebody has unwrapped it already" in told
    assert wrapped not in told


def test_what_was_wrapped_elsewhere_is_not_unwrapped(kv, file):
    role = Approle(kv)
    foreign = str(
        kv.client().adapter.request("post", "/v1/sys/wrapping/wrap", json={"secret_id": CANARY}, wrap_ttl="60s")["wrap_info"]["token"]
    )
    with client_of(kv, approle_of(role, file("wrapped", foreign), secret_id_wrapped=True)) as client:
        assert "comes from sys/wrapping/wrap, which gives no secret_id of this mount" in refusal(client)
    assert kv.client(foreign).sys.unwrap()["data"] == {"secret_id": CANARY}


def test_a_secret_id_that_is_good_once_is_said_to_be_spent(kv, file):
    role = Approle(kv, options={"token_policies": "reads"})
    with client_of(kv, approle_of(role, path := file("secret_id", role.secret_id(num_uses=1)))) as client:
        assert reads(client)
        client.identity.revoke()
        assert f"{path}: the secret_id may have ended or be spent, so put a new one there" in refusal(client)
