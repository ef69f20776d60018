"""A folder that processes of other users reach: pytest's own are closed, and closed again by each run that begins."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def folder_for_everyone() -> Iterator[Path]:
    """Make one, and remove it."""
    with tempfile.TemporaryDirectory(prefix="reloader-tests-") as name:
        Path(name).chmod(0o755)
        yield Path(name).resolve()
