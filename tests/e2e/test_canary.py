"""A secret is planted in every source and every login, every part fails once, and then it is looked for everywhere."""

import base64
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.e2e.canary import Canaries, Onlooker, Seen, forms
from tests.e2e.sidecar import Sidecar, reloader
from tests.kubelet import KubeletVolume
from tests.servers import logins
from tests.servers.certificates import Authority
from tests.servers.collector import Collector, collector
from tests.servers.misbehaving import Exchange, misbehaving
from tests.servers.ports import free_port
from tests.waiting import eventually

pytestmark = pytest.mark.servers

EVERYTHING = "{{ kv.password }} {{ key }} {{ prefix | tojson }} {{ mount.password }} {{ env.PASSWORD }}"
"""A template with the secret of each source."""
RIGHTS = """
path "secret/*" { capabilities = ["read"] }
path "pki/issue/any" { capabilities = ["update"] }
"""


class House:
    """Pipelines that have every secret and fail in every way, but for one; and all that became visible of them."""

    def __init__(self, folder: Path, openbao, consul, quoting: str, collecting: Collector) -> None:
        self.folder, self.openbao, self.consul, self.quoting = folder, openbao, consul, quoting
        self.collecting = collecting
        self.canaries = Canaries()
        self.seen = Seen(self.canaries)
        self.meant: list[Path] = []
        self.pipelines = self._kept(folder / "pipelines")
        self.state, self.temporary, self.home = (folder / name for name in ("state", "tmp", "home"))
        for each in (self.pipelines, self.temporary, self.home):
            each.mkdir()
        self.began = time.time() - 1
        self._fill_the_servers()
        self._fill_the_files()
        self.expected: dict[str, str] = {}
        self._write_all()
        self.env = self._environment()
        self.sidecar = Sidecar(folder / "sidecar", *sorted(self.pipelines.iterdir()), env=self.env)

    def _kept(self, path: Path) -> Path:
        """Take note of a path that is there to hold a secret."""
        self.meant.append(path)
        return path

    def _fill_the_servers(self) -> None:
        openbao, make = self.openbao, self.canaries.make
        openbao.enable("kv", "secret", version="2")
        openbao.pki("pki", "tests root")
        openbao.put_kv2("secret", "app", {"password": make("kv")})
        openbao.put_kv2("secret", "text", {"password": f'{{"a": "{make("not json", awkward=False)}"'})
        self.token, self.powerless = openbao.policy_token(RIGHTS), openbao.policy_token('path "nothing" { capabilities = ["read"] }')
        self.canaries.add("token", self.token)
        self.canaries.add("token without rights", self.powerless)
        openbao.client().sys.create_or_update_policy("canary", RIGHTS)
        self.password = make("password of a login")
        logins.userpass(openbao, self.password, token_policies=["canary"])
        approle = logins.Approle(openbao, options={"token_policies": ["canary"]})
        self.role_id, self.secret_id = approle.role_id, approle.secret_id()
        self.canaries.add("secret_id", self.secret_id)
        self.consul.put("app/key", make("key of Consul"))
        self.consul.put("app/folder/one", make("folder of Consul"))

    def _fill_the_files(self) -> None:
        make = self.canaries.make
        self.mount = KubeletVolume(self._kept(self.folder / "mount"), mode=0o600)
        self.mount.swap({"password": make("mounted")})
        key_file = Authority(self._kept(self.folder / "authority")).issue("client")[1]
        self.canaries.add("key of a certificate", "".join(key_file.read_text().splitlines()[1:-1]))
        texts = {
            "token": self.openbao.policy_token(RIGHTS),
            "password": self.password,
            "wrong-password": make("password that is wrong"),
            "secret-id": self.secret_id,
            "wrong-secret-id": make("secret_id that is wrong", awkward=False),
            "wrong-token": make("token that is wrong", awkward=False),
            "broken.pem": f"-----BEGIN PRIVATE KEY-----\n{make('key that is broken', awkward=False)}\n-----END PRIVATE KEY-----\n",
            "client.pem": key_file.with_suffix(".crt").read_text() if key_file.with_suffix(".crt").exists() else "",
            "client.key": key_file.read_text(),
        }
        self.canaries.add("token of a file", texts["token"])
        self.files = self._kept(self.folder / "files")
        self.files.mkdir()
        for name, text in texts.items():
            (self.files / name).write_text(text)
            (self.files / name).chmod(0o600)

    def _environment(self) -> Mapping[str, str]:
        make = self.canaries.make
        return {
            "PASSWORD": make("variable"),
            "CONSUL_HTTP_TOKEN": make("token of Consul", awkward=False),
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.collecting.address,
            "OTEL_EXPORTER_OTLP_HEADERS": f"authorization={make('header of the collector', awkward=False)}",
            "OTEL_BSP_SCHEDULE_DELAY": "50",
            "RELOADER_FAILURE__STARTUP_GRACE": "2s",
            "TMPDIR": str(self.temporary),
            "HOME": str(self.home),
            "PYTHONFAULTHANDLER": "1",
            "PYTHONWARNINGS": "default",
        }

    def _write_all(self) -> None:
        self._write_good()
        self._write_those_that_cannot_read()
        self._write_those_that_cannot_render()
        self._write_those_that_are_refused()
        self._write_those_whose_target_says_no()

    def _write_good(self) -> None:
        """Everything, with every proof; its commands keep what they were started with."""
        kept = self.folder / "commands"
        kept.mkdir()
        note = f"cat /proc/$$/environ /proc/$$/cmdline >> {kept}/$0"
        proof = json.dumps(["sh", "-c", note, "verify"])
        self.write(
            "good",
            files=f"""{{
    app.conf: {{content: {json.dumps(EVERYTHING)}}},
    tls.key: {{content: "{{{{ tls.private_key }}}}"}},
    tls.crt: {{content: "{{{{ tls | fullchain }}}}", mode: "0644"}}}}""",
            check=f"{{command: {json.dumps(['sh', '-c', note, 'check', '{staged}'])}, builtin: [keypair, nonempty]}}",
            target=f"{{kind: command, command: {json.dumps(['sh', '-c', note, 'reload'])}, verify: {{command: {proof}}}}}",
        )

    def _write_those_that_cannot_read(self) -> None:
        nowhere, address, files = f"http://127.0.0.1:{free_port()}", self.openbao.address, self.files
        broken = f"{{cert_file: {files}/broken.pem, key_file: {files}/broken.pem}}"
        wrong = {
            "unreachable": (f"{{address: '{nowhere}', auth: {{token: {self.token}}}}}", "refused"),
            "denied": (f"{{address: '{address}', auth: {{token: {self.powerless}}}}}", "permission denied"),
            "wrong-token": (f"{{address: '{address}', auth: {{token_file: {files}/wrong-token}}}}", "denied"),
            "wrong-password": (
                f"{{address: '{address}', auth: {{method: userpass, username: ann, password_file: {files}/wrong-password}}}}",
                "login",
            ),
            "wrong-secret-id": (
                f"{{address: '{address}', auth: {{method: approle, role_id: {self.role_id}, secret_id_file: {files}/wrong-secret-id}}}}",
                "login",
            ),
            "broken-key": (
                f"{{address: '{address.replace('http:', 'https:')}', auth: {{token: {self.token}}}, tls: {broken}}}",
                "",
            ),
        }
        for name, (vault, told) in wrong.items():
            self.write(name, told, content="{{ kv }}", sources="{kv: {kind: vault, path: secret/app}}", vault=vault)
        self.write("no-json", "not json", content="{{ kv }}", sources="{kv: {kind: vault, path: secret/text, parse: json}}")
        login = f"{{address: '{address}', auth: {{method: userpass, username: ann, password_file: {files}/password}}}}"
        self.write("login-nothing", "no such path", sources="{kv: {kind: vault, path: secret/nothing}}", content="{{ kv }}", vault=login)
        role = f"{{address: '{address}', auth: {{method: approle, role_id: {self.role_id}, secret_id_file: {files}/secret-id}}}}"
        self.write("no-variable", "NOT_SET", sources="{env: {kind: env, names: [PASSWORD, NOT_SET]}}", content="{{ env }}", vault=role)

    def _write_those_that_cannot_render(self) -> None:
        contents = {
            "adding": "{{ kv.password + 1 }}",
            "number": "{{ 1 + (kv.password | float(default=none)) }}",
            "undefined": "{{ kv[kv.password] }}",
            "attribute": "{{ (mount.password).nothing }}",
            "decoding": "{{ key | b64decode }}",
            "parsing": "{{ env.PASSWORD | fromjson }}",
            "printing": "{{ [kv.password | b64decode] }}",
            "calling": "{{ kv.password() }}",
            "filling": "{{ kv.password.format() ~ '{:d}'.format(kv.password) }}",
            "including": "{% include kv.password %}",
            "escaping": "{{ kv.password.__class__ }}",
            "growing": "{{ kv.password * 10**9 }}",
            "looping": "{% for a, b, c in [kv.password] %}{% endfor %}",
        }
        for name, content in contents.items():
            self.write(name, "app.conf", content=content)

    def _write_those_that_are_refused(self) -> None:
        echo = ["sh", "-c", 'cat "$0"/*; base64 -w0 "$0"/app.conf; cat "$0"/app.conf >&2; exit 1', "{staged}"]
        slow = ["sh", "-c", 'cat "$0"/*; sleep 60', "{staged}"]
        self.write("echoing", "ended with status 1: ", check=f"{{command: {json.dumps(echo)}}}")
        self.write("slow", "did not end", check=f"{{command: {json.dumps(slow)}, timeout: 500ms}}")
        self.write("no-program", "cannot", check='{command: [/no/such/program, "{staged}"]}')
        for kind in ("json", "yaml", "toml"):
            files = f"{{app.{kind}: {{content: {json.dumps('{ ' + EVERYTHING)}}}}}"
            self.write(f"no-{kind}-file", f"app.{kind}", files=files, check=f"{{builtin: [{kind}]}}")
        broken = "-----BEGIN PRIVATE KEY-----\\n{{ kv.password }}"
        for name, key in (("broken-pair", broken), ("no-pair", "-----BEGIN PRIVATE KEY-----")):
            files = f"{{tls.key: {{content: \"{key}\"}}, tls.crt: {{content: '{{{{ tls | fullchain }}}}{{{{ kv.password }}}}'}}}}"
            self.write(name, "tls.key", files=files, check="{builtin: [keypair]}")
        self.write("in-the-way", "is not a link")
        (self.live("in-the-way") / "..data").mkdir(parents=True)
        self.write("in-place-in-the-way", "in the way", volume_more=", in_place: true")
        (self.live("in-place-in-the-way") / "app.conf").mkdir(parents=True)

    def _write_those_whose_target_says_no(self) -> None:
        live = self.live("no-reload")
        self.write("no-reload", "status 1", target=f"{{kind: command, command: [sh, -c, 'cat {live}/app.conf; exit 1']}}")
        header = self.canaries.make("header of a request", awkward=False)
        told = f"{{kind: http, url: '{self.quoting}/reload', headers: {{Authorization: {header}}}}}"
        self.write("no-request", "500", target=told)
        proof = f"{{http: '{self.quoting}/proof', body: nothing}}"
        self.write("no-proof", "body does not match", target=f"{{kind: command, command: ['true'], verify: {proof}}}")
        live = self.live("no-command-proof")
        proof = f"{{command: [sh, -c, 'cat {live}/app.conf >&2; exit 3']}}"
        self.write("no-command-proof", "status 3", target=f"{{kind: command, command: ['true'], verify: {proof}}}")
        self.write("nobody", "no process matches", target="{kind: process, match: {name: nobody-is-called-so}}")
        self.write("several", "processes match", target=f"{{kind: process, match: {{cmdline: '{self.folder}/several'}}}}")
        self.write("in-place", volume_more=", in_place: true")

    def write(
        self,
        name: str,
        told: str = "",
        *,
        content: str = EVERYTHING,
        files: str = "",
        sources: str = "",
        vault: str = "",
        check: str = "",
        target: str = "{kind: none}",
        volume_more: str = "",
    ) -> None:
        """Write a pipeline, and what it has to say of its failure."""
        sources = sources or (
            f"{{kv: {{kind: vault, path: secret/app, poll: 500ms}}, key: {{kind: consul, key: app/key}}, "
            f"prefix: {{kind: consul, prefix: app/folder/}}, mount: {{kind: files, path: {self.mount.path}}}, "
            "env: {kind: env, names: [PASSWORD]}, "
            "tls: {kind: vault, path: pki/issue/any, write: {common_name: localhost}}}"
        )
        vault = vault or f"{{address: '{self.openbao.address}', auth: {{token_file: {self.files}/token}}}}"
        files = files or f"{{app.conf: {{content: {json.dumps(content)}}}}}"
        (self.pipelines / f"{name}.yaml").write_text(
            f"vault: {vault}\nconsul: {{address: '{self.consul.address}'}}\nsources: {sources}\n"
            f"volume: {{path: {self.live(name)}, files: {files}{f', check: {check}' if check else ''}{volume_more}}}\n"
            f"target: {target}\ntiming: {{min_interval: 0s}}\nstate: {{path: {self.state}}}\n"
        )
        if told:
            self.expected[name] = told

    def live(self, name: str) -> Path:
        return self.folder / "live" / name

    def published(self, name: str = "good") -> str:
        file = self.live(name) / "app.conf"
        return file.read_text() if file.is_file() else ""

    def core(self, holder: str) -> str:
        return dict(self.canaries)[holder]

    def says(self) -> dict[str, str]:
        """Return all that each pipeline says of its trouble."""
        return {each["name"]: self._trouble(each) for each in self.sidecar.get("/status").json()["pipelines"]}

    @staticmethod
    def _trouble(known: Mapping[str, Any]) -> str:
        sources = [source["failure"] for source in known["sources"]]
        return "\n".join(filter(None, [*known["reasons"], known["owed"], known["rejected"], known["target"]["trouble"], *sources])).lower()

    def all_has_failed(self) -> bool:
        """Return whether each pipeline says of its failure what it has to: one that is silent would prove nothing."""
        says = self.says()
        silent = {name: says[name] for name, told in self.expected.items() if told.lower() not in says[name]}
        if silent:
            raise AssertionError(str(silent))
        return True

    def keep_endpoints(self, when: str) -> None:
        for path in ("/", "/status", "/metrics", "/readyz", "/startupz", "/healthz", "/nothing", "/readyz/good", "/readyz/echoing"):
            self.seen.keep(f"{when}: {path}", self.sidecar.get(path).text)

    def keep_command(self, *arguments: str | Path, more: Mapping[str, str] | None = None) -> str:
        """Run a command and look at all that it says; return that."""
        ended = reloader(*arguments, env={**self.env, **(more or {})}, timeout=170)
        command = " ".join(str(each) for each in arguments if each not in self.every)
        return self.seen.keep(f"reloader {command} {len(self.seen.places)}", ended.stdout + ended.stderr)

    @property
    def every(self) -> list[Path]:
        return sorted(self.pipelines.iterdir())

    def sets(self) -> list[Path]:
        """Return the generations, and the files that are written in place."""
        return [*(self.folder / "live").glob("*/..[0-9]*"), *(self.folder / "live").glob("in-place*/app.conf")]


@pytest.fixture
def house(tmp_path: Path, openbao, consul_server) -> Iterator[House]:
    houses: list[House] = []

    def quote(exchange: Exchange) -> None:
        """Answer with all that could be known: a reload fails, a proof says something else."""
        known = houses[0].published() + str(dict(exchange.headers))
        exchange.answer(known, status=200 if exchange.path == "/proof" else 500)

    with misbehaving(quote) as quoting, collector() as collecting:
        house = House(tmp_path, openbao, consul_server, quoting.address, collecting)
        houses.append(house)
        several = [subprocess.Popen(["sh", "-c", "read -r x", f"{tmp_path}/several"], stdin=subprocess.PIPE) for _ in range(2)]
        yield house
        house.sidecar.stop()
        for each in several:
            each.communicate()


@pytest.mark.timeout(900)  # 60 s where nothing else runs
def test_a_secret_is_found_nowhere_but_in_the_files_that_are_meant_for_it(house: House):
    """Not in a log, an endpoint, a trace, a command's output, a process, its environment, or any other file, in any form."""
    house.sidecar.start()
    with Onlooker(house.seen, house.sidecar.pid, {**os.environ, **house.env}) as onlooker:
        eventually(lambda: house.core("kv") in house.published(), what="the first publish")
        house.canaries.add("issued key", "".join((house.live("good") / "tls.key").read_text().splitlines()[1:-1]))
        eventually(house.all_has_failed, what="each failure", within=60)
        house.keep_endpoints("failing")
        while_it_runs(house)
        change_everything(house)
        house.keep_endpoints("changed")
        by_hand(house)
        misconfigure(house)
        house.keep_endpoints("misconfigured")
        os.kill(house.sidecar.pid, signal.SIGHUP)
        os.kill(house.sidecar.pid, signal.SIGTERM)
        eventually(lambda: not house.sidecar.running, what="its end")
    for form in ("logfmt", "console"):
        house.keep_command("once", "--log-level", "debug", "--log-format", form, *house.every)
    run_a_program(house)
    keep_the_rest(house)

    assert {"check", "reload", "verify"} == {path.name for path in (house.folder / "commands").iterdir()}
    assert len(onlooker.children) > 5
    assert house.seen.leaks == {}, str(house.seen)


def while_it_runs(house: House) -> None:
    """Run each command that asks or tries beside a sidecar."""
    house.keep_command("check", *house.every)
    assert "FAILED" in house.keep_command("check", "--online", *house.every)
    house.keep_command("once", "--dry-run", "--log-level", "debug", house.pipelines / "good.yaml")
    house.keep_command("once", "--dry-run", *(path for path in house.every if path.stem in house.expected))
    house.keep_command("doctor", *house.every)
    house.keep_command("doctor", "--json", house.pipelines / "echoing.yaml")
    house.keep_command("status", "--address", f"127.0.0.1:{house.sidecar.port}")


def change_everything(house: House) -> None:
    """Replace each secret by another: what was one must stay as unknown as what is one."""
    make = house.canaries.make
    house.openbao.put_kv2("secret", "app", {"password": make("next kv")})
    house.consul.put("app/key", make("next key of Consul"))
    house.mount.swap({"password": make("next mounted")})
    for holder in ("next kv", "next key of Consul", "next mounted"):
        for name in ("good", "in-place"):
            eventually(lambda name=name, holder=holder: house.core(holder) in house.published(name), what=f"{holder} of {name}")
    eventually(lambda: house.sidecar.settled("good"), what="the confirmation")
    eventually(lambda: "app.conf" in house.sidecar.pipeline("good")["change"]["diff"], what="the last change")
    assert "********" in house.sidecar.pipeline("good")["change"]["diff"]


def by_hand(house: House) -> None:
    """Put an earlier set back and let go of it."""
    for act in ("rollback", "resume"):
        every = [option for path in house.every for option in ("--config", path)]
        house.keep_command(act, "--pipeline", "good", *every)
        house.keep_endpoints(act)


def misconfigure(house: House) -> None:
    """Write tokens in the places where a person might put them."""
    path = house.pipelines / "denied.yaml"
    good, token = path.read_text(), house.powerless
    for wrong in (
        good.replace("token:", "tokn:", 1),
        good.replace(f"token: {token}", f"token: [{token}]", 1),
        good.replace(f"{{token: {token}}}", token, 1),
        good.replace(f"token: {token}", f"{token}: token", 1),
        good.replace(f"token: {token}}}", f'token: "{token}', 1),
        good.replace("token: ", "token:", 1),
        f"token: {token}\n{good}",
    ):
        assert wrong != good
        path.write_text(wrong)
        eventually(lambda: not taken(house), every=0.2, what="the refusal")
        house.keep_endpoints("a mistake")
        assert "denied.yaml" in house.keep_command("check", path)
        path.write_text(good)
        eventually(lambda: taken(house), every=0.2, what="the good configuration")


def taken(house: House) -> bool:
    return bool(house.sidecar.get("/status").json()["configuration"]["successful"])


def run_a_program(house: House) -> None:
    """Run a sidecar whose target is its child, with its token in a variable of ours."""
    token = house.openbao.policy_token(RIGHTS)
    house.canaries.add("token of a variable", token)
    house.write("program", target="{kind: exec, command: [sleep, '600'], timeout: 1s}")
    path = house._kept(house.folder / "program.yaml")
    path.write_text((house.pipelines / "program.yaml").read_text().replace(f"auth: {{token_file: {house.files}/token}}", "auth: {}"))
    (house.pipelines / "program.yaml").unlink()
    env = {**house.env, "RELOADER_VAULT__AUTH__TOKEN": token, "VAULT_TOKEN": house.token}
    sidecar = Sidecar(house.folder / "program", path, env=env)
    sidecar.start()
    given = {
        name: text for name, text in {**os.environ, **env}.items() if not name.startswith(("RELOADER_", "VAULT_TOKEN", "CONSUL_HTTP_TOKEN"))
    }
    try:
        eventually(sidecar.settled, what="the program")
        pid = sidecar.pipeline("program")["target"]["pid"]
        environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        told = {f"{name}={text}".encode() for name, text in given.items()}
        house.seen.keep("environ of the program", b"\0".join(each for each in environ if each not in told))
        house.seen.keep("cmdline of the program", Path(f"/proc/{pid}/cmdline").read_bytes())
    finally:
        sidecar.stop()


def keep_the_rest(house: House) -> None:
    """Look at the traces, and at every file that was written."""
    for request in house.collecting.requests:
        house.seen.keep("traces", str(request) + str(request.SerializeToString()))
    meant = [*house.meant, *house.sets(), *house.state.glob("vault-*")]
    machine = [Path(name) for name in ("/var/tmp", "/dev/shm", "/run", "/var/log")]
    held = house.seen.keep_files([house.folder, *machine, Path.cwd() / "reloader", Path.cwd() / "docs"], meant, house.began)
    beside = [path for path in Path("/tmp").iterdir() if path.is_file()]
    for path in beside:
        if path.lstat().st_mtime >= house.began:
            house.seen.keep(f"file {path}", path.read_bytes())
    assert {f"{house.live('good')}/..{number}" for number in (1, 2)} & {str(path.parent) for path in held}
    for path in held:
        mode = stat.S_IMODE(path.stat().st_mode)
        if path.is_relative_to(house.state):
            assert mode == 0o600, path
        elif path.is_relative_to(house.folder / "live"):
            assert mode == 0o640, path
    assert stat.S_IMODE(house.state.stat().st_mode) == 0o700
    for home in (house.folder / "live").glob("*/..reloader"):
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
        assert {stat.S_IMODE(path.stat().st_mode) for path in home.iterdir()} == {0o600}
    for generation in (house.folder / "live").glob("*/..[0-9]*"):
        assert stat.S_IMODE(generation.stat().st_mode) == 0o750
    assert list(house.temporary.iterdir()) == []
    assert [path for path in house.home.rglob("*") if path.is_file()] == []


def test_each_form_of_each_secret_would_be_found(tmp_path: Path):
    """In a text, in bytes, in a file; and nothing is found where nothing is."""
    canaries = Canaries()
    seen = Seen(canaries)
    text = canaries.make("one")
    canaries.make("other")
    core = dict(canaries)["one"]
    shapes = [text, repr(text), json.dumps(text), quote(text), text.encode().hex()]
    shapes += [base64.b64encode(b"x" * before + text.encode()).decode() for before in range(6)]
    shapes += [base64.urlsafe_b64encode(b"user:" * before + text.encode()).decode() for before in range(3)]
    for number, shape in enumerate(shapes):
        seen.keep(f"text {number}", f"before {shape} after")
        path = tmp_path / str(number)
        path.write_bytes(b"\xff" + shape.encode() + b"\0")
    assert seen.keep_files([tmp_path], [tmp_path / "0"], 0) == [tmp_path / "0"]

    assert seen.leaks == {
        **{f"text {n}": {"one"} for n in range(len(shapes))},
        **{f"file {tmp_path / str(n)}": {"one"} for n in range(1, len(shapes))},
    }
    assert all(len(form) > 12 for form in forms(core))
    seen.places.clear()
    seen.keep("innocent", "canary- 0123456789abcdef")
    assert seen.leaks == {}


@pytest.mark.skipif(shutil.which("sleep") is None, reason="there is no sleep")
def test_what_a_process_has_would_be_found(tmp_path: Path):
    """In its environment, its arguments, and a file that it holds open without a name."""
    canaries = Canaries()
    given, stray, argument, nameless = (canaries.make(each) for each in ("given", "stray", "argument", "nameless"))
    script = (
        "import os, subprocess, sys, tempfile\n"
        "file = tempfile.TemporaryFile(); file.write(sys.stdin.buffer.readline()); file.flush()\n"
        "subprocess.run(['sleep', '60'], env={'STRAY': os.environ['STRAY']})"
    )
    env = {"GIVEN": given, "STRAY": stray, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen([sys.executable, "-c", script, argument], env=env, stdin=subprocess.PIPE, start_new_session=True)
    process.stdin.write(nameless.encode() + b"\n")
    process.stdin.flush()
    seen = Seen(canaries)
    expected = {"environ of a child": {"stray"}, "cmdline of the sidecar": {"argument"}, "a file without a name": {"nameless"}}
    try:
        with Onlooker(seen, process.pid, {"GIVEN": given, "STRAY": stray}):
            eventually(lambda: {place: found for place, found in seen.leaks.items() if place in expected} == expected, what="all of it")
        assert "environ of the sidecar" not in seen.leaks
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
