"""What other processes learn of the sidecar and of what it runs: the kernel's word, asked by real processes."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from reloader.world.children import Children
from reloader.world.service import Service
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
"""A user without a capability, as a container of a Pod under the restricted standard."""
CANARY = "canary-environment-7b01ce"
WAITING = """
import sys
from reloader import privacy
if "private" in sys.argv:
    privacy.keep_private()
token = "canary-heap-" + "93ad02"
print(token[:0] + str(privacy.is_private()), flush=True)
sys.stdin.read()
"""
LOOKING = """
import ctypes, json, os, re, sys
pid, seen = sys.argv[1], {}
def attempt(name, look):
    try:
        seen[name] = bool(look())
    except OSError:
        seen[name] = False
def memory():
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as mem:
        for line in maps:
            start, end, rights = re.match("(\\\\w+)-(\\\\w+) (\\\\S+)", line).groups()
            if "rw" in rights and "[v" not in line:
                mem.seek(int(start, 16))
                if ("canary-heap-" + "93ad02").encode() in mem.read(int(end, 16) - int(start, 16)):
                    return True
libc = ctypes.CDLL(None, use_errno=True)
def attach():
    return libc.ptrace(0x4206, int(pid), 0, 0) == 0  # PTRACE_SEIZE
def descriptor():
    return libc.syscall(438, os.pidfd_open(int(pid)), 0, 0) >= 0  # pidfd_getfd
attempt("environ", lambda: b"canary-environment-7b01ce" in open(f"/proc/{pid}/environ", "rb").read())
attempt("mem", memory)
attempt("maps", lambda: open(f"/proc/{pid}/maps").read())
attempt("fd", lambda: os.listdir(f"/proc/{pid}/fd"))
attempt("root", lambda: os.listdir(f"/proc/{pid}/root"))
attempt("pidfd_getfd", descriptor)
attempt("ptrace", attach)
print(json.dumps(seen))
"""

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="takes root to become another user")


@pytest.fixture
def waiting() -> Iterator[object]:
    """Starts processes of a user without capabilities that hold a secret and wait."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, cwd: Path | None = None) -> subprocess.Popen[str]:
        command = ["prlimit", "--core=unlimited:unlimited", *NOBODY, sys.executable, "-c", WAITING, *arguments]
        env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "VAULT_TOKEN": CANARY}
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env, cwd=cwd)
        started.append(process)
        assert process.stdout.readline().strip() == str("private" in arguments)
        return process

    yield start
    for each in started:
        each.kill()
        each.communicate()


def seen_by_another(pid: int) -> Mapping[str, bool]:
    """Return what a second process of the same user gets to see."""
    import json

    done = subprocess.run([*NOBODY, sys.executable, "-c", LOOKING, str(pid)], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


@needs_root
def test_a_process_of_the_same_user_sees_nothing_of_a_private_one(waiting):
    """Neither its environment nor its memory, descriptors or files; all of that of one that is not."""
    assert set(seen_by_another(waiting().pid).values()) == {True}
    assert set(seen_by_another(waiting("private").pid).values()) == {False}


@needs_root
@pytest.mark.skipif(Path("/proc/sys/kernel/core_pattern").read_text().strip() != "core", reason="cores go elsewhere here")
def test_a_private_process_leaves_no_core_whatever_the_limit(waiting, tmp_path):
    """One that is not leaves one, with all that it holds."""
    cores = {}
    for kind in ("open", "private"):
        folder = tmp_path / kind
        folder.mkdir()
        folder.chmod(0o777)
        process = waiting(kind, cwd=folder)
        process.send_signal(signal.SIGABRT)
        assert process.wait(30) == -signal.SIGABRT
        cores[kind] = list(folder.iterdir())
    assert cores["open"] != []
    assert cores["private"] == []


def test_where_the_kernel_keeps_nothing_private_it_is_said():
    """The sidecar runs on; asked of a new process, since the kernel makes one private by itself that ever changed its user."""
    done = subprocess.run(
        [sys.executable, "-c", "from reloader import privacy; privacy.tell()"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stderr.splitlines() == ["memory is open to other processes of this user"]


CREDENTIALS = {
    "VAULT_TOKEN": "canary-1",
    "CONSUL_HTTP_TOKEN": "canary-2",
    "CONSUL_HTTP_AUTH": "canary-3",
    "RELOADER_VAULT__AUTH__TOKEN": "canary-4",
    "RELOADER_TARGET__HEADERS__AUTHORIZATION": "canary-5",
}
FOR_FILES, EXPORTER, OWN = {"PASSWORD": "canary-6"}, {"OTEL_EXPORTER_OTLP_TRACES_HEADERS": "canary-7"}, {"JAVA_HOME": "/opt/java"}


@pytest.fixture
def environ(monkeypatch) -> None:
    for name, value in {**CREDENTIALS, **FOR_FILES, **EXPORTER, **OWN}.items():
        monkeypatch.setenv(name, value)


def test_a_command_gets_no_secret_by_its_environment(environ):
    """What it needs to work it keeps, also where that is a source."""
    children = Children()
    children.withhold(["PASSWORD", "PATH"])

    given = children.run(["sh", "-c", "tr '\\0' '\\n' </proc/$$/environ"], timeout=30).output

    assert "canary" not in given
    assert {"JAVA_HOME=/opt/java", f"PATH={os.environ['PATH']}"} <= set(given.splitlines())


def test_a_program_that_runs_for_long_keeps_what_is_its_own(environ):
    """All but our credentials: what the operator gave the container is mostly for it."""
    children, service = Children(), Service()
    children.withhold(["PASSWORD"])
    service.start(["sleep", "60"], children)
    try:
        pid = eventually(lambda: service.pid)
        eventually(lambda: Path(f"/proc/{pid}/comm").read_text().strip() == "sleep")
        given = dict(line.split("=", 1) for line in Path(f"/proc/{pid}/environ").read_text().rstrip("\0").split("\0"))
    finally:
        service.stop()
        service.kill()

    assert given == {name: value for name, value in os.environ.items() if name not in CREDENTIALS}
    assert {**FOR_FILES, **EXPORTER, **OWN}.items() <= given.items()


def test_a_command_gets_no_descriptor_but_its_own(tmp_path):
    """A lock, a socket or a file that the sidecar has open, inheritable or not, stays with it."""
    descriptor = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(descriptor, True)
    try:
        listed = Children().run(["sh", "-c", "ls /proc/$$/fd"], timeout=30).output.split()
    finally:
        os.close(descriptor)
    assert set(listed) <= {"0", "1", "2"}


@needs_root
def test_what_is_executed_is_as_open_as_any_other(tmp_path):
    """A program that the sidecar runs can be debugged by its own user, and may leave cores."""
    script = (
        "import os, sys; from reloader import privacy; privacy.keep_private()\n"
        "from reloader.world.children import Children\n"
        "print(Children().run(['sh', '-c', 'head -c1 /proc/$$/environ; ulimit -c'], timeout=30).output)"
    )
    command = ["prlimit", "--core=4096:unlimited", *NOBODY, sys.executable, "-c", script]
    done = subprocess.run(
        command, env={"A": "b", "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() in ("A8", "P8"), "4096 bytes are 8 blocks"


UNCAUGHT = """
import sys, threading
from reloader import uncaught
uncaught.tell_without_values()
class Odd:
    def __del__(self):
        raise ValueError("canary-unraisable")
Odd()
def fail():
    raise KeyError("canary-uncaught")
thread = threading.Thread(target=fail)
thread.start()
thread.join()
fail()
"""


def test_an_error_that_nothing_catches_tells_no_value():
    """In no thread, and where none can be raised; the exit status says that something went wrong."""
    done = subprocess.run([sys.executable, "-c", UNCAUGHT], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    told = ["internal error: ValueError", "internal error: KeyError", "internal error: KeyError"]
    assert done.stderr.splitlines() == [f"reloader: {each}" for each in told]


def test_an_error_that_nothing_catches_is_told_where_nobody_logs():
    """As in the doctor, which tells in findings what is logged: else it would end with nothing but a status."""
    silent = 'import logging; logging.getLogger("reloader").addHandler(logging.NullHandler())\n' + UNCAUGHT
    done = subprocess.run([sys.executable, "-c", silent], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == "reloader: internal error: KeyError"


def test_the_command_is_private_before_anything_else_of_it_is_loaded():
    """Until then all is open, and what is opened then stays so."""
    script = (
        "import sys; from reloader import privacy, __main__\n"
        "privacy.keep_private = lambda: sys.exit(f'{sorted(name for name in sys.modules if name.startswith(\"reloader\"))}')\n"
        "__main__.main()"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "['reloader', 'reloader.__main__', 'reloader.privacy']"
