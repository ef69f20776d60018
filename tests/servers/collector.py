"""A collector that takes traces over OTLP/HTTP and shows the spans, decoded with the format's own classes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.servers.misbehaving import Exchange, Misbehaving, misbehaving


class Collector:
    """What came in so far; `status` is what it answers."""

    def __init__(self, server: Misbehaving) -> None:
        self._server = server
        self.address = server.address

    @property
    def requests(self) -> list[ExportTraceServiceRequest]:
        """Return every request."""
        return [ExportTraceServiceRequest.FromString(each.body) for each in tuple(self._server.exchanges)]

    @property
    def resource(self) -> dict[str, Any]:
        """Return the attributes of who sent the last request."""
        return attributes(self.requests[-1].resource_spans[0].resource)

    @property
    def spans(self) -> list[Span]:
        """Return every span, in order of their beginnings."""
        groups = (scope for request in self.requests for group in request.resource_spans for scope in group.scope_spans)
        return sorted((span for scope in groups for span in scope.spans), key=lambda span: (span.start_time_unix_nano, span.parent_span_id))

    @property
    def changes(self) -> list[tuple[Span, list[Span]]]:
        """Return each whole change with its stages."""
        spans = self.spans
        return [(each, [span for span in spans if span.parent_span_id == each.span_id]) for each in spans if not each.parent_span_id]

    def change(self, generation: int) -> tuple[Span, list[Span]] | None:
        """Return the first change of a generation, once it is here."""
        return next((each for each in self.changes if attributes(each[0])["reloader.generation"] == generation), None)


def attributes(holder: Any) -> dict[str, Any]:
    """Return the attributes of a span or a resource."""
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in holder.attributes}


@contextmanager
def collector() -> Iterator[Collector]:
    """Run one."""

    def take(exchange: Exchange) -> None:
        exchange.answer(b"", content_type="application/x-protobuf")

    with misbehaving(take) as server:
        yield Collector(server)
