#!/usr/bin/env -S python3 -I
"""runc, but what a container adds to its capabilities comes into effect for root alone, as in Kubernetes.

podman puts it into the ambient set, which keeps it when a program is started by another user; no runtime of Kubernetes does
(kubernetes/kubernetes#56374). It stands in the bundle's config.json for a container, and in a file of its own for what is executed in one.
"""

import json
import os
import sys
from pathlib import Path


def main(words: list[str]) -> None:
    if "create" in words or "run" in words:
        _correct(Path(_after("--bundle", words)) / "config.json")
    elif "exec" in words:
        _correct(Path(_after("--process", words)))
    os.execvp("runc", ["runc", *words])


def _after(option: str, words: list[str]) -> str:
    return words[words.index(option) + 1]


def _correct(file: Path) -> None:
    document = json.loads(file.read_text())
    capabilities = document.get("process", document).get("capabilities", {})
    capabilities.update(ambient=[], inheritable=[])
    file.write_text(json.dumps(document))


if __name__ == "__main__":
    main(sys.argv[1:])
