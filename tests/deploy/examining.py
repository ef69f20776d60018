"""What `reloader doctor --manifest` says of manifests and of the configuration in them."""

import subprocess
from pathlib import Path

import yaml

from tests.deploy.rendering import Manifest
from tests.e2e.bed import DOCTOR, Examined


def examined(manifests: list[Manifest], folder: Path) -> Examined:
    """Let the doctor look at them, with the configuration that their ConfigMaps hold in files."""
    configuration = [text for name, text in _mounted(manifests, folder) if name.endswith(".yaml")]
    assert len(configuration) == 1
    stream = folder / "stream.yaml"
    stream.write_text(yaml.safe_dump_all(manifests))
    command = [*DOCTOR, str(folder / "pipeline.yaml"), "--manifest", str(stream), "--json"]
    (folder / "pipeline.yaml").write_text(configuration[0])
    return Examined(subprocess.run(command, capture_output=True, text=True, timeout=100, check=False))


def wrong_in(found: Examined) -> dict[str, str]:
    """Return what is wrong with the manifests or the configuration; no server of theirs can be asked."""
    return {check: state for check, state in found.wrong().items() if check.startswith(("manifest.", "configuration."))}


def _mounted(manifests: list[Manifest], folder: Path) -> list[tuple[str, str]]:
    """Write the files that are mounted at /etc/reloader, each with the paths as they are here."""
    data = next(
        each["data"] for each in manifests if each["kind"] == "ConfigMap" and any("target:" in text for text in each["data"].values())
    )
    files = [(name, text.replace("/etc/reloader/", f"{folder}/")) for name, text in data.items()]
    for name, text in files:
        (folder / name).write_text(text)
    return files
