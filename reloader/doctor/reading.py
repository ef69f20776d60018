"""What the sources say now, by the same reads as `check --online`: nothing stays that is issued for them; and what can be made of that."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from reloader import sources
from reloader.doctor.checks import Check, each, failed, ok, skipped, warning
from reloader.doctor.finding import Evidence, Finding, Mend
from reloader.doctor.mends import command, configuration, words
from reloader.doctor.patient import Patient
from reloader.doctor.servers import DEADLINE, reached
from reloader.online import Seen, online
from reloader.plan import Consul, Pipeline, Source, Vault, Volume
from reloader.render import Renderer, RenderFailed
from reloader.snapshot import Failure, FailureKind, Reading
from reloader.sources.files import Settings as Files
from reloader.volume.layout import generation_name
from reloader.written import Secret

_POLICY = re.compile(r'path "[^"]+" \{ capabilities = \["\w+"\] \}')
_RULE = re.compile(r'\w+ "[^"]*" \{ policy = "\w+" \}')
_MEANT = re.compile(r"'(?P<wrong>\w+)' is undefined.*; did you mean '(?P<right>\w+)'\?")
_AT = re.compile(r": (?P<file>/\S+), line (?P<line>\d+): ")
_RESOURCES: Mapping[str, tuple[str, str]] = {
    "Key": ("key", "key"),
    "Prefix": ("key", "folder"),
    "Service": ("service", "name"),
    "Services": ("service", ""),
    "Nodes": ("node", ""),
}
"""What a read of Consul asks for in the words of its access control: the resource, and where the read has its name."""


def _told(patient: Patient, pipeline: Pipeline) -> dict[str, Seen]:
    """Return what came of every source, and of the directory of every template under its path."""
    return patient.once(("read", pipeline.name), lambda: {seen.name: seen for seen in _read(patient, pipeline)})


def _read(patient: Patient, pipeline: Pipeline) -> tuple[Seen, ...]:
    directories = Renderer(pipeline.volume).template_directories if pipeline.volume else ()
    templates = {path: Source(kind="files", settings=Files(path=f"{path}/")) for path in directories}
    return online(replace(pipeline, sources={**pipeline.sources, **templates}), patient.world, issue=False)


def _sources(patient: Patient) -> Iterator[Finding]:
    found = ((pipeline, seen) for pipeline in patient.plan.pipelines for seen in _told(patient, pipeline).values())
    shown = (_source(patient, pipeline, seen) for pipeline, seen in found if not seen.name.startswith("/") or not seen.good)
    return each(shown, "no pipeline has a source")


def _source(patient: Patient, pipeline: Pipeline, seen: Seen) -> Finding:
    about = f"{pipeline.name}: {seen.name}"
    plan = pipeline.sources.get(seen.name)
    made = sources.make(plan.kind, plan.settings, pipeline.connections) if plan else None
    server = made.backend if made is not None and isinstance(made.backend, Vault | Consul) else None
    if seen.good and made is not None and isinstance(server, Consul):
        return _permitted(patient, server, made.read, seen, about)
    if seen.good:
        return ok(seen.told, about)
    if server is not None and reached(patient, server).told:
        return failed(seen.told, about, mends=[words(f"See server.reachable: {server.address}.")])
    mends = [*_granted(server, made.read if made else None, seen)] or [words(f"{seen.told.partition('; ')[2] or seen.told}.")]
    return failed(seen.told, about, evidence=[Evidence(server.address, seen.told)] if server else [], mends=mends)


def _granted(server: Vault | Consul | None, read: Any, seen: Seen) -> Iterator[Mend]:
    """Yield the lines that a policy lacks, as the failure says them."""
    if not isinstance(seen.outcome, Failure) or seen.outcome.kind is not FailureKind.REFUSED:
        return
    if isinstance(server, Vault) and (lines := _POLICY.findall(seen.outcome.reason)):
        yield Mend("vault_policy", "the policy of its token (bao policy write)", "\n".join(lines) + "\n")
    elif isinstance(server, Consul) and _RULE.search(seen.outcome.reason):
        yield _rules(read)


def _rules(read: Any) -> Mend:
    return Mend("consul_rules", "the policy of its token (consul acl policy update)", "\n".join(_RULE.findall(read.rule)) + "\n")


def _permitted(patient: Patient, server: Consul, read: Any, seen: Seen, about: str) -> Finding:
    """Judge an answer by what the token may read: what it may not, Consul leaves out without a word."""
    allowed = _allowed(patient, server, read)
    if allowed is not False:
        return ok(seen.told, about)
    value = seen.outcome.value if isinstance(seen.outcome, Reading) else None
    told = f"the token may not read {'all ' if value else ''}of this, and Consul leaves out what it may not read: {seen.told}"
    evidence = [Evidence("POST /v1/internal/acl/authorize", f"{read}: not allowed")]
    return (warning if value else failed)(told, about, evidence=evidence, mends=[_rules(read)])


def _allowed(patient: Patient, server: Consul, read: Any) -> bool | None:
    """Return what the server says of the rights of our token; None where it does not say. Nothing is changed by asking."""
    from reloader.backends.consul.client import token_of  # noqa: PLC0415 - only where there is a Consul

    resource, field = _RESOURCES.get(type(read).__name__, ("", ""))
    if not resource:
        return None
    asked = [{"Resource": resource, "Access": "read", "Segment": getattr(read, field) if field else ""}]
    asked += [{"Resource": "node", "Access": "read", "Segment": ""}] if resource == "service" and field else []
    session = patient.world.session(server.tls, timeout=DEADLINE)
    try:
        token = Secret(token_of(server) or "")
        headers = {"X-Consul-Token": token.reveal()} if token.reveal() else {}
        answer = session.post(f"{server.address.rstrip('/')}/v1/internal/acl/authorize", json=asked, headers=headers)
        return all(bool(each["Allow"]) for each in answer.json()) if answer.ok else None
    except (OSError, ValueError, LookupError, TypeError):
        return None
    finally:
        session.close()


def _rendered(patient: Patient) -> Iterator[Finding]:
    return each((_render(patient, pipeline, volume) for pipeline, volume in patient.volumes()), "no pipeline has a volume")


def _render(patient: Patient, pipeline: Pipeline, volume: Volume) -> Finding:
    told = _told(patient, pipeline)
    values = {name: seen.outcome.value for name, seen in told.items() if isinstance(seen.outcome, Reading)}
    if missing := sorted(name for name in told if name not in values):
        return skipped(f"not rendered, since {', '.join(missing)} was not read", pipeline.name)
    directories = {name: values.pop(name) for name in tuple(values) if name.startswith("/")}
    try:
        files = Renderer(volume).render(values, directories, f"{volume.target_path or volume.path}/{generation_name(1)}")
    except RenderFailed as wrong:
        mends = [*_rewritten(patient, pipeline, volume, str(wrong))]
        evidence = [Evidence("rendered with what the sources say now", str(wrong))]
        return failed(
            str(wrong), pipeline.name, evidence=evidence, mends=mends or [words("Correct the template, or what the source says.")]
        )
    return ok(f"{len(files)} files are rendered with what the sources say now", pipeline.name)


def _rewritten(patient: Patient, pipeline: Pipeline, volume: Volume, reason: str) -> Iterator[Mend]:
    """Yield how the name that was meant gets into the template."""
    meant, at, name = _MEANT.search(reason), _AT.search(reason), reason.partition(": ")[0]
    file = volume.files.get(name)
    if meant is None or file is None:
        return
    wrong, right = rf"\b{meant['wrong']}\b", meant["right"]
    if file.content is not None:
        yield configuration(patient, pipeline, {"volume": {"files": {name: {"content": re.sub(wrong, right, file.content)}}}})
    elif at is not None:
        yield command(f"sed -i '{at['line']}s/{wrong}/{right}/' {at['file']}", at["file"])


CHECKS = (
    Check("source.read", "every source can be read, and its token may read all of it", _sources),
    Check("template.renders", "the files can be rendered with what the sources say now", _rendered),
)
