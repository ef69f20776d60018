#!/usr/bin/env python3
"""An application that asks its database all the time, and takes new credentials on SIGHUP, between two queries.

Where the database is, PGHOST and PGPORT say. On SIGINT or SIGTERM it ends.
"""

import json
import os
import queue
import signal
import threading
import time
from pathlib import Path

import psycopg

WORK = Path("/tmp/reloader-secrets-rotation")
WORKERS = 4


class Worker(threading.Thread):
    """Asks the database with the credentials that the application has."""

    def __init__(self, app: "App") -> None:
        super().__init__(daemon=True)
        self._app = app
        self.user = ""
        self.queries = self.failed = 0

    def run(self) -> None:
        """Log in over and over, as an application does that has a pool of connections."""
        while True:
            try:
                self._ask(self._app.credentials)
            except psycopg.Error as error:
                self.failed += 1
                print(f"failed: {error}", flush=True)
                time.sleep(0.1)

    def _ask(self, credentials: dict[str, str]) -> None:
        with psycopg.connect(**credentials, dbname="postgres", client_encoding="UTF8", autocommit=True) as connection:
            for _ in range(50):
                if credentials is not self._app.credentials:
                    return  # the connection is closed between two queries, and the next one is made with the new credentials
                (self.user,) = connection.execute("SELECT current_user").fetchone()
                self.queries += 1
                time.sleep(0.01)


class App:
    """Holds the credentials, which are replaced as a whole."""

    def __init__(self) -> None:
        self._signals: queue.SimpleQueue[int] = queue.SimpleQueue()
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _frame: self._signals.put(number))
        self.credentials = self._read()
        self.workers = [Worker(self) for _ in range(WORKERS)]

    def run(self) -> None:
        """Work until it is told to end."""
        for worker in self.workers:
            worker.start()
        self._tell()
        while self._signals.get() == signal.SIGHUP:
            self.credentials = self._read()
            self._tell()

    def _read(self) -> dict[str, str]:
        return json.loads((WORK / "live/db.json").read_text())

    def _tell(self) -> None:
        """Say which user is in use, once no worker uses another one."""
        while any(worker.user != self.credentials["user"] for worker in self.workers):
            time.sleep(0.01)
        (WORK / "in-use").write_text(self.credentials["user"])
        queries, failed = (sum(getattr(worker, name) for worker in self.workers) for name in ("queries", "failed"))
        print(f"pid {os.getpid()} is {self.credentials['user']}: {queries} queries, {failed} failed", flush=True)


def main() -> None:
    """Take signals from now on, and only then say who is to get them."""
    app = App()
    (WORK / "app.pid").write_text(f"{os.getpid()}\n")
    app.run()


if __name__ == "__main__":
    main()
