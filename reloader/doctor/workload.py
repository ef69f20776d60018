"""The Pod as a manifest has it: which of its containers runs the reloader, and which one the target."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import yaml

_TEMPLATES: Mapping[str, tuple[str, ...]] = {
    "Pod": ("spec",),
    "Job": ("spec", "template", "spec"),
    "CronJob": ("spec", "jobTemplate", "spec", "template", "spec"),
    **dict.fromkeys(("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"), ("spec", "template", "spec")),
}
"""Where each kind has the specification of its Pods."""
LISTS = ("initContainers", "containers")

Manifest = Mapping[str, Any]


class Unfit(Exception):
    """The manifests tell nothing; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One manifest that makes Pods with a reloader."""

    file: str
    document: Manifest
    container: Manifest
    """The container that runs the reloader."""
    listed: str
    """Among which containers of the Pod it is."""
    services: tuple[str, ...] = ()
    """The names of the Services in the same manifests."""

    @property
    def kind(self) -> str:
        """Return what it is."""
        return str(self.document["kind"])

    @property
    def name(self) -> str:
        """Return what it is called."""
        return _name(self.document)

    @property
    def way(self) -> tuple[str, ...]:
        """Return the keys that lead to the Pod's specification."""
        return _TEMPLATES[self.kind]

    @property
    def spec(self) -> Manifest:
        """Return the Pod's specification."""
        return _spec(self.document)

    @property
    def where(self) -> str:
        """Return what a person calls it."""
        return f"{self.kind} {self.name} ({self.file})"

    def others(self) -> tuple[Manifest, ...]:
        """Return the containers that run beside the reloader."""
        return tuple(each for each in named(self.spec, "containers") if each is not self.container)

    def target(self, *names: str) -> Manifest | None:
        """Return the container of the target: the only other one, or the only one that any of these names speaks of."""
        others = self.others()
        meant = [each for each in others if any(name and name in _words(each) for name in names)] if len(others) > 1 else list(others)
        return meant[0] if len(meant) == 1 else None


def read(paths: Sequence[Path], standard_input: TextIO) -> Workload:
    """Return the workload in these manifests, streams of documents too; `-` is the standard input.

    Raises:
        Unfit: there is none, or more than one, or they are no manifests.

    """
    documents = [(str(path), document) for path in paths for document in _documents(path, standard_input)]
    services = tuple(_name(each) for _, each in documents if each.get("kind") == "Service")
    found = [workload for file, document in documents for workload in _workloads(file, document, services)]
    lasting = [each for each in found if "once" not in arguments(each.container)] or found
    if not lasting:
        kinds = ", ".join(sorted({str(document.get("kind")) for _, document in documents})) or "nothing"
        raise Unfit(f"no container in them runs reloader (by its command, arguments, image or name); found: {kinds}")
    if len(lasting) > 1:
        listed = ", ".join(f"{each.container.get('name')} of {each.where}" for each in lasting)
        raise Unfit(f"several containers run reloader, examine one at a time: {listed}")
    return lasting[0]


def named(container: Manifest, key: str) -> Iterator[Manifest]:
    """Yield the entries of a list in a container, or of one of containers or volumes in a Pod."""
    listed = container.get(key)
    return (each for each in listed if isinstance(each, dict)) if isinstance(listed, list) else iter(())


def arguments(container: Manifest) -> list[str]:
    """Return the words that a container is started with."""
    listed = (container.get(key) for key in ("command", "args"))
    return [str(word) for words in listed if isinstance(words, list) for word in words]


def _documents(path: Path, standard_input: TextIO) -> Iterator[Manifest]:
    try:
        text = standard_input.read() if str(path) == "-" else path.read_text(encoding="utf-8")
        read = [document for document in yaml.safe_load_all(text) if document is not None]
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Unfit(f"{path} cannot be read as YAML: {getattr(error, 'strerror', None) or ' '.join(str(error).split())}") from None
    for document in read:
        several = isinstance(document, dict) and document.get("kind") == "List"
        for each in (document.get("items") or ()) if several else (document,):
            if not isinstance(each, dict):
                raise Unfit(f"{path} holds something that is no manifest")
            yield each


def _name(document: Manifest) -> str:
    metadata = document.get("metadata")
    return str(metadata.get("name", "")) if isinstance(metadata, dict) else ""


def _workloads(file: str, document: Manifest, services: tuple[str, ...]) -> Iterator[Workload]:
    if str(document.get("kind")) not in _TEMPLATES:
        return
    spec = _spec(document)
    for listed in LISTS:
        for container in named(spec, listed):
            if _runs_reloader(container):
                yield Workload(file=file, document=document, container=container, listed=listed, services=services)


def _spec(document: Manifest) -> Manifest:
    found: Any = document
    for key in _TEMPLATES[str(document["kind"])]:
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def _runs_reloader(container: Manifest) -> bool:
    if container.get("command"):
        return any(word.rpartition("/")[2] == "reloader" for word in arguments(container))
    image = str(container.get("image", "")).rpartition("/")[2].partition("@")[0].partition(":")[0]
    return image in ("reloader", "config-reloader") or container.get("name") == "reloader"


def _words(container: Manifest) -> str:
    return " ".join((str(container.get("name", "")), str(container.get("image", "")), *arguments(container)))
