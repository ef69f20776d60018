"""Steady HTTPS load in a process of its own: prints a JSON summary when it is told to stop by the end of its input.

A request has failed when it fails on a fresh connection, or again after one repeat on a new one: NGINX closes idle connections of its old
workers at a reload, as it must.
"""

import http.client
import json
import ssl
import sys
import threading
import time

RATE = 25.0
"""Requests a second of each thread."""


class Load:
    """One thread's requests, half of them on a connection that is kept."""

    def __init__(self, port: int, ca_file: str, path: str) -> None:
        self.port, self.path = port, path
        self.context = ssl.create_default_context(cafile=ca_file)
        self.requests = self.repeated = 0
        self.failures: list[str] = []
        self.mismatches: list[str] = []
        self.kept: http.client.HTTPSConnection | None = None

    def run(self, stop: threading.Event) -> None:
        while not stop.wait(1 / RATE):
            self.requests += 1
            keep = self.requests % 2 == 0
            try:
                self.request(keep=keep)
            except (OSError, http.client.HTTPException) as error:
                self.drop()
                if keep:
                    self.repeat()
                else:
                    self.failures.append(f"{time.time():.3f} fresh: {error!r}")

    def repeat(self) -> None:
        self.repeated += 1
        try:
            self.request(keep=False)
        except (OSError, http.client.HTTPException) as error:
            self.failures.append(f"{time.time():.3f} repeated: {error!r}")

    def request(self, *, keep: bool) -> None:
        connection = (self.kept if keep else None) or http.client.HTTPSConnection("localhost", self.port, timeout=10, context=self.context)
        connection.request("GET", self.path, headers={} if keep else {"Connection": "close"})
        # The certificate of this very connection, and the set that its configuration came from, must be of one generation.
        served = connection.sock.getpeercert()["serialNumber"] if connection.sock else None
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise http.client.HTTPException(f"status {answer.status}")
        expected = (answer.getheader("X-Serial") or "").replace(":", "").upper().lstrip("0")
        if served is not None and served.lstrip("0") != expected:
            self.mismatches.append(f"certificate {served}, configuration {expected}")
        if keep:
            self.kept = connection
        else:
            connection.close()

    def drop(self) -> None:
        if self.kept is not None:
            self.kept.close()
            self.kept = None


def main() -> None:
    port, ca_file, path = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    stop = threading.Event()
    loads = [Load(port, ca_file, path) for _ in range(2)]
    threads = [threading.Thread(target=load.run, args=(stop,)) for load in loads]
    for thread in threads:
        thread.start()
    print("loading", flush=True)
    sys.stdin.read()
    stop.set()
    for thread in threads:
        thread.join()
    summary = {
        name: sum((getattr(load, name) for load in loads), start=type(getattr(loads[0], name))()) for name in ("requests", "repeated")
    }
    lists = {name: [line for load in loads for line in getattr(load, name)] for name in ("failures", "mismatches")}
    print(json.dumps({**summary, **lists}), flush=True)


if __name__ == "__main__":
    main()
