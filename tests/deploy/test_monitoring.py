"""What Prometheus and Grafana are given: the alerts as they are tested elsewhere, and a dashboard that speaks of metrics that there are."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.holding import containers
from tests.deploy.rendering import DEPLOY, ROOT, one, overlay
from tests.servers import UnavailableError, missing
from tests.servers.prometheus import promtool

VARIABLES = {"$__rate_interval": "5m", "$namespace": ".*", "$pod": ".*", "$pipeline": ".*"}
"""What Grafana puts there."""
FROM_KUBERNETES = {"namespace", "pod"}
"""Labels that come with the Pod rather than with the metric."""
TABLE = re.compile(r"^\| `(reloader_\w+)(?:\{([\w,]+)\})?`", re.MULTILINE)


def documented() -> dict[str, set[str]]:
    """Return the labels of each metric that docs/reference.md has."""
    page = (ROOT / "docs/reference.md").read_text(encoding="utf-8")
    found = {name: set(filter(None, labels.split(","))) for name, labels in TABLE.findall(page)}
    histogram = "reloader_stage_duration_seconds"
    return {**found, f"{histogram}_bucket": found[histogram] | {"le"}}


def dashboard() -> dict[str, Any]:
    return dict(json.loads((DEPLOY / "components/monitoring/reloader.json").read_text()))


def expressions() -> list[tuple[str, str]]:
    """Return the legend and the expression of each curve."""
    return [(target["legendFormat"], target["expr"]) for panel in dashboard()["panels"] for target in panel["targets"]]


def test_the_rules_of_the_operator_are_the_alerts():
    alerts = yaml.safe_load((DEPLOY / "prometheus/alerts.yaml").read_text())
    assert one(overlay("production"), "PrometheusRule")["spec"] == alerts


def test_grafana_gets_the_dashboard():
    assert json.loads(one(overlay("production"), "ConfigMap", "reloader-dashboard")["data"]["reloader.json"]) == dashboard()


@pytest.mark.parametrize(("legend", "expression"), expressions())
def test_each_curve_speaks_of_a_metric_that_there_is(legend: str, expression: str):
    """By its name, and by labels that it has; what its legend and its sums name is there too."""
    metrics = documented()
    names = re.findall(r"reloader_\w+", expression)
    assert names
    assert [name for name in names if name not in metrics] == []
    labels = {label for name in names for label in metrics[name]} | FROM_KUBERNETES
    used = set(re.findall(r"(\w+)=~?\"", expression))
    used |= {each.strip() for group in re.findall(r"(?:by|ignoring) \(([^)]+)\)", expression) for each in group.split(",")}
    assert used | set(re.findall(r"{{(\w+)}}", legend)) <= labels


def test_prometheus_understands_each_expression(tmp_path: Path):
    rules = [{"record": f"curve:{number}", "expr": filled(text)} for number, (_, text) in enumerate(expressions())]
    assert_understood(tmp_path, rules)
    with pytest.raises(AssertionError, match="parse error"):
        assert_understood(tmp_path, [{"record": "curve:0", "expr": filled(expressions()[0][1]) + ")"}])


def assert_understood(folder: Path, rules: list[dict[str, str]]) -> None:
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    try:
        checked = promtool("check", "rules", folder / "rules.yaml")
    except UnavailableError as reason:
        missing(reason)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def filled(expression: str) -> str:
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    assert "$" not in expression
    return expression


def test_the_variables_of_the_dashboard_are_all_that_it_uses():
    """Its own, and those that Grafana has by itself."""
    own = {variable["name"] for variable in dashboard()["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(dashboard()["panels"])))
    assert used - {"__rate_interval"} == own


def test_no_two_panels_share_a_place():
    places = [panel["gridPos"] for panel in dashboard()["panels"]]
    cells = [(x, y) for each in places for x in range(each["x"], each["x"] + each["w"]) for y in range(each["y"], each["y"] + each["h"])]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


def test_prometheus_finds_the_pods_and_may_ask_them():
    """The PodMonitor and the policy of the network choose the Pods, and mean a port that the sidecar has."""
    manifests = overlay("production")
    deployment, policy, monitor = (one(manifests, kind) for kind in ("Deployment", "NetworkPolicy", "PodMonitor"))
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    [port] = containers(deployment)["reloader"]["ports"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    assert [endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]] == [port["name"]]
    open_to_all = [each for rule in policy["spec"]["ingress"] if "from" not in rule for each in rule["ports"] if each["protocol"] == "TCP"]
    assert not any(each["port"] <= port["containerPort"] <= each["endPort"] for each in open_to_all)
    assert all(any(each["port"] <= other <= each["endPort"] for each in open_to_all) for other in (1, 80, 9532, 9534, 65535))
