"""The matrix of the agent's `exit_on_retry_failure` (OpenBao's `agent_test.go`) as fail-open and fail-closed: nine rows, a real OpenBao.

Their `true` is our `closed`, their `false` our `open`, and unset is `open` with both. Their way out is to leave, ours is to say so: not
ready, or degraded, with the reason, and to go on trying. A field that a secret lacks is an error in every row, never a file without it.
"""

import pytest

from tests.waiting import eventually

pytestmark = pytest.mark.servers

OPEN, CLOSED, UNSET = "open", "closed", None
SECRETS = {
    "ok": ("there", "{{ db.password }}"),
    "no secret": ("nowhere", "{{ db.password }}"),
    "no field": ("there", "{{ db.passwort }}"),
}
REASONS = {"no secret": "secret/data/nowhere: no such path", "no field": "passwort"}
MATRIX = [(mode, secret) for mode in (CLOSED, OPEN, UNSET) for secret in SECRETS]


@pytest.fixture
def made(app, vault, openbao):
    """Makes the application of a row."""
    openbao.put_kv2("secret", "there", {"password": "hunter2"})

    def make(mode: str | None, secret: str, grace: str):
        path, content = SECRETS[secret]
        failure = {"startup_grace": grace} | ({"mode": mode} if mode else {})
        return app(
            vault={"address": vault.address, "auth": {"token": openbao.root_token}},
            sources={"db": {"kind": "vault", "path": f"secret/{path}", "poll": "200ms"}},
            files={"app.conf": content, "other.conf": "untouched by what fails"},
            failure=failure,
        )

    return make


@pytest.mark.parametrize(("mode", "secret"), MATRIX, ids=lambda value: str(value or "unset").replace(" ", "_"))
def test_matrix(made, mode: str | None, secret: str):
    """A good secret is published; without it, closed is closed, open is ready but degraded; no file, no exit."""
    app = made(mode, secret, grace="500ms").start()
    if secret == "ok":
        app.shows("hunter2")
        eventually(lambda: app.sidecar.ready() and not app.sidecar.pipeline()["degraded"], what="readiness")
        return

    eventually(lambda: REASONS[secret] in app.reasons(), what="the reason")
    expected = (False, True) if mode == CLOSED else (True, False)
    eventually(lambda: (app.sidecar.ready(), app.sidecar.pipeline()["closed"]) == expected, what="the end of the grace")
    assert app.sidecar.pipeline()["degraded"]
    assert app.sidecar.get("/startupz").ok == (mode != CLOSED)
    assert app.sidecar.running
    assert app.published() is None
    assert app.published("other.conf") is None


@pytest.mark.parametrize(("mode", "secret"), [(OPEN, "no secret"), (CLOSED, "no field")])
def test_within_the_grace_nobody_is_ready(made, mode: str, secret: str):
    app = made(mode, secret, grace="10m").start()
    eventually(lambda: REASONS[secret] in app.reasons(), what="the reason")

    assert not app.sidecar.ready()
    assert app.sidecar.get("/startupz").status_code == 503
    assert not app.sidecar.pipeline()["closed"]


@pytest.mark.parametrize(
    ("mode", "secret", "mend"), [(CLOSED, "no secret", ("nowhere", "password")), (OPEN, "no field", ("there", "passwort"))]
)
def test_what_was_missing_heals_by_itself(made, openbao, mode: str, secret: str, mend: tuple[str, str]):
    """Nobody restarts anything."""
    app = made(mode, secret, grace="100ms").start()
    eventually(lambda: REASONS[secret] in app.reasons(), what="the reason")
    path, field = mend
    openbao.put_kv2("secret", path, {field: "found"})

    app.shows("found")
    eventually(lambda: app.sidecar.ready() and not app.sidecar.pipeline()["degraded"], what="readiness")


@pytest.mark.parametrize(("mode", "secret"), [(CLOSED, "no secret"), (OPEN, "no field")])
def test_once_leaves_with_1_and_no_file(made, mode: str, secret: str):
    app = made(mode, secret, grace="1s")
    done = app.once()
    assert done.returncode == 1
    assert REASONS[secret] in done.stderr
    assert app.published() is None
