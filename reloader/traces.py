"""Traces: one span for each change with a span for each of its stages, through OpenTelemetry, where the environment asks for it.

Nothing of OpenTelemetry is imported otherwise. A span holds names, numbers and outcomes, and never the text of an error.
"""

import logging
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Sequence

    import requests
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

log = logging.getLogger("reloader")

MEND = "pip install 'config-reloader[otel]'"
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


@dataclass(frozen=True)
class Step:
    """One stage of a change; times are seconds of one clock."""

    name: str
    generation: int
    began: float
    ended: float
    outcome: str
    kind: str = ""
    """Why it failed, in one word."""


@dataclass(frozen=True)
class Cycle:
    """One change, from its first stage to the end of its delivery; times are seconds of the wall clock."""

    pipeline: str
    generation: int
    began: float
    ended: float
    outcome: str
    """`ok`, `failed`, `superseded` by newer content, or `owed` still."""
    steps: tuple[Step, ...]


Take = Callable[[Cycle], None]


def unmet(environ: Mapping[str, str]) -> str | None:
    """Return why traces that the environment asks for cannot be had of us; empty if they can, None if it asks for none."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    exporters = [each.strip().lower() for each in environ.get("OTEL_TRACES_EXPORTER", "").split(",") if each.strip()]
    if exporters == ["none"] or not (exporters or any(environ.get(name) for name in _ENDPOINTS)):
        return None
    if exporters and "otlp" not in exporters:
        return f"OTEL_TRACES_EXPORTER is {','.join(exporters)!r}, and only 'otlp' is known here"
    protocol = next((environ[name] for name in _PROTOCOLS if environ.get(name)), "http/protobuf")
    if protocol != "http/protobuf":
        return f"the protocol {protocol!r} is asked for, and only 'http/protobuf' is known here: set {_PROTOCOLS[0]} and the port for it"
    return ""


def traces(version: str, session: "Callable[[], requests.Session]", environ: Mapping[str, str] = os.environ) -> "Traces | None":
    """Return what takes the changes; None where the environment asks for no traces, and where it cannot be, which is logged."""
    why_not = unmet(environ)
    if why_not is None:
        return None
    try:
        if not why_not:
            return Traces(_provider(version, session()))
    except ImportError as missing:
        why_not = f"{missing.name} is not installed: {MEND}"
    except Exception as error:  # noqa: BLE001 - what else the SDK does not like about its variables is no reason not to run
        why_not = f"OpenTelemetry did not start ({type(error).__name__}); see the OTEL_ variables"
    log.warning("no traces", extra={"fields": {"reason": why_not}})
    return None


class Traces:
    """Turns changes into spans. Sending them is the work of a thread of OpenTelemetry's, from a queue that drops what it cannot hold."""

    def __init__(self, provider: "TracerProvider") -> None:
        self._tracer = provider.get_tracer("reloader")
        self._closing = threading.Thread(target=provider.shutdown, name="traces", daemon=True)

    def take(self, cycle: Cycle) -> None:
        """Queue a change."""
        from opentelemetry.trace import set_span_in_context  # noqa: PLC0415 - only where there are traces

        attributes = _attributes(cycle.pipeline, cycle.generation, cycle.outcome)
        whole = self._tracer.start_span("change", start_time=_ns(cycle.began), attributes=attributes)
        context = set_span_in_context(whole)
        for step in cycle.steps:
            attributes = _attributes(cycle.pipeline, step.generation, step.outcome, step.kind)
            span = self._tracer.start_span(step.name, context, start_time=_ns(step.began), attributes=attributes)
            _end(span, step)
        _end(whole, cycle)

    def close(self) -> None:
        """Begin to hand over what is queued, and take no more."""
        self._closing.start()

    def join(self, within: float) -> None:
        """Wait for `within` seconds at most until what was queued is handed over."""
        self._closing.join(max(0.0, within))


class _Telling:
    """An exporter that says once when nobody takes the spans, and once when somebody does again."""

    def __init__(self, exporter: "SpanExporter") -> None:
        self._exporter = exporter
        self._fails = False

    def export(self, spans: "Sequence[ReadableSpan]") -> "SpanExportResult":
        """Send the spans."""
        result = self._exporter.export(spans)
        fails = result.name != "SUCCESS"
        if fails and not self._fails:
            log.warning("traces are not taken", extra={"fields": {"reason": f"see the collector, and {' or '.join(_ENDPOINTS)}"}})
        elif self._fails and not fails:
            log.info("traces are taken again")
        self._fails = fails
        return result

    def shutdown(self) -> None:
        """Give up what is being sent."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Return whether nothing is left."""
        return self._exporter.force_flush(timeout_millis)


def _provider(version: str, session: "requests.Session") -> "TracerProvider":
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - 140 ms and 10 MiB
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    # Its lines repeat ours at every batch, with addresses in them; what is wrong with its variables it says at this level.
    logging.getLogger("opentelemetry").setLevel(logging.ERROR)
    logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)
    ours = Resource.create({"service.name": "reloader", "service.version": version})
    provider = TracerProvider(resource=ours.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
    exporter = cast("SpanExporter", _Telling(OTLPSpanExporter(session=session)))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def _attributes(pipeline: str, generation: int, outcome: str, kind: str = "") -> dict[str, str | int]:
    known: dict[str, str | int] = {"reloader.pipeline": pipeline, "reloader.generation": generation, "reloader.outcome": outcome}
    return {**known, "error.type": kind} if kind else known


def _end(span: Any, ended: Step | Cycle) -> None:
    from opentelemetry.trace import Status, StatusCode  # noqa: PLC0415 - only where there are traces

    if ended.outcome == "failed":
        span.set_status(Status(StatusCode.ERROR))
    span.end(_ns(ended.ended))


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
