"""What is known now: a frozen report for each pipeline, replaced whole, and what of it is shown."""

from reloader.status.metrics import Metrics
from reloader.status.report import PipelineReport, SourceReport, Status, TargetReport, document

__all__ = ["Metrics", "PipelineReport", "SourceReport", "Status", "TargetReport", "document"]
