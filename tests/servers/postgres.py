"""A real PostgreSQL for OpenBao's database engine: who has a user there is what was minted."""

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from tests.servers import UnavailableError
from tests.servers.daemon import Daemon
from tests.servers.debian import unpacked
from tests.servers.openbao import OpenBao
from tests.servers.ports import free_port

_INSTALLED = Path("/usr/lib/postgresql")
_NOBODY = "nobody"
_CREATE = (
    """CREATE ROLE "{{name}}" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}';""",
    """GRANT app TO "{{name}}";""",
)


class Postgres:
    """One server with its data in a folder of its own, which another user than root can reach; it refuses to run as root."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        self._folder.chmod(0o755)
        self._programs = _programs(self._folder)
        libraries = os.pathsep.join(str(folder) for folder in self._programs.parents[3].glob("lib/*-linux-gnu*"))
        self._env = {"LD_LIBRARY_PATH": libraries, "LC_ALL": "C"} if self._folder in self._programs.parents else {"LC_ALL": "C"}
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self._password_file = self._folder / "password"
        self._daemon = Daemon(self._folder / "postgres.log")

    def start(self) -> None:
        """Start the server on its port, with an empty database and its owner `postgres` (the first time)."""
        data = self._folder / "data"
        if not data.exists():
            data.mkdir(0o700)
            self._password_file.write_text("postgres\n")
            for path in (data, self._password_file):
                _give(path)
            arguments = [f"--pgdata={data}", "--username=postgres", "--auth=scram-sha-256", f"--pwfile={self._password_file}", "--no-sync"]
            subprocess.run([*_unprivileged(), self._program("initdb"), *arguments], check=True, capture_output=True, **self._how)
        options = {"listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": "", "fsync": "off"}
        command = [self._program("postgres"), "-D", data, *(word for name, value in options.items() for word in ("-c", f"{name}={value}"))]
        self._daemon.start([*_unprivileged(), *command], ready=lambda: self.ask("SELECT 1"), env=self._env, cwd=self._folder)
        if not self.ask("SELECT 1 FROM pg_roles WHERE rolname = 'app'"):
            self.ask("CREATE ROLE app NOLOGIN")

    def stop(self, *, kill: bool = False) -> None:
        """End the server and remove its data."""
        self._daemon.stop(kill=kill)
        shutil.rmtree(self._folder, ignore_errors=True)

    def ask(self, sql: str, *, user: str = "postgres", password: str = "postgres") -> list[str]:
        """Return the lines of the answer; subprocess.CalledProcessError when the server says no."""
        where = ["--host=127.0.0.1", f"--port={self.port}", f"--username={user}", "--dbname=postgres"]
        command = [self._program("psql"), *where, "--no-password", "--no-psqlrc", "--tuples-only", "--no-align", "--command", sql]
        env = {**os.environ, **self._env, "PGPASSWORD": password, "PGCONNECT_TIMEOUT": "5"}
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=env, timeout=20)
        return done.stdout.split()

    def lets_in(self, user: str, password: str) -> bool:
        """Return whether these credentials work."""
        try:
            return self.ask("SELECT current_user", user=user, password=password) == [user]
        except subprocess.CalledProcessError:
            return False

    def minted(self) -> set[str]:
        """Return the names of all users that the database engine made and did not take away yet."""
        return set(self.ask("SELECT rolname FROM pg_roles WHERE rolname LIKE 'v-%'"))

    def forget(self, user: str) -> None:
        """Drop a user behind the back of whoever made it."""
        self.ask(f'DROP ROLE "{user}"')

    def clean(self) -> None:
        """Drop the users whose end earlier tests did not wait for."""
        for user in self.minted():
            self.forget(user)

    def connect(self, openbao: OpenBao, mount: str = "database") -> None:
        """Mount the database engine, with this server as its connection `postgres`."""
        openbao.enable("database", mount)
        openbao.write(
            f"{mount}/config/postgres",
            plugin_name="postgresql-database-plugin",
            allowed_roles="*",
            connection_url=f"postgresql://{{{{username}}}}:{{{{password}}}}@{self.address}/postgres?sslmode=disable",
            username="postgres",
            password="postgres",
        )

    def role(self, openbao: OpenBao, name: str, *, ttl: str, max_ttl: str, mount: str = "database") -> str:
        """Make a role whose users live for `ttl`, renewed for `max_ttl`; return the path that issues them."""
        openbao.write(f"{mount}/roles/{name}", db_name="postgres", creation_statements=_CREATE, default_ttl=ttl, max_ttl=max_ttl)
        return f"{mount}/creds/{name}"

    def static_role(self, openbao: OpenBao, name: str, *, period: str, mount: str = "database") -> str:
        """Make a user whose password is rotated every `period` (5 s at least); return the path that tells it."""
        self.ask(f'CREATE ROLE "{name}" LOGIN')
        statements = ["""ALTER USER "{{name}}" WITH PASSWORD '{{password}}';"""]
        openbao.write(
            f"{mount}/static-roles/{name}", db_name="postgres", username=name, rotation_period=period, rotation_statements=statements
        )
        return f"{mount}/static-creds/{name}"

    def _program(self, name: str) -> Path:
        return self._programs / name

    @property
    def _how(self) -> dict[str, Any]:
        return {"env": {**os.environ, **self._env}, "cwd": self._folder, "timeout": 60}


def _programs(folder: Path) -> Path:
    """Return the folder of the server's programs: this machine's, else Debian's, copied to where a user without rights can read them."""
    installed = sorted(_INSTALLED.glob("*/bin/initdb"))
    if installed:
        return installed[-1].parent
    root = folder / "debian"
    shutil.copytree(unpacked("postgresql"), root, symlinks=True)
    found = sorted(root.glob("usr/lib/postgresql/*/bin/initdb"))
    if not found:
        raise UnavailableError("Debian's package postgresql holds no initdb")
    return found[-1].parent


def _unprivileged() -> list[str]:
    if os.getuid() != 0:
        return []
    user = pwd.getpwnam(_NOBODY)
    # A change of users takes away the signal that is to come with the end of the tests: it is asked for again afterwards.
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "setpriv", "--pdeathsig=KILL"]


def _give(path: Path) -> None:
    if os.getuid() == 0:
        user = pwd.getpwnam(_NOBODY)
        os.chown(path, user.pw_uid, user.pw_gid)
