"""A real HAProxy with a master that reloads on SIGUSR2, reading the configuration that a test wrote or `reloader` rendered."""

from collections.abc import Sequence
from pathlib import Path

from tests.servers.daemon import Daemon
from tests.servers.debian import program


class Haproxy:
    """HAProxy in master-worker mode, its log below `folder` and its configuration in `conf`."""

    def __init__(self, folder: Path, conf: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._program = program("haproxy", "haproxy")
        self._conf = conf
        self.log = folder / "haproxy.log"
        self._daemon = Daemon(self.log, death_signal="TERM")  # a killed master leaves its workers behind

    @property
    def env(self) -> dict[str, str]:
        """What the program needs in its environment to find its libraries."""
        return self._program.env

    @property
    def pid(self) -> int:
        """The master's process id."""
        return self._daemon.pid

    @property
    def running(self) -> bool:
        """Whether the master is there."""
        return self._daemon.running

    def test_command(self, conf: str) -> list[str]:
        """Return the command that checks `conf` (a path, or `{staged}/haproxy.cfg`) without starting anything."""
        return [str(self._program.path), "-c", "-f", conf]

    def start(self, *, through: Sequence[str | Path] = ()) -> None:
        """Start the master, by a command that executes it where given, and return when it has a worker."""
        command: list[str | Path] = [*through, self._program.path, "-W", "-db", "-f", self._conf]
        self._daemon.start(command, env=self.env, ready=self._has_worker)

    def stop(self, *, kill: bool = False) -> None:
        """End the master and its workers, with SIGKILL if `kill`."""
        self._daemon.stop(kill=kill)

    def _has_worker(self) -> str:
        return Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
