"""Where the process keeps what is not on a volume."""

import os
from pathlib import Path

from reloader.plan import State

USUAL = Path("/run/reloader")
"""Used without being asked for, where it is there: whoever mounts it means it."""


def state_directory(plan: State) -> Path | None:
    """Return the directory that the process may use, or None where there is none."""
    if plan.path is not None:
        return Path(os.path.realpath(plan.path))
    return Path(os.path.realpath(USUAL)) if USUAL.is_dir() and os.access(USUAL, os.W_OK | os.X_OK) else None


def record_home(directory: Path, pipeline: str) -> Path:
    """Return where the record of a pipeline without a volume is kept."""
    return directory / "pipelines" / pipeline
