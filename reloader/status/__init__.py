"""What is known now: a frozen report for each pipeline, replaced whole, and what of it is shown."""

from reloader.status.metrics import Metrics
from reloader.status.page import Page
from reloader.status.report import Change, Event, PipelineReport, SourceReport, Status, TargetReport, document

__all__ = ["Change", "Event", "Metrics", "Page", "PipelineReport", "SourceReport", "Status", "TargetReport", "document"]
