#!/usr/bin/env python3
"""Load for the example: asks NGINX over and over, each time on a new connection, until it has served so many certificates.

Usage: load.py CERTIFICATES
"""

import http.client
import ssl
import sys
import threading
import time

CA_FILE = "/tmp/reloader-nginx-vault-tls/ca.pem"


class Load:
    """What all threads count together."""

    def __init__(self, wanted: int) -> None:
        self._wanted = wanted
        self._context = ssl.create_default_context(cafile=CA_FILE)  # refuses a certificate that has ended, or is not from there
        self._lock = threading.Lock()
        self.served: list[str] = []
        self.requests = self.failed = 0

    def run(self) -> None:
        """Ask until enough certificates were served."""
        while len(self.served) < self._wanted:
            time.sleep(0.02)
            try:
                self._count(self._ask())
            except (OSError, http.client.HTTPException) as error:
                self._count(None, error)

    def _ask(self) -> str:
        """Return the serial number of the certificate, which NGINX's configuration names too."""
        connection = http.client.HTTPSConnection("localhost", 8443, timeout=10, context=self._context)
        connection.connect()
        served = f"{int(connection.sock.getpeercert()['serialNumber'], 16):x}"
        connection.request("GET", "/")
        said = f"{int(connection.getresponse().read().decode().strip().replace(':', ''), 16):x}"
        connection.close()
        if served != said:
            raise http.client.HTTPException(f"certificate {served} with the configuration of {said}")
        return served

    def _count(self, serial: str | None, error: Exception | None = None) -> None:
        with self._lock:
            self.requests += 1
            if serial is None:
                self.failed += 1
                print(f"failed: {error!r}", flush=True)
            elif serial not in self.served:
                self.served.append(serial)
                print(f"certificate {serial}", flush=True)


def main() -> None:
    """Load from four threads, and tell how it went."""
    load = Load(int(sys.argv[1]))
    threads = [threading.Thread(target=load.run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"{len(load.served)} certificates in {load.requests} requests, {load.failed} failed")


if __name__ == "__main__":
    main()
