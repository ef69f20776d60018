"""The benchmarks: every scenario runs, in a form too short for its figures to mean anything, and says what it is to say."""

import json
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from benchmarks import scenarios
from benchmarks.changes import NeverUp
from benchmarks.contenders import Contender, each
from benchmarks.goals import GOALS, Goal
from benchmarks.machine import Machine
from benchmarks.report import OURS, Result, Row, Skipped, document, table
from benchmarks.target import Maker

ROOT = Path(__file__).parents[2]
OF_FILES = ("many_files", "many_reloads", "quiet_files", "swap_to_signal", "swap_to_volume")
OF_CONSUL = ("key_to_volume", "large_prefix", "put_to_signal")
OF_VAULT = ("quiet_servers", "requests_per_hour", "start_to_published", "write_to_signal")


def benchmark(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *map(str, arguments)], capture_output=True, text=True, timeout=110, cwd=ROOT, check=False
    )


def quickly(folder, *names):
    """Run scenarios in their quick form; return the document, and each of them by its name."""
    work, written = folder / "work", folder / "found.json"
    work.mkdir()
    only = [word for name in names for word in ("--only", name)]
    done = benchmark("--quick", *only, "--directory", work, "--json", written)
    assert done.returncode == 0, done.stderr
    found = json.loads(written.read_text())
    by_name = {scenario["name"]: scenario for scenario in found["scenarios"]}
    assert tuple(by_name) == names
    assert list(work.iterdir()) == []
    for name, scenario in by_name.items():
        assert f"\n{name}: {scenario['about']}\n" in done.stdout
        judged = {row["measure"] for row in scenario["rows"] if row["goals"]}
        assert judged == {measure for judged_scenario, measure in GOALS if judged_scenario == name}
    return found, by_name


def rows(scenario, contender=OURS):
    return {row["measure"]: row for row in scenario["rows"] if row["contender"] == contender}


def test_scenarios_of_files(tmp_path):
    """Swaps are timed and their signals counted, sets and reloads too, and the run says what it was made on."""
    found, by_name = quickly(tmp_path, *OF_FILES)
    swaps = by_name["swap_to_signal"]
    assert (
        rows(swaps)["swap to signal"]["count"] == rows(by_name["swap_to_volume"])["swap to signal"]["count"] == found["options"]["rounds"]
    )
    assert {rows(swaps)["signals per swap"][figure] for figure in ("min", "p50", "p99", "max")} == {1}
    assert [goal["met"] for goal in rows(swaps)["signals per swap"]["goals"]] == [True, True]
    assert rows(swaps)["swap to signal"]["ratio"] is None
    floor = rows(swaps, "shell, looks every 1 s")["swap to signal"]
    assert (floor["count"], floor["goals"]) == (1, [])
    assert floor["ratio"] > 0
    assert rows(by_name["many_files"])["files missing from a new set"]["max"] == 0
    assert rows(by_name["many_reloads"])["changes without a signal"]["p50"] == 0
    assert rows(by_name["quiet_files"])["RSS"]["p50"] >= rows(by_name["quiet_files"])["PSS"]["p50"] > 0
    assert rows(by_name["quiet_files"])["CPU"]["unit"] == "% of a core"
    machine = found["machine"]
    assert machine["directory"] == str(tmp_path / "work")
    assert machine["cores"] > 0
    assert all(machine[key] for key in ("kernel", "python", "file_system", "target"))
    assert (found["schema"], found["options"]["quick"]) == (2, True)


@pytest.mark.servers
def test_scenarios_of_consul(tmp_path):
    """Puts are timed, of one key, of one among many, of one below a prefix."""
    found, by_name = quickly(tmp_path, *OF_CONSUL)
    assert rows(by_name["key_to_volume"])["key to volume"]["count"] == found["options"]["rounds"]
    assert rows(by_name["put_to_signal"])["put to signal"]["count"] == found["options"]["rounds"]
    assert rows(by_name["put_to_signal"], "a bare blocking query")["put to signal"]["count"] == found["options"]["rounds"]
    assert rows(by_name["large_prefix"])["signals per put"]["p50"] == 1
    assert rows(by_name["large_prefix"])["RSS"]["p50"] > 0


@pytest.mark.servers
def test_scenarios_of_vault(tmp_path):
    """Writes are timed beside OpenBao's agent, and what both ask the server is counted."""
    found, by_name = quickly(tmp_path, *OF_VAULT)
    for contender in (OURS, "bao agent"):
        assert rows(by_name["write_to_signal"], contender)["write to signal"]["count"] == found["options"]["polled"]
        assert rows(by_name["write_to_signal"], contender)["reads per interval"]["p50"] > 0
        assert rows(by_name["start_to_published"], contender)["start to published"]["p50"] > 0
    assert set(rows(by_name["requests_per_hour"])) == {"requests to Consul", "requests to Vault"}
    assert rows(by_name["quiet_servers"], "bao agent (Vault only)")["RSS"]["p50"] > 0


def test_what_is_not_here_is_named():
    """A contender that is not on PATH is skipped with what it lacks, and an unknown scenario is refused with those there are."""
    done = benchmark("--only", "swaps")
    assert done.returncode == 2
    assert "swap_to_signal" in done.stderr
    result = Result("s", "about", [Row(OURS, "m", "ms", [1.0])], [Skipped("other", "no other on PATH")], 0.0, 0.0)
    assert "other: not measured, no other on PATH" in table(result)
    assert result.document()["skipped"] == [{"contender": "other", "reason": "no other on PATH"}]


@pytest.mark.parametrize("problem", [NeverUp("no signal"), TimeoutError("nothing rendered")])
def test_one_that_does_not_come_up_is_named_and_the_others_are_measured(problem):
    """A contender that is here, but does not do what it is measured for, ends its own measurement alone."""

    def measure(contender):
        if contender.name == "idle":
            raise problem
        yield Row(contender.name, "m", "ms", [1.0])

    contenders = [Contender(name, nullcontext) for name in ("idle", "busy")]
    assert list(each(contenders, measure)) == [Skipped("idle", str(problem)), Row("busy", "m", "ms", [1.0])]


def test_every_scenario_is_run_here():
    """No scenario is left out of these tests."""
    assert sorted((*OF_FILES, *OF_CONSUL, *OF_VAULT)) == scenarios.names()


def test_goals():
    """A goal is met by the figure that it is about; a row without a value meets none, and only our rows are judged."""
    most, least = Goal("p50", 2), Goal("min", 1, least=True)
    assert most.is_met({"p50": 2})
    assert not most.is_met({"p50": 2.1})
    assert least.is_met({"min": 1})
    assert not least.is_met({"min": 0})
    assert not most.is_met({"p50": None})
    slow = [Row(name, "swap to signal", "ms", [1.0, 1.0, 9.0]) for name in (OURS, "other")]
    lines = table(Result("swap_to_signal", "about", slow, [], 0.0, 0.0)).splitlines()
    assert [line.endswith("p50 ≤ 2, p99 ≤ 8  not met: p99") for line in lines[2:4]] == [True, False]


def test_figures():
    """Medians, nearest ranks and ratios; a round without a value is none, and no division by nothing."""
    values = [float(number) for number in range(1, 301)]
    result = Result(
        "s",
        "a",
        [Row(OURS, "m", "ms", values), Row("b", "m", "ms", [301.0]), Row("b", "other", "", []), Row(OURS, "other", "", [])],
        [],
        0,
        0,
    )
    ours, other, nothing, _ = result.document()["rows"]
    assert (ours["count"], ours["min"], ours["p50"], ours["p99"], ours["max"]) == (300, 1, 150.5, 297, 300)
    assert other["ratio"] == 2
    assert (nothing["count"], nothing["p50"], nothing["ratio"]) == (0, None, None)
    assert "301" in table(result)
    machine = Machine.look(ROOT, "C")
    assert json.loads(json.dumps(document(machine, {}, [result])))["scenarios"][0]["rows"][0]["p50"] == 150.5


@pytest.mark.parametrize("compiler", [True, False], ids=["C", "Python"])
def test_target_stamps_each_signal(tmp_path, monkeypatch, compiler):
    """The signalled program tells when a signal came, whichever language it is in, and is gone with its test."""
    if not compiler:
        monkeypatch.setenv("PATH", str(tmp_path))
    maker = Maker(tmp_path)
    with maker.started() as target:
        assert Path(f"/proc/{target.pid}/comm").read_text().strip() == target.name
        for _ in range(3):
            os.kill(target.pid, 1)
            assert len(target.signals(10)) == 1
        os.kill(target.pid, 9)
        with pytest.raises(RuntimeError, match="ended"):
            target.signals(10)
    if not compiler:
        assert maker.language == "Python"
