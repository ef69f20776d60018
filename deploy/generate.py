#!/usr/bin/env python3
"""Writes what is derived: the PrometheusRule and the chart's copy from prometheus/alerts.yaml, and the dashboard from the table below."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
SCOPE = 'namespace=~"$namespace",pod=~"$pod",pipeline=~"$pipeline"'
"""What the variables of the dashboard select."""
WITHOUT_PIPELINE = 'namespace=~"$namespace",pod=~"$pod"'

PANELS: tuple[tuple[str, str, str, Mapping[str, str]], ...] = (
    ("Pods that may not be relied on", "stat", "short", {"closed": f"sum(reloader_closed{{{SCOPE}}})"}),
    ("Reloads owed", "stat", "short", {"owed": f"sum(reloader_reload_owed{{{SCOPE}}})"}),
    ("Oldest value", "stat", "s", {"age": f"max(reloader_source_age_seconds{{{SCOPE}}})"}),
    ("First certificate ends in", "stat", "s", {"left": f"min(reloader_certificate_expiry_timestamp_seconds{{{SCOPE}}}) - time()"}),
    (
        "Reloads",
        "timeseries",
        "short",
        {
            "asked {{pipeline}}": f"sum by (pipeline) (increase(reloader_reloads_total{{{SCOPE}}}[$__rate_interval]))",
            "failed {{pipeline}}": f"sum by (pipeline) (increase(reloader_reloads_failed_total{{{SCOPE}}}[$__rate_interval]))",
        },
    ),
    (
        "Not taken yet: desired ahead of published, published ahead of confirmed",
        "timeseries",
        "short",
        {
            "{{pod}} {{pipeline}} to publish": (
                f'reloader_generation{{{SCOPE},state="desired"}} - ignoring (state) reloader_generation{{{SCOPE},state="published"}}'
            ),
            "{{pod}} {{pipeline}} to confirm": (
                f'reloader_generation{{{SCOPE},state="published"}} - ignoring (state) reloader_generation{{{SCOPE},state="confirmed"}}'
            ),
        },
    ),
    ("Age of each source", "timeseries", "s", {"{{pod}} {{source}}": f"reloader_source_age_seconds{{{SCOPE}}}"}),
    (
        "Reads that brought no answer",
        "timeseries",
        "short",
        {"{{source}} {{reason}}": f"sum by (source, reason) (increase(reloader_source_errors_total{{{SCOPE}}}[$__rate_interval]))"},
    ),
    ("What keeps a target from being asked", "timeseries", "short", {"{{pod}} {{reason}}": f"reloader_target_trouble{{{SCOPE}}} == 1"}),
    (
        "Refused, and taken back",
        "timeseries",
        "short",
        {
            "refused by {{stage}}": f"sum by (stage) (increase(reloader_refusals_total{{{SCOPE}}}[$__rate_interval]))",
            "rollbacks": f"sum(increase(reloader_rollbacks_total{{{SCOPE}}}[$__rate_interval]))",
        },
    ),
    (
        "Duration of each stage, 99th percentile",
        "timeseries",
        "s",
        {
            "{{stage}}": (
                f"histogram_quantile(0.99, sum by (stage, le) (rate(reloader_stage_duration_seconds_bucket{{{SCOPE}}}[$__rate_interval])))"
            )
        },
    ),
    ("Leases end in", "timeseries", "s", {"{{pod}} {{source}}": f"reloader_lease_expiry_timestamp_seconds{{{SCOPE}}} - time()"}),
    (
        "Configurations that would not survive a restart",
        "timeseries",
        "short",
        {"{{pod}}": f"reloader_config_reload_successful{{{WITHOUT_PIPELINE}}} == 0"},
    ),
    ("Versions", "timeseries", "short", {"{{version}}": f"count by (version) (reloader_build_info{{{WITHOUT_PIPELINE}}})"}),
)
"""Title, kind, unit, and the expression behind each legend."""


def dashboard() -> dict[str, Any]:
    """Return the dashboard for Grafana."""
    return {
        "uid": "config-reloader",
        "title": "reloader",
        "tags": ["config-reloader"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": list(_variables())},
        "panels": [_panel(number, *panel) for number, panel in enumerate(PANELS)],
    }


def _variables() -> Iterator[dict[str, Any]]:
    yield {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}
    asked = {
        "namespace": "label_values(reloader_build_info, namespace)",
        "pod": 'label_values(reloader_build_info{namespace=~"$namespace"}, pod)',
        "pipeline": f"label_values(reloader_generation{{{WITHOUT_PIPELINE}}}, pipeline)",
    }
    for name, query in asked.items():
        common = {"type": "query", "datasource": _source(), "refresh": 2, "includeAll": True, "multi": True, "allValue": ".*"}
        yield {"name": name, "label": name.capitalize(), "query": {"query": query, "refId": name}, **common}


def _panel(number: int, title: str, kind: str, unit: str, expressions: Mapping[str, str]) -> dict[str, Any]:
    stats = sum(panel[1] == "stat" for panel in PANELS)
    row, column = divmod(number - stats, 2)
    place = {"x": number * 6, "y": 0, "w": 6, "h": 4} if number < stats else {"x": column * 12, "y": 4 + row * 8, "w": 12, "h": 8}
    targets = [{"refId": chr(65 + n), "expr": text, "legendFormat": name} for n, (name, text) in enumerate(expressions.items())]
    return {
        "id": number + 1,
        "title": title,
        "type": kind,
        "gridPos": place,
        "datasource": _source(),
        "fieldConfig": {"defaults": {"unit": unit}, "overrides": []},
        "targets": [{"datasource": _source(), **target} for target in targets],
    }


def _source() -> dict[str, str]:
    return {"type": "prometheus", "uid": "${datasource}"}


def files() -> dict[str, str]:
    """Return what is derived: each file's text by its path below this folder."""
    alerts = (FOLDER / "prometheus" / "alerts.yaml").read_text()
    groups = alerts[alerts.index("groups:\n") :]
    drawn = json.dumps(dashboard(), indent=2) + "\n"
    head = "# Written by ../../generate.py from ../../prometheus/alerts.yaml.\n"
    rule = "apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: reloader\nspec:\n"
    indented = "".join(f"  {line}" if line.strip() else line for line in groups.splitlines(keepends=True))
    return {
        "components/monitoring/rules.yaml": head + rule + indented,
        "components/monitoring/reloader.json": drawn,
        "chart/files/alerts.yaml": groups,
        "chart/files/reloader.json": drawn,
    }


if __name__ == "__main__":
    for name, text in files().items():
        (FOLDER / name).write_text(text)
