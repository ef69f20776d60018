"""The metrics of a real sidecar, as a real Prometheus reads them."""

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.app import App, Starts, process
from tests.e2e.sidecar import Sidecar
from tests.servers import UnavailableError, missing, running
from tests.servers.certificates import Authority
from tests.servers.consul import Consul
from tests.servers.prometheus import Prometheus, promtool
from tests.targets.started import Starter, unique
from tests.waiting import eventually

pytestmark = pytest.mark.servers

TYPES = {
    "reloader_reloads_total": "counter",
    "reloader_reloads_failed_total": "counter",
    "reloader_last_reload_successful": "gauge",
    "reloader_last_reload_success_timestamp_seconds": "gauge",
    "reloader_source_up": "gauge",
    "reloader_source_age_seconds": "gauge",
    "reloader_source_errors_total": "counter",
    "reloader_generation": "gauge",
    "reloader_reload_owed": "gauge",
    "reloader_target_trouble": "gauge",
    "reloader_signal_failures_total": "counter",
    "reloader_refusals_total": "counter",
    "reloader_rollbacks_total": "counter",
    "reloader_closed": "gauge",
    "reloader_stage_duration_seconds": "histogram",
    "reloader_lease_expiry_timestamp_seconds": "gauge",
    "reloader_certificate_expiry_timestamp_seconds": "gauge",
    "reloader_certificate_not_before_timestamp_seconds": "gauge",
    "reloader_watch_mode": "gauge",
    "reloader_config_reload_successful": "gauge",
    "reloader_build_info": "gauge",
}


@pytest.fixture
def app(tmp_path: Path, start: Starter) -> App:
    """A pipeline that lays out a certificate for a process, and has reloaded that once it is settled on its second set."""
    name = unique()
    start.target(name)
    app = App(tmp_path)
    certificate, _ = Authority(tmp_path / "authority").issue("web")
    app.say(certificate.read_text())
    app.write(target=process(name))
    return app


def series(sidecar: Sidecar, label: str) -> set[str]:
    """Return every value of a label in what the sidecar exports."""
    families = text_string_to_metric_families(sidecar.get("/metrics").text)
    return {sample.labels[label] for family in families for sample in family.samples if label in sample.labels}


def reloaded(app: App, sidecar: Sidecar) -> None:
    eventually(sidecar.settled, what="the first set")
    before = sidecar.metric("reloader_reloads_total")
    app.say(f"changed\n{app.published()}")
    eventually(lambda: sidecar.metric("reloader_reloads_total") == before + 1 and sidecar.settled(), what="a reload")


def test_promtool_has_nothing_to_say_of_what_a_sidecar_exports(app: App, sidecar: Starts) -> None:
    runs = sidecar(app.file)
    reloaded(app, runs)
    try:
        checked = promtool("check", "metrics", text=runs.get("/metrics").text)
    except UnavailableError as reason:
        missing(reason)

    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_prometheus_reads_what_the_status_says(tmp_path: Path, app: App, sidecar: Starts) -> None:
    """Types and help texts too; the values while nothing changes, so that both are of one moment."""
    runs = sidecar(app.file)
    reloaded(app, runs)
    with running(lambda: Prometheus(tmp_path / "prometheus", {"here": runs.port}, "groups: []\n")) as prometheus:
        eventually(lambda: prometheus.metadata().keys() >= TYPES.keys(), what="a scrape")
        told = prometheus.metadata()
        assert {name: each["type"] for name, each in told.items() if name in TYPES} == TYPES
        assert all(told[name]["help"] for name in TYPES)

        def value(expression: str) -> float:
            (sample,) = eventually(lambda: prometheus.query(expression), what=expression)
            return float(sample["value"][1])

        pipeline = runs.pipeline()
        (source,) = pipeline["sources"]
        for state, number in pipeline["generations"].items():
            assert value(f'reloader_generation{{instance="here", pipeline="app", state="{state}"}}') == number == 2
        assert value("reloader_reload_owed") == float(bool(pipeline["owed"])) == 0
        assert value("reloader_closed") == float(pipeline["closed"]) == 0
        assert value("reloader_last_reload_successful") == float(pipeline["last_reload_successful"]) == 1
        assert value("reloader_last_reload_success_timestamp_seconds") == pytest.approx(pipeline["last_reload_success_at"], abs=0.01)
        assert value("reloader_certificate_expiry_timestamp_seconds") == pipeline["certificate_expires_at"] > 1e9
        assert value('reloader_source_up{source="site"}') == float(source["up"]) == 1
        assert value('reloader_source_age_seconds{source="site"}') == source["age_seconds"] == 0
        assert value("sum(reloader_target_trouble)") == 0
        assert value("reloader_config_reload_successful") == 1


def test_what_the_configuration_does_not_name_any_more_has_no_series(tmp_path: Path, sidecar: Starts) -> None:
    """A sidecar that lives long through many configurations exports as much as one that has just started."""
    app, other = App(tmp_path), App(tmp_path, "other")
    other.write(reads="{kind: files, path: /nowhere/else.txt}", content="x")
    folder = tmp_path / "configurations"
    folder.mkdir()
    app.file, other.file = app.file.rename(folder / "app.yaml"), other.file.rename(folder / "other.yaml")
    runs = sidecar(folder)
    eventually(lambda: runs.settled("app"), what="the first set")
    eventually(lambda: runs.metric("reloader_source_errors_total", pipeline="other", reason="refused") >= 1, what="an error")

    other.file.unlink()
    app.write(sources=f"{{renamed: {{kind: files, path: {app.site.path}}}}}", content="{{ renamed['text'] }}")

    eventually(lambda: series(runs, "pipeline") == {"app"}, what="the end of a pipeline")
    eventually(lambda: series(runs, "source") == {"renamed"}, what="the end of a source")
    assert runs.metric("reloader_stage_duration_seconds_count", pipeline="app", stage="render") >= 1


def test_the_directories_of_templates_are_one_source_without_a_path(tmp_path: Path, sidecar: Starts) -> None:
    app = App(tmp_path)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "app.j2").write_text(name)
    files = ", ".join(f"{name}: {{template: {tmp_path / name / 'app.j2'}}}" for name in ("one", "two"))
    app.write(volume=f"{{path: {app.live}, files: {{{files}}}}}")
    runs = sidecar(app.file)
    eventually(runs.settled, what="the first set")

    assert series(runs, "source") == {"site", "templates"}
    assert runs.metric("reloader_source_up", source="templates") == 1


def test_an_age_goes_on_over_a_restart_beside_a_dead_backend(tmp_path: Path, own_consul: Consul, sidecar: Starts) -> None:
    app = App(tmp_path)
    own_consul.put("greeting", "hello")
    app.write(consul=f"{{address: {own_consul.address}}}", reads="{kind: consul, key: greeting}", content="{{ site }}")
    runs = sidecar(app.file)
    eventually(runs.settled, what="the first set")
    own_consul.stop(kill=True)
    eventually(lambda: runs.metric("reloader_source_age_seconds") > 1, what="an age")
    runs.stop()
    runs.start()

    eventually(lambda: runs.metric("reloader_source_age_seconds") > 1.5, what="the age of an earlier run")
    assert runs.metric("reloader_source_up") == 0
    assert runs.pipeline()["sources"][0]["age_seconds"] > 1.5


def test_a_certificate_that_the_target_reads_itself_is_known_too(tmp_path: Path, start: Starter, sidecar: Starts) -> None:
    """Without a volume, and again after a restart, by which nothing changed."""
    app, name = App(tmp_path), unique()
    start.target(name)
    certificate, _ = Authority(tmp_path / "authority").issue("web")
    app.site.swap({"tls.crt": certificate.read_bytes(), "other": "plain"})
    arguments = ("--watch", str(app.site.path), "--process", name)
    runs = sidecar(*arguments, RELOADER_STATE__PATH=str(tmp_path / "state"))
    known = eventually(lambda: runs.metric("reloader_certificate_expiry_timestamp_seconds"), what="the end of the certificate")
    runs.stop()
    runs.start()

    eventually(lambda: runs.metric("reloader_certificate_expiry_timestamp_seconds") == known, what="the same after a restart")
