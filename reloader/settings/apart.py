"""Loads the configuration in a process of its own, which ends with it.

What validates a configuration takes more memory than anything else here, is needed for a moment, and cannot be unloaded. So the sidecar has
that done by a child, which answers with the plan. Question and answer go through a socket, which nobody else can open: the environment is
part of the question, and the plan may hold tokens. The child is closed to its own user before it reads the question, and until then it has
nothing of ours: no credentials in its environment, and none on its command line.
"""

import os
import pickle
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from reloader.internal import told
from reloader.plan import Plan
from reloader.settings import find
from reloader.settings.mistakes import ConfigurationInvalid
from reloader.world.children import Children
from reloader.written import signal_name

LONGEST = 50.0
"""How many seconds the child has for its answer."""
REAPED_WITHIN = 1.0
"""How many seconds it has to end after that."""

Asked = tuple[Sequence[Path], Sequence[str], str | None, str | None, Mapping[str, str]]
"""What `settings.find` is given."""

PROGRAM = "/proc/self/exe"
"""The interpreter that runs this, also where its path leads through what we may not enter, or to a newer one by now."""
CODE = "from reloader import privacy; privacy.keep_private(); from reloader.settings import apart; apart.answer()"
"""What the child runs: first of all, it closes itself."""
_FOR_PYTHON = re.compile(r"PYTHON\w+|LD_\w+|LANG|LC_\w+")
"""The variables that an interpreter needs to be the same as this one."""


class Loading:
    """A child that loads a configuration, from its start to its answer."""

    def __init__(self, asked: Asked, children: Children) -> None:
        """Start it.

        Raises:
            ChildProcessError: it cannot be started, and why.

        """
        self._children = children
        try:
            self._socket, theirs = socket.socketpair()
            with theirs:
                self._child = self._started(theirs)
        except OSError as error:
            raise ChildProcessError(f"the configuration cannot be loaded: {error.strerror}") from None
        self._socket.settimeout(LONGEST)
        with suppress(OSError):  # it does not read the question: why, is seen when it is asked for its answer
            self._socket.sendall(pickle.dumps(asked))

    @property
    def pid(self) -> int:
        """Return the pid of the child."""
        return self._child.pid

    def plan(self, named: Callable[[frozenset[str]], None] = lambda _kinds: None) -> Plan:
        """Return the plan, once it is there; `named` is told the kinds of sources as soon as they are known, right or wrong.

        Raises:
            ConfigurationInvalid: there is none, and why.
            ChildProcessError: the child did not get that far.

        """
        try:
            with self._socket, self._socket.makefile("rb") as stream:
                while isinstance(found := pickle.load(stream), frozenset):  # noqa: S301 - from our own child
                    named(found)
        except TimeoutError:
            self._child.kill()
            raise ChildProcessError(f"the configuration cannot be loaded: it takes longer than {LONGEST:g} s") from None
        except (EOFError, ConnectionResetError, pickle.UnpicklingError):
            raise ChildProcessError(f"the configuration cannot be loaded: {self._ended()}") from None
        finally:
            self._reap()
        if isinstance(found, str):
            raise ChildProcessError(found)
        if not isinstance(found, Plan):
            raise ConfigurationInvalid(found)
        return found

    def _started(self, theirs: socket.socket) -> subprocess.Popen[bytes]:
        environment = {name: text for name, text in os.environ.items() if _FOR_PYTHON.fullmatch(name)}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        with self._children.forking() as ours:
            child = subprocess.Popen(  # noqa: S603 - ourselves
                [sys.executable, "-P", "-c", CODE],
                executable=PROGRAM,
                env=environment,
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                process_group=0,  # what is typed at a terminal is for this one
            )
            ours.add(child.pid)
        return child

    def _ended(self) -> str:
        status = self._child.wait(LONGEST)
        if status < 0:
            return f"the process that does it was ended by {signal_name(-status)}; is there memory for it, some 40 MiB for a moment?"
        return f"the process that does it ended with status {status}"

    def _reap(self) -> None:
        with suppress(subprocess.TimeoutExpired):  # a disk that hangs may hold it up for longer
            self._child.wait(REAPED_WITHIN)
        with self._children.forking() as ours:
            ours.discard(self._child.pid)


def answer() -> None:
    """Be the child: read the question from the socket that is the standard input, and answer."""
    with socket.socket(fileno=0) as asker:
        with asker.makefile("rb") as stream:
            asked: Asked = pickle.load(stream)  # noqa: S301 - from our own parent
        *_, environ = asked
        os.environ.clear()
        os.environ.update(environ)
        with suppress(BrokenPipeError):  # nobody waits for it any more
            asker.sendall(_answered(asked, asker))
    os._exit(0)  # what an interpreter tidies up takes longer than the end of the process


def _answered(asked: Asked, asker: socket.socket) -> bytes:
    """Return the plan, or the mistakes, or what is told of a mistake of ours."""
    try:
        plan, _ = find(*asked, named=lambda kinds: asker.sendall(pickle.dumps(kinds)))
        return pickle.dumps(plan)
    except ConfigurationInvalid as invalid:
        return pickle.dumps(invalid.mistakes)
    except Exception as error:  # noqa: BLE001 - its text may quote a value
        return pickle.dumps(told(error))
