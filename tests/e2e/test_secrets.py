"""No secret gets anywhere but into the files that it is meant for, whatever goes wrong around it."""

import base64
import json
import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.sidecar import Sidecar, reloader
from tests.kubelet import KubeletVolume
from tests.servers.misbehaving import Exchange, misbehaving
from tests.waiting import eventually

pytestmark = pytest.mark.servers

# Two each: what is rotated while it runs must be as unknown afterwards as what it replaced.
KV, KV_NEXT = "canary-kv-b71f9e", "canary-kv-next-08d2aa"
KV_JSON = '{"password": "canary-json-5e0c31"'
MOUNTED = "canary-mounted-94bd0e"
VARIABLE = "canary-variable-2c77f0"
CONSUL_TOKEN = "canary-consul-token-6a1b90"

SOURCES = """
  db:     {{kind: vault, path: secret/app, poll: 500ms}}
  tls:    {{kind: vault, path: pki/issue/any, write: {{common_name: localhost}}}}
  mount:  {{kind: files, path: {mount}}}
  tools:  {{kind: env, names: [PASSWORD]}}
"""
FILES = """
    app.conf: {content: "{{ db.password }} {{ db.password | b64encode }} {{ mount['password'] }} {{ tools.PASSWORD }}\\n"}
    tls.key:  {content: "{{ tls.private_key }}"}
    tls.crt:  {content: "{{ tls | fullchain }}", mode: "0644"}
"""


class Vault:
    """A Vault with a secret to read, one that is no JSON, a certificate to issue, and tokens for some of it."""

    def __init__(self, openbao, folder: Path) -> None:
        self._openbao = openbao
        openbao.enable("kv", "secret", version="2")
        openbao.pki("pki", "tests root")
        openbao.put_kv2("secret", "app", {"password": KV})
        openbao.put_kv2("secret", "broken", {"password": KV_JSON})
        rights = 'path "secret/data/*" { capabilities = ["read"] } path "pki/issue/any" { capabilities = ["update"] }'
        self.token, self.other = openbao.policy_token(rights), openbao.policy_token(rights)
        self.powerless = openbao.policy_token('path "nothing" { capabilities = ["read"] }')
        self.token_file = folder / "vault-token"
        self.token_file.write_text(self.other)
        self.token_file.chmod(0o600)
        self.address = openbao.address

    def rotate(self) -> None:
        self._openbao.put_kv2("secret", "app", {"password": KV_NEXT})

    def connection(self, token: str | None = None) -> str:
        auth = f"token_file: {self.token_file}" if token is None else f"token: {token}"
        return f"vault: {{address: '{self.address}', auth: {{{auth}}}}}\n"


class House:
    """Pipelines that have every secret, each of which fails in its own way, but for one; and all that became visible of them."""

    def __init__(self, folder: Path, vault: Vault, consul: str) -> None:
        self.folder, self.vault, self.consul = folder, vault, consul
        self.pipelines, self.seen = folder / "pipelines", {}
        self.pipelines.mkdir()
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self.mount = KubeletVolume(folder / "mount", mode=0o600)
        self.mount.swap({"password": MOUNTED})
        self.command_lines = folder / "command-lines"
        self.env = {"PASSWORD": VARIABLE, "TMPDIR": str(self.temporary), "RELOADER_FAILURE__STARTUP_GRACE": "2s"}
        self._write_all()
        self.sidecar = Sidecar(folder / "sidecar", *sorted(self.pipelines.iterdir()), env=self.env)

    def _write_all(self) -> None:
        # The check of the good one tells how it was started, the one of `echoing` shows all that it was given and says no.
        told = json.dumps(["sh", "-c", f"cat /proc/$$/cmdline >> {self.command_lines}", "check", "{staged}"])
        echo = json.dumps(["sh", "-c", 'cat "$0"/*; base64 -w0 "$0/app.conf"; exit 1', "{staged}"])
        self.write("good", f"\n  files: {FILES}  check: {{command: {told}, builtin: [keypair]}}")
        self.write("echoing", f"\n  files: {FILES}  check: {{command: {echo}}}", vault=self.vault.connection())
        self.write_content("adding", "{{ db.password + 1 }}")
        self.write_content("number", "{{ db.password | int('x') + tools.PASSWORD | float }} {{ mount['password'].nothing }}")
        self.write_content("undefined", "{{ db[tools.PASSWORD] }}")
        self.write_content("encoded", "{{ db.password | b64decode }}")
        self.write_content("parsed", "{{ db }}", sources="\n  db: {kind: vault, path: secret/broken, parse: json}\n")
        self.write_content("denied", "{{ db }}", vault=self.vault.connection(self.vault.powerless))
        consul = f"consul: {{address: '{self.consul}', token: {CONSUL_TOKEN}}}\n"
        self.write_content("consul", "{{ key }}", sources="\n  key: {kind: consul, key: app}\n", vault=consul)

    def write_content(self, name: str, content: str, **more: str) -> None:
        self.write(name, f"\n  files: {{app.conf: {{content: {json.dumps(content)}}}}}", **more)

    def write(self, name: str, volume: str, *, sources: str = "", vault: str = "") -> None:
        text = (
            f"{vault or self.vault.connection(self.vault.token)}"
            f"sources: {sources or SOURCES.format(mount=self.mount.path)}"
            f"volume:\n  path: {self.live(name)}{volume}\n"
            f"target: {{kind: none}}\ntiming: {{min_interval: 0s}}\n"
        )
        (self.pipelines / f"{name}.yaml").write_text(text)

    def live(self, name: str) -> Path:
        return self.folder / "live" / name

    def published(self) -> str:
        file = self.live("good") / "app.conf"
        return file.read_text() if file.exists() else ""

    def keep(self, what: str, text: str) -> None:
        """Note what somebody could see."""
        self.seen[what] = text

    def keep_command(self, *arguments: str | Path) -> str:
        """Run a command and note all that it says, and return that."""
        ended = reloader(*arguments, env=self.env)
        said = ended.stdout + ended.stderr
        self.keep(" ".join(map(str, (*arguments, len(self.seen)))), said)
        return said

    def keep_endpoints(self, when: str) -> None:
        names = [path.stem for path in self.pipelines.iterdir()]
        for path in ("/status", "/metrics", "/readyz", "/startupz", "/healthz", *(f"/readyz/{name}" for name in names)):
            self.keep(f"{when}: {path}", self.sidecar.get(path).text)

    def keep_processes(self) -> None:
        """Note how the sidecar was started, and the children that it has now."""
        pid = self.sidecar.pid
        children = [child for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]
        for each in (str(pid), *children):
            self.keep(f"command line of {each}", Path(f"/proc/{each}/cmdline").read_text())

    def keep_files(self) -> None:
        """Note every file below the test's folder that is not there to hold a secret."""
        meant = (self.pipelines, self.mount.path, self.vault.token_file)
        files = (path for path in self.folder.rglob("*") if path.is_file() and not path.is_symlink())
        for path in files:
            if not any(path.is_relative_to(each) for each in meant) and path not in self.generations():
                self.keep(str(path), path.read_bytes().decode("latin-1"))

    def generations(self) -> list[Path]:
        """Return the files that the good pipeline laid out."""
        return [path for path in self.live("good").glob("..[0-9]*/*") if path.is_file()]


@pytest.fixture
def house(tmp_path: Path, openbao) -> Iterator[House]:
    def denied(exchange: Exchange) -> None:
        exchange.answer(f"Permission denied: token {exchange.headers.get('x-consul-token')} lacks permission", status=403)

    with misbehaving(denied) as consul:
        house = House(tmp_path, Vault(openbao, tmp_path), consul.address)
        yield house
        assert consul.exchanges[0].headers["x-consul-token"] == CONSUL_TOKEN
        house.sidecar.stop()


def forms(house: House) -> dict[str, str]:
    """Return every secret, as it is and in the other forms in which it could be read."""
    vault = house.vault
    private_key = "".join((house.live("good") / "tls.key").read_text().splitlines()[1:-1])
    secrets = [KV, KV_NEXT, KV_JSON, "canary-json-5e0c31", MOUNTED, VARIABLE, CONSUL_TOKEN, private_key[:40]]
    secrets += [vault.token, vault.other, vault.powerless]
    return {text: secret for secret in secrets for text in (secret, base64.b64encode(secret.encode()).decode().rstrip("=")[:-1])}


def leaks(house: House) -> list[tuple[str, str]]:
    """Return each place in which a secret can be seen, with the secret."""
    known = forms(house)
    return [(place, secret) for place, text in house.seen.items() for form, secret in known.items() if form in text]


def reasons(house: House, name: str) -> str:
    """Return why a pipeline is not ready."""
    return "\n".join(house.sidecar.pipeline(name)["reasons"])


EXPECTED = {
    "echoing": "check command 'sh' ended with status 1: ********",
    "adding": "app.conf",
    "number": "app.conf",
    "undefined": "app.conf",
    "encoded": "app.conf",
    "parsed": "password is not json",
    "denied": "permission denied",
    "consul": "permission denied",
}
"""What each pipeline that fails has to say of it: were it silent, it would prove nothing."""


@pytest.mark.timeout(180)
def test_no_secret_is_seen_where_it_is_not_meant_to_be(house):
    """Not in a log, an endpoint, a command's output, the record, a command line or a temporary file."""
    sidecar = house.sidecar.start()
    eventually(lambda: KV in house.published(), what="the first publish")
    for name, expected in EXPECTED.items():
        eventually(lambda name=name, expected=expected: expected in reasons(house, name), what=f"the failure of {name}")
    house.keep_endpoints("failing")
    house.keep_processes()
    eventually(house.command_lines.read_text, what="the command line of a check")

    for path in house.pipelines.iterdir():
        house.keep_command("check", path)
    house.vault.rotate()
    assert "********" in house.keep_command("once", "--dry-run", house.pipelines / "good.yaml")
    eventually(lambda: KV_NEXT in house.published(), what="the rotated secret")
    for name in EXPECTED:
        house.keep_command("once", "--dry-run", house.pipelines / f"{name}.yaml")
    house.keep_command("status", "--json", "--address", f"127.0.0.1:{sidecar.port}")
    house.keep_endpoints("rotated")

    broken(house)
    house.keep_endpoints("misconfigured")
    os.kill(sidecar.pid, signal.SIGTERM)
    eventually(lambda: not sidecar.running, what="its end")
    failed = house.keep_command("once", house.pipelines / "echoing.yaml")
    assert EXPECTED["echoing"] in failed
    house.keep_files()

    assert all(f'"pipeline": "{name}"' in sidecar.log() for name in EXPECTED)
    assert str(house.folder / "sidecar/reloader.log") in house.seen
    assert any(place.endswith("good/..reloader/record.json") for place in house.seen)
    assert leaks(house) == []


def broken(house: House) -> None:
    """Break the configuration that runs, with the tokens in the places where a person might put them."""
    path = house.pipelines / "good.yaml"
    good, token = path.read_text(), house.vault.token
    for wrong in (
        good.replace("token:", "tokn:", 1),
        good.replace(f"token: {token}", f"token: [{token}]", 1),
        good.replace(f"{{token: {token}}}", token, 1),
        good.replace(f"token: {token}", f"{token}: token", 1),
        good.replace(f"token: {token}}}", f'token: "{token}', 1),
        good.replace("token: ", "token:", 1),
        good.replace("sources:", f"token: {token}\nsources:", 1),
    ):
        path.write_text(good)
        eventually(lambda: house.sidecar.metric("reloader_config_reload_successful") == 1, what="the good configuration")
        path.write_text(wrong)
        eventually(lambda: house.sidecar.metric("reloader_config_reload_successful") == 0, what="the refusal")
        house.keep(f"status {len(house.seen)}", house.sidecar.get("/status").text)
        assert "good.yaml" in house.keep_command("check", path)


def test_what_is_meant_to_hold_secrets_has_modes_to_match(house):
    """Files 0640 unless the operator says otherwise, and nobody but the sidecar may enter its own directory."""
    house.sidecar.start()
    eventually(lambda: KV in house.published(), what="the first publish")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in house.generations()}
    assert modes == {"app.conf": 0o640, "tls.key": 0o640, "tls.crt": 0o644}
    live = house.live("good")
    assert stat.S_IMODE((live / "..1").stat().st_mode) == 0o750
    assert stat.S_IMODE((live / "..reloader").stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (live / "..reloader").iterdir()} == {0o600}
    for name in EXPECTED:  # a set under a check is there, whenever it is tried again
        eventually(lambda name=name: not list(house.live(name).glob("..[0-9]*")), what=f"{name} to leave no refused set behind")


def test_a_secret_that_is_shown_would_be_noticed(house):
    """The search finds each of them, so that it finding none means something."""
    house.sidecar.start()
    eventually(lambda: KV in house.published(), what="the first publish")
    for form in forms(house):
        house.seen = {"a log": f"x{form}y"}
        assert leaks(house) != [], form
