"""What can be read of Consul: how each is asked for through py-consul, what its answer means, and which ACL rule lets a token read it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from reloader.snapshot import Value


@dataclass(frozen=True)
class Key:
    """The text of one key; the value of its reading is None while there is no such key."""

    key: str

    def __str__(self) -> str:
        return f"key {self.key}"

    @property
    def rule(self) -> str:
        """Return the ACL rule that lets a token read it."""
        return f'key "{self.key}" {{ policy = "read" }}'

    def ask(self, client: Any, **query: Any) -> tuple[str, Any]:
        """Ask for it; the index and the answer."""
        return cast("tuple[str, Any]", client.kv.get(self.key, **query))

    def value(self, answer: Any) -> Value:
        """Return what the answer means."""
        return None if answer is None else _text(answer["Value"])


@dataclass(frozen=True)
class Prefix:
    """The keys below a folder: a mapping of the rest of their path to their text."""

    folder: str
    """Ends in `/`; empty for all there are."""

    def __str__(self) -> str:
        return f"prefix {self.folder}"

    @property
    def rule(self) -> str:
        """Return the ACL rule that lets a token read them."""
        return f'key_prefix "{self.folder}" {{ policy = "read" }} ("list" where acl.enable_key_list_policy is on)'

    def ask(self, client: Any, **query: Any) -> tuple[str, Any]:
        """Ask for them; the index and the answer."""
        return cast("tuple[str, Any]", client.kv.get(self.folder, recurse=True, **query))

    def value(self, answer: Any) -> Value:
        """Return what the answer means; keys that end in `/` are what Consul's UI makes to show a folder."""
        found = ((item["Key"].removeprefix(self.folder), item["Value"]) for item in answer or ())
        return {key: _text(value) for key, value in found if key and not key.endswith("/")}


@dataclass(frozen=True)
class Service:
    """The instances of a service, as `{id, address, port, tags, meta, node}` each."""

    name: str
    passing: bool = True
    tag: str | None = None
    near: str | None = None
    """Sort by the distance to this node instead of by id."""

    def __str__(self) -> str:
        return f"service {self.name}"

    @property
    def rule(self) -> str:
        """Return the ACL rules that let a token read them."""
        return f'service "{self.name}" {{ policy = "read" }} and node_prefix "" {{ policy = "read" }}'

    def ask(self, client: Any, **query: Any) -> tuple[str, Any]:
        """Ask for them; the index and the answer."""
        return cast("tuple[str, Any]", client.health.service(self.name, passing=self.passing, tag=self.tag, near=self.near, **query))

    def value(self, answer: Any) -> Value:
        """Return what the answer means."""
        instances = [_instance(entry["Node"], entry["Service"]) for entry in answer]
        return instances if self.near else sorted(instances, key=lambda instance: (instance["id"], instance["node"]))


@dataclass(frozen=True)
class Services:
    """The names of the services there are."""

    def __str__(self) -> str:
        return "services"

    @property
    def rule(self) -> str:
        """Return the ACL rule that lets a token read them."""
        return 'service_prefix "" { policy = "read" }'

    def ask(self, client: Any, **query: Any) -> tuple[str, Any]:
        """Ask for them; the index and the answer."""
        return cast("tuple[str, Any]", client.catalog.services(**query))

    def value(self, answer: Any) -> Value:
        """Return what the answer means: names, each with its tags."""
        return sorted(_name(name) for name in answer.keys())  # noqa: SIM118 - a list has none, and is no answer


@dataclass(frozen=True)
class Nodes:
    """The names of the nodes there are."""

    def __str__(self) -> str:
        return "nodes"

    @property
    def rule(self) -> str:
        """Return the ACL rule that lets a token read them."""
        return 'node_prefix "" { policy = "read" }'

    def ask(self, client: Any, **query: Any) -> tuple[str, Any]:
        """Ask for them; the index and the answer."""
        return cast("tuple[str, Any]", client.catalog.nodes(**query))

    def value(self, answer: Any) -> Value:
        """Return what the answer means."""
        return sorted(_name(node["Node"]) for node in answer)


class Fold(Prefix):
    """A folder that is read in the place of single keys below it."""

    def __str__(self) -> str:
        return f"keys below {self.folder}"


Read = Key | Prefix | Service | Services | Nodes


def _name(written: Any) -> str:
    if not isinstance(written, str):
        raise TypeError("no name")
    return written


def _text(value: bytes | None) -> str | bytes:
    try:
        return (value or b"").decode()
    except UnicodeDecodeError:
        return value or b""


def _instance(node: Mapping[str, Any], service: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": service["ID"],
        "address": service["Address"] or node["Address"],
        "port": service["Port"],
        "tags": list(service["Tags"] or ()),
        "meta": dict(service["Meta"] or {}),
        "node": node["Node"],
    }
