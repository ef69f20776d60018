"""A real browser without a window: Debian's headless Chromium, asked by its own protocol over a pipe."""

import base64
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from tests.servers.debian import unpacked
from tests.waiting import eventually

_PACKAGE = "chromium-headless-shell"
_FLAGS = (
    "--remote-debugging-pipe",
    "--no-sandbox",  # it opens nothing but our own page, and a container has no user namespaces
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
)


class Browser:
    """A browser with one tab; what it needs of Debian is unpacked into the cache, fonts too where this machine has none."""

    def __init__(self) -> None:
        self._home = tempfile.TemporaryDirectory(prefix="browser-")
        self._root = unpacked(_PACKAGE)
        libraries = {str(each.parent) for each in self._root.glob("usr/lib/*-linux-gnu*/**/*.so*")}
        self._env = {"HOME": self._home.name, "LD_LIBRARY_PATH": os.pathsep.join(libraries), **self._fonts()}
        self._process: subprocess.Popen[bytes] | None = None
        self._asked = 0
        self._events: list[dict[str, Any]] = []

    def start(self) -> None:
        """Start it; its first tab is blank."""
        there, self._to = os.pipe()
        self._from, back = os.pipe()
        program = self._root / "usr/lib/chromium" / _PACKAGE
        command = ["setpriv", "--pdeathsig", "KILL", "bash", "-c", f'exec "$0" "$@" 3<&{there} 4>&{back}', program]
        command += [*_FLAGS, f"--user-data-dir={self._home.name}", "about:blank"]
        self._process = subprocess.Popen(
            list(map(str, command)),
            env={**os.environ, **self._env},
            pass_fds=(there, back),
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        os.close(there)
        os.close(back)
        self._answers = os.fdopen(self._from, "rb")
        self._session = ""
        target = next(each for each in self._ask("Target.getTargets")["targetInfos"] if each["type"] == "page")
        self._session = self._ask("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self._ask(f"{domain}.enable")

    def stop(self, *, kill: bool = False) -> None:
        """End it and all that it started."""
        if self._process is not None:
            (self._process.kill if kill else self._process.terminate)()
            self._process.wait()
            os.close(self._to)
            self._answers.close()
        eventually(self._removed, what="the browser's folder, which its children leave last")

    def show(self, address: str, *, width: int, height: int, dark: bool = False) -> int:
        """Open an address in a window of that size, a phone's if it is narrow; return the status of the answer once it is drawn."""
        phone = width < 500
        self._ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=2 if phone else 1, mobile=phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._ask("Emulation.setEmulatedMedia", features=[scheme])
        self._events.clear()
        self._ask("Page.navigate", url=address)
        while not any(each["method"] == "Page.loadEventFired" for each in self._events):
            self._next()
        received = [each["params"] for each in self._events if each["method"] == "Network.responseReceived"]
        return next(each["response"]["status"] for each in received if each["type"] == "Document")

    def complaints(self) -> list[str]:
        """Return what its console would say since the page was opened: what the policy of the page forbade, what could not be loaded."""
        return [each["params"]["entry"]["text"] for each in self._events if each["method"] == "Log.entryAdded"]

    def look(self, script: str) -> Any:
        """Return what an expression gives in the page; it may do what the page's own policy forbids."""
        answer = self._ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def photograph(self, path: Path) -> None:
        """Write a picture of the whole page, also of what is below the window."""
        picture = self._ask("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(picture))

    def heard(self) -> list[str]:
        """Return the names of the page's parts as somebody hears them who does not see it, each with its role."""
        nodes = [each for each in self._ask("Accessibility.getFullAXTree")["nodes"] if not each["ignored"]]
        named = [(each["role"]["value"], each.get("name", {}).get("value", "")) for each in nodes]
        return [f"{role}: {' '.join(name.split())}" for role, name in named if name]

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._asked += 1
        message = {"id": self._asked, "method": method, "params": parameters, **({"sessionId": self._session} if self._session else {})}
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._asked:
                assert "error" not in answer, answer["error"]
                return dict(answer["result"])

    def _next(self) -> dict[str, Any]:
        """Return the next thing that the browser says, and keep it if it is an event."""
        said = bytearray()
        while (byte := self._answers.read(1)) != b"\0":
            assert byte, f"the browser ended with status {self._process.wait() if self._process else None}"
            said += byte
        answer = dict(json.loads(said))
        if "method" in answer:
            self._events.append(answer)
        return answer

    def _fonts(self) -> dict[str, str]:
        """Return the environment in which fonts are found: those of Debian's package where this machine has none."""
        if any(Path("/usr/share/fonts").glob("**/*.ttf")):
            return {}
        fonts = unpacked("fonts-dejavu-core")
        config = Path(self._home.name) / "fonts.conf"
        config.write_text(f"<fontconfig><dir>{fonts}/usr/share/fonts</dir><cachedir>{self._home.name}/fonts</cachedir></fontconfig>")
        return {"FONTCONFIG_FILE": str(config)}

    def _removed(self) -> bool:
        self._home.cleanup()
        return True
