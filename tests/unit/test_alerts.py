"""The alert rules that are shipped: each fires in its case, and none in a healthy fleet, whatever its Pods go through."""

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from reloader import cli
from reloader.status import Metrics, Status
from reloader.world.clock import Clock
from tests.scale import SEED, rounds
from tests.servers import UnavailableError, missing
from tests.servers.prometheus import promtool

FOLDER = Path(__file__).parents[2] / "deploy" / "prometheus"
RULES: dict[str, Any] = yaml.safe_load((FOLDER / "alerts.yaml").read_text())
SCENARIOS: dict[str, Any] = yaml.safe_load((FOLDER / "alerts_test.yaml").read_text())
ALERTS: dict[str, dict[str, Any]] = {rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"]}


def outcome(folder: Path, rules: dict[str, Any], scenarios: dict[str, Any]) -> str:
    """Return what `promtool` says of rules that do not do what the scenarios say; nothing where they do. JSON is YAML."""
    (folder / "alerts.yaml").write_text(json.dumps(rules))
    (folder / "alerts_test.yaml").write_text(json.dumps(scenarios))
    try:
        done = promtool("test", "rules", "alerts_test.yaml", cwd=folder)
    except UnavailableError as reason:
        missing(reason)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def alone(alert: str, **changes: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return one alert alone, changed like this, and what the scenarios say of it."""
    tests = []
    for test in SCENARIOS["tests"]:
        expected = [
            {**each, "exp_samples": [sample for sample in each["exp_samples"] if alert in sample["labels"]]}
            for each in test["promql_expr_test"]
        ]
        tests.append({**test, "promql_expr_test": expected})
    return {"groups": [{"name": "one", "rules": [{**ALERTS[alert], **changes}]}]}, {**SCENARIOS, "tests": tests}


def test_the_rules_are_rules() -> None:
    try:
        checked = promtool("check", "rules", FOLDER / "alerts.yaml")
    except UnavailableError as reason:
        missing(reason)

    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_scenarios_come_out_as_they_say(tmp_path: Path) -> None:
    assert outcome(tmp_path, RULES, SCENARIOS) == ""


@pytest.mark.parametrize("alert", ALERTS)
def test_a_scenario_notices_an_alert_that_never_fires(tmp_path: Path, alert: str) -> None:
    assert outcome(tmp_path, *alone(alert)) == ""
    assert alert in outcome(tmp_path, *alone(alert, expr="absent(vector(1))"))


@pytest.mark.parametrize("alert", [name for name, rule in ALERTS.items() if "for" in rule])
def test_a_scenario_notices_an_alert_that_does_not_wait(tmp_path: Path, alert: str) -> None:
    assert alert in outcome(tmp_path, *alone(alert, **{"for": "0s"}))


@pytest.mark.parametrize(
    ("alert", "part", "other"),
    [
        ("ReloaderSourceStale", "> 300", ">= 0"),
        ("ReloaderSourceNeverRead", " unless reloader_source_age_seconds", ""),
        ("ReloaderReloadOwed", "absent|gone", "gone"),
        ("ReloaderReloadOwed", "|permission", ""),
        ("ReloaderPermissionDenied", 'reason="permission"', 'reason=~"permission|absent"'),
        ("ReloaderCertificateNearEnd", "0.04", "0.05"),
        ("ReloaderLeaseNearEnd", "and reloader_source_up == 0", ""),
        ("ReloaderLeaseNearEnd", "< 900", "< 3600"),
        ("ReloaderDown", "[1h]", "[1m]"),
        ("ReloaderDown", "and on (job, instance) present_over_time(reloader_build_info[1h])", ""),
    ],
)
def test_a_scenario_notices_a_changed_condition(tmp_path: Path, alert: str, part: str, other: str) -> None:
    assert part in ALERTS[alert]["expr"]

    assert alert in outcome(tmp_path, *alone(alert, expr=ALERTS[alert]["expr"].replace(part, other)))


def test_every_metric_of_a_rule_is_one_of_ours() -> None:
    metrics = Metrics(Status(Clock()), "1")
    ours = {f"{family.name}_total" if family.type == "counter" else family.name for family in metrics.registry.collect()}

    named = {name for rule in ALERTS.values() for name in re.findall(r"\breloader_\w+", rule["expr"])}
    assert named
    assert named <= ours


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_says_whom_it_is_about_and_names_commands_that_there_are(alert: str) -> None:
    texts = ALERTS[alert]["annotations"]
    said = f"{texts['summary']} {texts['description']}"
    commands = next(action.choices for action in cli._parser()._actions if action.choices)

    assert "{{ or $labels.pod $labels.instance }}" in said
    assert set(re.findall(r"`reloader ([a-z]+)", said)) <= set(commands)
    assert ALERTS[alert]["labels"]["severity"] in ("warning", "critical")


def test_every_alert_is_in_the_reference() -> None:
    section = (FOLDER.parents[1] / "docs" / "reference.md").read_text().partition("\n## Alerts\n")[2].partition("\n## ")[0]

    assert re.findall(r"^\| `(\w+)` \| (\w+) \|", section, re.MULTILINE) == [
        (name, rule["labels"]["severity"]) for name, rule in ALERTS.items()
    ]


SAMPLES = 160
"""Of a fleet's history: 40 minutes at 15 s."""
Series = list[float | None]
FRESH = {"source": 1.0, "age": 0.0, "owed": 0.0, "absent": 0.0, "permission": 0.0, "closed": 0.0, "configuration": 1.0}
METRICS = {
    "source": 'reloader_source_up{{instance="{pod}", pipeline="web", source="routes"}}',
    "age": 'reloader_source_age_seconds{{instance="{pod}", pipeline="web", source="routes"}}',
    "owed": 'reloader_reload_owed{{instance="{pod}", pipeline="web"}}',
    "absent": 'reloader_target_trouble{{instance="{pod}", pipeline="web", reason="absent"}}',
    "permission": 'reloader_target_trouble{{instance="{pod}", pipeline="web", reason="permission"}}',
    "closed": 'reloader_closed{{instance="{pod}", pipeline="web"}}',
    "configuration": 'reloader_config_reload_successful{{instance="{pod}"}}',
    "desired": 'reloader_generation{{instance="{pod}", pipeline="web", state="desired"}}',
    "published": 'reloader_generation{{instance="{pod}", pipeline="web", state="published"}}',
    "begins": 'reloader_certificate_not_before_timestamp_seconds{{instance="{pod}", pipeline="web"}}',
    "ends": 'reloader_certificate_expiry_timestamp_seconds{{instance="{pod}", pipeline="web"}}',
    "up": 'up{{instance="{pod}", job="web"}}',
    "build": 'reloader_build_info{{instance="{pod}", job="web", version="1"}}',
}


class Pod:
    """The history of one Pod, healthy until something is planted."""

    def __init__(self, name: str, rng: random.Random) -> None:
        self.name = name
        self._rng = rng
        self.series: dict[str, Series] = {metric: [value] * SAMPLES for metric, value in FRESH.items()}
        self.series |= {metric: [1.0] * SAMPLES for metric in ("desired", "published", "up", "build")}
        self._backend_restarts()
        self._configurations()
        self._changes()
        self._target_restarts()
        self._certificates()
        self._lives()

    def _windows(self, longest: int) -> list[range]:
        """Return some times that do not touch each other, none of them longer than that many samples."""
        found, at = [], self._rng.randrange(SAMPLES)
        while at < SAMPLES - longest - 1:
            found.append(range(at, at + self._rng.randint(1, longest)))
            at = found[-1].stop + self._rng.randint(2, SAMPLES)
        return found

    def _put(self, metric: str, window: range, value: float | None) -> None:
        for at in window:
            self.series[metric][at] = value

    def _backend_restarts(self) -> None:
        for window in self._windows(16):
            self._put("source", window, 0.0)
            for at in window:
                self.series["age"][at] = 15.0 * (at - window.start)

    def _configurations(self) -> None:
        for window in self._windows(16):
            self._put("configuration", window, 0.0)

    def _changes(self) -> None:
        """A change waits, or is refused and corrected; then its reload waits for its time and its proof, which come before the next one."""
        for window in self._windows(32):
            self._put("desired", range(window.start, SAMPLES), self.series["desired"][window.start - 1] + 1)
            self._put("published", range(window.stop, SAMPLES), self.series["desired"][window.start])
            self._put("owed", range(window.stop - 1, window.stop), 0.0)
            self._put("owed", range(window.stop, min(SAMPLES, window.stop + self._rng.randint(0, 30))), 1.0)

    def _target_restarts(self) -> None:
        for window in self._windows(SAMPLES // 3):
            self._put("owed", window, 1.0)
            self._put("absent", window, 1.0)
            self._put("owed", range(window.stop, window.stop + 1), 0.0)

    def _certificates(self) -> None:
        """One lives for an hour to a year, and its successor comes at 95 % of that at the latest."""
        life = self._rng.choice([3600, 86400, 32 * 86400, 365 * 86400])
        begins = -self._rng.uniform(0.0, 0.9) * life
        self.series["begins"], self.series["ends"] = [], []
        for at in range(SAMPLES):
            if 15 * at - begins > 0.95 * life:
                begins = 15.0 * at
            self.series["begins"].append(begins)
            self.series["ends"].append(begins + life)

    def _lives(self) -> None:
        """It starts, perhaps late in the hour, and perhaps it is replaced before the hour is over."""
        start = self._rng.choice([0, self._rng.randrange(SAMPLES // 2)])
        for name, value in (("age", None), ("source", 0.0), ("published", 0.0), ("closed", float(self._rng.random() < 0.5))):
            self._put(name, range(start, start + 3), value)
        end = self._rng.choice([SAMPLES, self._rng.randrange(SAMPLES // 2, SAMPLES)])
        for name in self.series:
            self._put(name, range(start), None)
            self._put(name, range(end, SAMPLES), None)

    def plant(self, cause: dict[str, Callable[[int], float | None]]) -> None:
        """Let something go wrong in its last 20 minutes, in which it is there."""
        fresh = Pod(self.name, random.Random(0))
        fresh.series = {metric: [value] * SAMPLES for metric, value in FRESH.items()}
        fresh.series |= {"begins": [0.0] * SAMPLES, "ends": [1e9] * SAMPLES, "up": [1.0] * SAMPLES, "build": [1.0] * SAMPLES}
        fresh.series |= {"desired": [9.0] * SAMPLES, "published": [9.0] * SAMPLES}
        for metric, value in cause.items():
            for at in range(SAMPLES - 80, SAMPLES):
                fresh.series[metric][at] = value(at - SAMPLES + 80)
        self.series = fresh.series

    def told(self) -> list[dict[str, str]]:
        """Return its series as `promtool` takes them."""
        return [
            {"series": METRICS[metric].format(pod=self.name), "values": " ".join(_sample(values, at) for at in range(SAMPLES))}
            for metric, values in self.series.items()
        ]


def _sample(values: Series, at: int) -> str:
    value = values[at]
    if value is not None:
        return f"{value:.3f}"
    return "stale" if at and values[at - 1] is not None else "_"


CAUSES: dict[str, dict[str, Callable[[int], float | None]]] = {
    "ReloaderSourceStale": {"source": lambda _: 0.0, "age": lambda at: 15.0 * at},
    "ReloaderSourceNeverRead": {"source": lambda _: 0.0, "age": lambda _: None},
    "ReloaderReloadOwed": {"owed": lambda _: 1.0},
    "ReloaderPermissionDenied": {"owed": lambda _: 1.0, "permission": lambda _: 1.0},
    "ReloaderChangeNotPublished": {"desired": lambda _: 10.0},
    "ReloaderConfigurationRefused": {"configuration": lambda _: 0.0},
    "ReloaderCertificateNearEnd": {"begins": lambda _: -100_000.0, "ends": lambda _: 3_000.0},
    "ReloaderCertificateEnded": {"begins": lambda _: -1000_000.0, "ends": lambda _: 1_200.0},
    "ReloaderClosed": {"closed": lambda _: 1.0},
    "ReloaderDown": {"up": lambda _: 0.0, "build": lambda _: None},
}


def scenario(name: str, pods: list[Pod], expected: dict[str, Any]) -> dict[str, Any]:
    series = [each for pod in pods for each in pod.told()]
    return {"name": name, "interval": "15s", "input_series": series, "promql_expr_test": [{"eval_time": "40m", **expected}]}


def test_nothing_fires_in_a_healthy_fleet(tmp_path: Path) -> None:
    """Pods that start, end, lose their backend or target for minutes, publish, are refused and corrected, at any times."""
    rng = random.Random(SEED)
    fleets = [[Pod(f"p{number}", rng) for number in range(4)] for _ in range(rounds(25, 150))]
    nothing = {"expr": 'count_over_time(ALERTS{alertstate="firing"}[40m])', "exp_samples": []}
    scenarios = [scenario(f"fleet {number}", pods, nothing) for number, pods in enumerate(fleets)]

    assert outcome(tmp_path, RULES, {**SCENARIOS, "tests": scenarios}) == ""


def test_every_alert_is_tried_in_a_fleet() -> None:
    """But for leases, which only some sources have."""
    assert set(CAUSES) == set(ALERTS) - {"ReloaderLeaseNearEnd"}


@pytest.mark.parametrize("alert", CAUSES)
def test_one_bad_pod_is_seen_among_good_ones_and_no_other_is_blamed(tmp_path: Path, alert: str) -> None:
    rng = random.Random(SEED)
    scenarios = []
    for number in range(rounds(2, 20)):
        pods = [Pod(f"p{each}", rng) for each in range(4)]
        bad = rng.choice(pods)
        bad.plant(CAUSES[alert])
        expression = f'sum by (alertname, instance) (ALERTS{{alertstate="firing", alertname!="{_also(alert)}"}})'
        expected = {"expr": expression, "exp_samples": [{"labels": f'{{alertname="{alert}", instance="{bad.name}"}}', "value": 1}]}
        scenarios.append(scenario(f"fleet {number}", pods, expected))

    assert outcome(tmp_path, RULES, {**SCENARIOS, "tests": scenarios}) == ""


def _also(alert: str) -> str:
    """Return the alert that is up as well."""
    return {"ReloaderCertificateEnded": "ReloaderCertificateNearEnd"}.get(alert, "none")
