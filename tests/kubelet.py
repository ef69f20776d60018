"""What the kubelet does to a mounted ConfigMap or Secret: its AtomicWriter, step by step (pkg/volume/util/atomic_writer.go)."""

import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path


class KubeletVolume:
    """A directory as the kubelet mounts it; `swap` is one update of the ConfigMap."""

    def __init__(self, path: Path, *, mode: int = 0o644) -> None:
        self.path = path
        self._mode = mode
        path.mkdir(parents=True, exist_ok=True)

    def swap(self, payload: Mapping[str, str | bytes]) -> float:
        """Show exactly these files, by one rename; the generation before is deleted at once.

        Returns:
            When the rename was about to happen, in seconds of the monotonic clock.

        """
        data = self.path / "..data"
        old = data.readlink() if data.is_symlink() else None
        stale = self._names(data) - self._names_of(payload) if old else set()
        generation = self._write(payload)
        (self.path / "..data_tmp").symlink_to(generation.name)
        shown = time.monotonic()
        (self.path / "..data_tmp").rename(data)
        for name in self._names_of(payload):
            if not (self.path / name).is_symlink():
                (self.path / name).symlink_to(f"..data/{name}")
        for name in stale:
            (self.path / name).unlink()
        if old:
            shutil.rmtree(self.path / old)
        return shown

    @property
    def generation(self) -> str:
        """Return the name of the generation that is visible."""
        return str((self.path / "..data").readlink())

    def _write(self, payload: Mapping[str, str | bytes]) -> Path:
        generation = Path(tempfile.mkdtemp(prefix=time.strftime("..%Y_%m_%d_%H_%M_%S."), dir=self.path))
        generation.chmod(0o755)
        for name, content in payload.items():
            file = generation / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content.encode() if isinstance(content, str) else content)
            file.chmod(self._mode)
        return generation

    @staticmethod
    def _names(data: Path) -> set[str]:
        return {entry.name for entry in data.iterdir()}

    @staticmethod
    def _names_of(payload: Mapping[str, str | bytes]) -> set[str]:
        """Return the first component of each name: the links that a user sees."""
        return {name.partition("/")[0] for name in payload}
