"""Follows what the doctor says to the letter: takes the text of a mend, and nothing else, and applies it as its kind says."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

_KEYS = {"containers": "name", "initContainers": "name", "volumes": "name", "env": "name", "volumeMounts": "mountPath"}
"""By what the entries of a list in a Pod are known, as strategic merge patches have it."""


def patched(manifest: Mapping[str, Any], text: str) -> dict[str, Any]:
    """Return a manifest with the patch that a mend is; AssertionError if it names a container that is not there."""
    patch = yaml.safe_load(text)
    known = {each["name"] for key in ("containers", "initContainers") for each in _pod_of(manifest).get(key, ())}
    named = {each["name"] for key in ("containers", "initContainers") for each in _pod_of(patch).get(key, ())}
    assert named <= known, f"{named - known} of the patch are not in the manifest"
    return dict(_merged(copy.deepcopy(dict(manifest)), patch))


def configured(file: Path, text: str) -> None:
    """Merge the YAML of a mend into a configuration file."""
    file.write_text(yaml.safe_dump(_merged(yaml.safe_load(file.read_text()), yaml.safe_load(text))))


def _pod_of(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    spec = manifest["spec"]
    return spec["template"]["spec"] if "template" in spec else spec


def _merged(base: Any, patch: Any, key: str = "") -> Any:
    if isinstance(base, dict) and isinstance(patch, dict):
        for name, value in patch.items():
            if value is None and name not in ("owner", "group"):  # in a configuration null is a value of these
                base.pop(name, None)
            else:
                base[name] = _merged(base.get(name), value, name)
        return base
    if isinstance(patch, list) and key in _KEYS:
        return _merged_lists(base or [], patch, _KEYS[key])
    return patch


def _merged_lists(base: list[Any], patch: list[Any], by: str) -> list[Any]:
    merged = list(base)
    for entry in patch:
        same = next((position for position, each in enumerate(merged) if each[by] == entry[by]), None)
        if same is None:
            merged.append(entry)
        else:
            merged[same] = _merged(merged[same], entry)
    return merged
