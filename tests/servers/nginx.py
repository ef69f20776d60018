"""A real NGINX in the foreground, reading the configuration that a test wrote or `reloader` rendered."""

import os
from collections.abc import Sequence
from pathlib import Path

from tests.servers.daemon import Daemon
from tests.servers.debian import program

# For the http block: NGINX's own defaults lie below /var, where a user may not write. Relative names are below the prefix.
HTTP_DEFAULTS = "access_log off;\n" + "".join(
    f"{kind}_temp_path {kind}_temp;\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
)


class Nginx:
    """NGINX with its pid, logs and temporary files below `prefix` and its configuration in `conf`.

    `conf` must not hold `daemon`, `pid`, `user` or a main-level `error_log`: those are given on the command line. Its http block needs
    `HTTP_DEFAULTS`.
    """

    def __init__(self, prefix: Path, conf: Path) -> None:
        prefix.mkdir(parents=True, exist_ok=True)
        self.program = program("nginx", "nginx-light")
        self._prefix = prefix
        self._conf = conf
        self.error_log = prefix / "error.log"
        self._daemon = Daemon(prefix / "nginx.out", death_signal="TERM")  # a killed master leaves its workers behind

    @property
    def env(self) -> dict[str, str]:
        """What the program needs in its environment to find its libraries."""
        return self.program.env

    @property
    def pid(self) -> int:
        """The master's process id."""
        return self._daemon.pid

    @property
    def running(self) -> bool:
        """Whether the master is there."""
        return self._daemon.running

    def test_command(self, conf: str) -> list[str]:
        """Return the command that checks `conf` (a path, or `{staged}/nginx.conf`) without starting anything."""
        return [*self._command(conf, pid_file="test.pid", directives=""), "-t"]

    def start(self, *, through: Sequence[str | Path] = ()) -> None:
        """Start the master, by a command that executes it where given, and return when it has written its pid file: then it serves."""
        pid_file = self._prefix / "nginx.pid"
        pid_file.unlink(missing_ok=True)
        command = self._command(str(self._conf), pid_file="nginx.pid", directives="daemon off;")
        self._daemon.start([*through, *command], env=self.env, cwd=self._prefix, ready=lambda: pid_file.exists() and pid_file.read_text())

    def stop(self, *, kill: bool = False) -> None:
        """End the master and its workers, with SIGKILL if `kill`."""
        self._daemon.stop(kill=kill)

    def _command(self, conf: str, *, pid_file: str, directives: str) -> list[str]:
        # As root the workers would become nobody, who cannot read a test's folder.
        user = "user root;" if os.getuid() == 0 else ""
        main = f"{directives} {user} pid {self._prefix / pid_file}; error_log {self.error_log} info;"
        return [str(self.program.path), "-p", f"{self._prefix}/", "-c", conf, "-e", str(self.error_log), "-g", main]
