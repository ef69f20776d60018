"""The wall clock is set by an hour under a whole sidecar: changes arrive, and what is compared or waited for is not touched by it.

What a file says of its time stays what it was when it was written, as on a machine whose clock is set.
"""

import os
import time
from pathlib import Path

import pytest

from tests.faults.conftest import MakePod
from tests.faults.pod import Pod
from tests.waiting import eventually

HOUR = 3600
STEPS = pytest.mark.parametrize("step", [-HOUR, HOUR], ids=["back", "forward"])


def restart_application(pod: Pod, ahead: float = 0) -> None:
    """Start it anew, on a machine whose clock is that far ahead."""
    pod.application.stop(kill=True)
    pod.start_application()
    written = time.time() + ahead
    os.utime(pod.pidfile, (written, written))


def confirmed_by_the_new_one(pod: Pod) -> bool:
    return [each["pid"] for each in pod.record()["confirmed"]["instances"]] == [pod.application.pid]


@STEPS
def test_a_step_while_it_runs_holds_nothing_up_and_signals_nobody_twice(step: int, make_pod: MakePod) -> None:
    """Who started before a publish is signalled, also by its pid file from before the step; who started after it is only verified."""
    pod = make_pod(min_interval="300ms").start()
    pod.control(wall=step)
    pod.swap(2)
    pod.arrived(2)
    state = pod.sidecar.pipeline()
    assert pod.signals == 2
    assert state["published_at"] == pytest.approx(time.time() + step, abs=60)
    assert state["last_reload_success_at"] == pytest.approx(time.time() + step, abs=60)

    restart_application(pod, step)
    eventually(lambda: confirmed_by_the_new_one(pod), what="the new process to be verified")
    assert pod.signals == 2
    pod.swap(3)
    pod.arrived(3)
    pod.control()
    pod.swap(4)
    pod.arrived(4)

    assert pod.signals == 4


@STEPS
def test_a_step_while_the_sidecar_is_down_holds_nothing_up_and_signals_nobody_twice(step: int, make_pod: MakePod) -> None:
    pod = make_pod(min_interval="300ms").start()
    pod.sidecar.stop()
    pod.control(wall=step)
    pod.swap(2)
    pod.sidecar.start()
    pod.arrived(2)
    assert pod.signals == 2

    pod.sidecar.stop(kill=True)
    pod.control()
    restart_application(pod)
    pod.sidecar.start()
    eventually(lambda: confirmed_by_the_new_one(pod), what="the new process to be verified")
    assert pod.signals == 2
    pod.swap(3)
    pod.arrived(3)

    assert pod.signals == 3


@STEPS
def test_ages_of_a_running_sidecar_do_not_jump(step: int, make_pod: MakePod) -> None:
    """A source that cannot be read is as old as it is, so a fail-closed pipeline serves on."""
    pod = make_pod(failure="{mode: closed, max_staleness: 5m}").start()
    pod.mounted.path.rename(pod.folder / "away")
    eventually(lambda: pod.sidecar.metric("reloader_source_up", source="site") == 0, what="the source to fail")
    pod.control(wall=step)
    eventually(lambda: 0 < pod.sidecar.metric("reloader_source_age_seconds", source="site") < 60, what="an age")
    state = pod.sidecar.pipeline()

    assert (state["ready"], state["closed"], state["sources"][0]["failure"] is not None) == (True, False, True)


def test_a_refused_set_is_not_held_for_an_hour_more_when_the_clock_is_set_back(make_pod: MakePod, tmp_path: Path) -> None:
    allowed = tmp_path / "allowed"
    allowed.touch()
    check = f"{{command: [test, -e, {allowed}]}}"
    pod = make_pod(volume=f"copy: site\n  check: {check}", failure="{retry_refused: 1s}").start()
    allowed.unlink()
    pod.swap(2)
    eventually(lambda: pod.sidecar.pipeline()["rejected"], what="the set to be refused")
    pod.control(wall=-HOUR)
    allowed.touch()
    pod.arrived(2)

    assert pod.signals == 2
