"""An application that lives on database users of a real OpenBao and PostgreSQL, and the sidecar that keeps them alive."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.sidecar import Sidecar, reloader
from tests.servers.openbao import OpenBao
from tests.servers.postgres import Postgres
from tests.waiting import eventually

pytestmark = pytest.mark.servers

READING = Path(__file__).parents[1] / "targets" / "reading.py"
RIGHTS = 'path "database/creds/*" { capabilities = ["read"] } path "pki/issue/any" { capabilities = ["update"] }'

CONFIGURATION = """
name: {name}
vault: {{address: '{address}', revoke_on_exit: {revoke}, auth: {{method: approle, role_id: {role_id}, secret_id_file: {secret_id}}}}}
sources:
  db: {{kind: vault, path: {path}}}
volume:
  path: {live}
  files:
    one.conf: {{content: '{{{{ db | tojson }}}}'}}
    two.conf: {{content: '{{{{ db.username }}}}'}}
  check: {{command: ['{check}']}}
target:
  match: {{pidfile: {pidfile}}}
  verify: {{alive: true, within: 50ms}}
timing: {{min_interval: 0s, resync: 2s}}
{state}
"""


class Pod:
    """The application, its sidecar, and all that they need of the servers."""

    def __init__(self, folder: Path, openbao: OpenBao, database: Postgres) -> None:
        self.folder, self.live, self.openbao, self.database = folder, folder / "live", openbao, database
        self.pidfile, self.notes = folder / "pid", folder / "notes"
        self.configuration = folder / "app.yaml"
        openbao.client().sys.create_or_update_policy("app", RIGHTS)
        openbao.client().sys.enable_auth_method("approle")
        self.settings: dict[str, Any] = {"revoke": "false", "check": "true", "state": f"state: {{path: {folder / 'state'}}}"}
        self.allow(token_ttl="1h")
        self.write(path=database.role(openbao, "app", ttl="3s", max_ttl="1h"))
        self.began = len(openbao.audit())
        self.sidecar = Sidecar(folder / "sidecar", self.configuration)
        self.process: subprocess.Popen[bytes] | None = None

    def allow(self, **life: str) -> None:
        """Let the sidecar log in for tokens that live so long."""
        self.openbao.write("auth/approle/role/app", token_policies="app", **life)
        secret_id = self.folder / "secret-id"
        secret_id.write_text(self.openbao.write("auth/approle/role/app/secret-id")["data"]["secret_id"])
        role_id = self.openbao.client().read("auth/approle/role/app/role-id")["data"]["role_id"]
        self.settings |= {"role_id": role_id, "secret_id": secret_id}

    def write(self, **changes: str) -> None:
        """Write the sidecar's configuration, with these changes."""
        self.settings |= changes
        own = {"name": "app", "address": self.openbao.address, "live": self.live, "pidfile": self.pidfile}
        fresh = self.folder / "app.new"
        fresh.write_text(CONFIGURATION.format(**own, **self.settings))
        fresh.rename(self.configuration)

    def start(self) -> None:
        """Start the sidecar, and the application on what it published."""
        self.sidecar.start()
        eventually((self.live / "one.conf").exists, within=20, what="the first set")
        self.start_application()
        eventually(self.sidecar.settled, within=20, what="the confirmation")

    def start_application(self) -> None:
        command = [sys.executable, str(READING), str(self.live), str(self.pidfile), str(self.notes)]
        self.process = subprocess.Popen(command)
        eventually(self.pidfile.exists, what="the application")

    def end_application(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    @property
    def credentials(self) -> dict[str, str]:
        """What the application runs on: what it read last."""
        return dict(json.loads(json.loads(self.notes.read_text().splitlines()[-1])["read"]["one.conf"]))

    def works(self) -> bool:
        """Return whether the application gets into its database."""
        known = self.credentials
        # Between two looks it may have been told another user: what it has now counts.
        return self.database.lets_in(known["username"], known["password"]) or known != self.credentials

    def issues(self) -> int:
        """Return how many users were asked for."""
        return sum(each.path.startswith("database/creds/") and not each.refused for each in self.openbao.audit(since=self.began))

    def renewals(self) -> int:
        return sum(each.path == "sys/leases/renew" for each in self.openbao.audit(since=self.began))

    def live_through(self, renewals: int) -> None:
        """Wait for so many more renewals, in all of which the application works."""
        seen = self.renewals() + renewals

        def look() -> bool:
            assert self.works()
            return self.renewals() >= seen

        until(look)

    def close(self) -> None:
        self.sidecar.stop()
        self.end_application()


def until(look: Callable[[], bool]) -> None:
    """Look again until it is so; unlike `eventually`, no exception is passed over."""
    failed: list[BaseException] = []

    def guarded() -> bool:
        try:
            return look()
        except AssertionError as problem:
            failed.append(problem)
            return True

    eventually(guarded, within=40)
    assert not failed


@pytest.fixture
def pod(tmp_path: Path, openbao: OpenBao, database: Postgres) -> Iterator[Pod]:
    made = Pod(tmp_path, openbao, database)
    yield made
    made.close()


def test_a_restart_of_the_sidecar_mints_nothing(pod):
    pod.write(path=pod.database.role(pod.openbao, "steady", ttl="9s", max_ttl="1h"))  # long enough for a slow start on a busy machine
    pod.start()
    first = pod.credentials
    for kill in (True, False):
        pod.sidecar.stop(kill=kill)
        pod.sidecar.start()
        eventually(pod.sidecar.settled, within=20)
        pod.live_through(renewals=1)
    assert pod.credentials == first
    assert pod.database.minted() == {first["username"]}
    assert pod.issues() == 1
    assert sum(each.path == "auth/approle/login" for each in pod.openbao.audit(since=pod.began)) == 1


def test_once_and_the_run_after_it_have_one_set(pod):
    pod.write(path=pod.database.role(pod.openbao, "steady", ttl="9s", max_ttl="1h"))
    done = reloader("once", pod.configuration)
    assert done.returncode == 0, done.stderr
    published = json.loads((pod.live / "one.conf").read_text())
    pod.start()
    pod.live_through(renewals=1)
    assert pod.credentials == published
    assert pod.issues() == 1


def test_without_a_state_every_run_has_a_set_of_its_own(pod):
    pod.write(state="")
    pod.start()
    first = pod.credentials
    pod.sidecar.stop()
    pod.sidecar.start()
    eventually(lambda: pod.credentials != first and pod.works(), within=20)
    assert pod.issues() == 2


def test_the_end_of_the_token_is_never_felt_by_the_application(pod):
    """Tokens that live eight seconds: each is followed by a new login and new users, confirmed before the old ones end."""
    pod.allow(token_ttl="8s", token_max_ttl="8s")
    pod.write()
    pod.start()
    users: set[str] = set()

    def look() -> bool:
        assert pod.works()
        users.add(pod.credentials["username"])
        return len(users) == 4

    until(look)
    logins = sum(each.path == "auth/approle/login" for each in pod.openbao.audit(since=pod.began))
    assert pod.issues() <= logins + 1


def test_a_changed_configuration_keeps_the_old_user_until_the_new_one_is_in_use(pod):
    pod.start()
    old = pod.credentials
    pod.write(path=pod.database.role(pod.openbao, "other", ttl="3s", max_ttl="1h"), check="false")
    eventually(lambda: pod.issues() == 2, within=20)
    pod.live_through(renewals=6)
    assert pod.credentials == old
    pod.write(check="true")
    eventually(lambda: pod.credentials != old and pod.works(), within=20)
    eventually(lambda: old["username"] not in pod.database.minted(), within=20)
    assert pod.works()


def test_what_the_application_uses_is_not_revoked_by_a_restart(pod):
    pod.write(revoke="true", path=pod.database.role(pod.openbao, "slow", ttl="1h", max_ttl="2h"))
    pod.start()
    first = pod.credentials
    pod.sidecar.stop()
    assert pod.works()
    pod.sidecar.start()
    eventually(pod.sidecar.settled, within=20)
    assert pod.credentials == first
    assert reloader("once", pod.configuration).returncode == 3  # the volume is the sidecar's


def test_once_revokes_nothing(pod):
    pod.write(revoke="true", path=pod.database.role(pod.openbao, "slow", ttl="1h", max_ttl="2h"))
    assert reloader("once", pod.configuration).returncode == 0
    assert json.loads((pod.live / "one.conf").read_text())["username"] in pod.database.minted()


def test_what_nobody_uses_any_more_is_revoked_at_the_end(pod):
    pod.write(revoke="true", path=pod.database.role(pod.openbao, "slow", ttl="1h", max_ttl="2h"))
    pod.start()
    user = pod.credentials["username"]
    pod.end_application()
    pod.sidecar.stop()
    assert "leases revoked" in pod.sidecar.log()
    eventually(lambda: user not in pod.database.minted())


def test_a_set_whose_lease_was_renewed_can_still_be_put_back(pod):
    pod.start()
    first = pod.credentials
    pod.live_through(renewals=3)  # longer than its first term
    pod.write(path=pod.database.role(pod.openbao, "other", ttl="1h", max_ttl="2h"))
    eventually(lambda: pod.credentials != first, within=20)
    eventually(pod.sidecar.settled)
    record = json.loads((pod.live / "..reloader" / "record.json").read_text())
    ends = {number: known["expires"] - known["wall"] for number, known in record["generations"].items()}
    assert ends["1"] > 3 + 1


PKI = """
name: {name}
vault: {{address: '{address}', auth: {{method: approle, role_id: {role_id}, secret_id_file: {secret_id}}}}}
sources:
  tls: {{kind: vault, path: pki/issue/any, write: {{common_name: web.test, ttl: {ttl}}}}}
volume:
  path: {live}
  files:
    tls.crt: {{content: '{{{{ tls | fullchain }}}}'}}
    tls.key: {{content: '{{{{ tls.private_key }}}}'}}
    ca.pem: {{content: '{{{{ tls.ca_chain | join("\\n") }}}}'}}
  check: {{builtin: [keypair]}}
target: {{kind: none}}
timing: {{min_interval: 0s}}
state: {{path: {state}}}
"""


def serials(openbao: OpenBao) -> int:
    """Return how many certificates were issued, the authority's own left out."""
    return len(openbao.client().list("pki/certs")["data"]["keys"]) - 1


@pytest.fixture
def pair(pod: Pod) -> Callable[[str], tuple[Sidecar, list[Path]]]:
    def make(ttl: str) -> tuple[Sidecar, list[Path]]:
        pod.openbao.pki("pki", "tests")
        files, volumes = [], [pod.folder / name for name in ("a", "b")]
        for volume in volumes:
            known = {"address": pod.openbao.address, "state": pod.folder / "state", "ttl": ttl, "live": volume, "name": volume.name}
            text = PKI.format(**known, role_id=pod.settings["role_id"], secret_id=pod.settings["secret_id"])
            files.append(pod.folder / f"{volume.name}.yaml")
            files[-1].write_text(text)
        pod.sidecar = Sidecar(pod.folder / "sidecar", *files)
        return pod.sidecar, volumes

    return make


def texts(volumes: list[Path]) -> list[dict[str, str]]:
    return [{name: (volume / "..data" / name).read_text() for name in ("tls.crt", "tls.key", "ca.pem")} for volume in volumes]


def test_one_certificate_feeds_every_file_of_two_pipelines_and_outlives_a_restart(pod, pair):
    sidecar, volumes = pair("1h")
    sidecar.start()
    eventually(lambda: all(sidecar.settled(name) for name in ("a", "b")), within=20)
    first, second = texts(volumes)
    assert first == second
    sidecar.stop(kill=True)
    sidecar.start()
    eventually(lambda: all(sidecar.settled(name) for name in ("a", "b")), within=20)
    assert texts(volumes) == [first, first]
    assert serials(pod.openbao) == 1


def test_a_certificate_is_renewed_by_what_is_left_of_its_life_for_both_at_once(pod, pair):
    sidecar, volumes = pair("6s")
    sidecar.start()
    seen: set[str] = set()

    def look() -> bool:
        first, second = texts(volumes)
        seen.update({first["tls.crt"], second["tls.crt"]})
        return len(seen) == 3

    eventually(look, within=40)
    assert serials(pod.openbao) == 3
    assert not any(sidecar.metric("reloader_refusals_total", stage=stage) for stage in ("render", "check", "verify"))
