"""Coverage of processes that may not write where the tests run: they write elsewhere, and what they wrote is fetched."""

import base64
import json
import os
from collections.abc import Mapping
from pathlib import Path

_CONFIG = "COVERAGE_PROCESS_CONFIG"


def environ(folder: Path) -> Mapping[str, str]:
    """Return what has a process write its coverage into a folder that everyone may write to; nothing where none is measured."""
    if _CONFIG not in os.environ:
        return {}
    folder.mkdir(exist_ok=True)
    folder.chmod(0o777)
    config = json.loads(base64.b64decode(os.environ[_CONFIG]))
    config["data_file"] = str(folder / Path(config["data_file"]).name)
    return {_CONFIG: base64.b64encode(json.dumps(config).encode()).decode()}


def fetch(folder: Path) -> None:
    """Put what was written there beside what the tests write."""
    if _CONFIG not in os.environ or not folder.is_dir():
        return
    home = Path(json.loads(base64.b64decode(os.environ[_CONFIG]))["data_file"]).parent
    for file in folder.iterdir():
        (home / file.name).write_bytes(file.read_bytes())
