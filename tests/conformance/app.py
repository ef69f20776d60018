"""One pipeline as an operator would write it, with its sidecar: what the rows of the peers' suites are run on."""

import json
from pathlib import Path
from typing import Any

from tests.e2e.sidecar import Sidecar, reloader
from tests.waiting import eventually


class App:
    """A configuration in a file, its volume, and the sidecar that runs it."""

    def __init__(self, folder: Path, **keys: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.live = folder / "live"
        self.file = folder / "app.yaml"
        self._keys: dict[str, Any] = {"target": {"kind": "none"}, "timing": {"min_interval": "0s"}}
        self.write(**keys)
        self.sidecar = Sidecar(folder / "sidecar", self.file)

    def write(self, *, files: dict[str, Any] | None = None, **keys: Any) -> None:
        """Write the configuration: as it was, but for these keys; `files` are contents, or whole entries, by name."""
        self._keys |= keys
        if files is not None:
            entries = {name: {"content": file} if isinstance(file, str) else file for name, file in files.items()}
            self._keys["volume"] = {"path": str(self.live), **self._keys.get("volume", {}), "files": entries}
        self.file.write_text(json.dumps(self._keys))

    def start(self) -> "App":
        self.sidecar.start()
        return self

    def once(self, *options: str) -> Any:
        """Run `reloader once` on it."""
        return reloader("once", *options, self.file)

    def published(self, name: str = "app.conf") -> str | None:
        file = self.live / name
        return file.read_text() if file.exists() else None

    def shows(self, text: str, name: str = "app.conf") -> None:
        """Wait until a file says that."""
        eventually(lambda: self.published(name) == text, within=20, what=f"{name} with {text!r}, it has {self.published(name)!r}")

    @property
    def generation(self) -> int:
        """The number of what is published, 0 for nothing."""
        link = self.live / "..data"
        return int(str(link.readlink()).lstrip(".")) if link.is_symlink() else 0

    def reasons(self) -> str:
        """Why it is not well."""
        return "\n".join(self.sidecar.pipeline()["reasons"])

    def source(self, name: str) -> dict[str, Any]:
        """What /status says of a source."""
        return next(each for each in self.sidecar.pipeline()["sources"] if each["name"] == name)
