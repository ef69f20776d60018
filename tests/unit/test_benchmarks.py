"""The benchmarks: what their document holds, on a run too short for its figures to mean anything."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import scenarios
from benchmarks.machine import Machine
from benchmarks.report import OURS, Result, Row, Skipped, document, table
from benchmarks.target import Maker

ROOT = Path(__file__).parents[2]
ROUNDS = 3


def benchmark(*arguments, env=None):
    command = [sys.executable, "-m", "benchmarks", "--rounds", str(ROUNDS), "--pause", "0.05", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, cwd=ROOT, env={**os.environ, **(env or {})}, check=False)


def measured(name, *arguments, **more):
    """Run one scenario; return the document and its only scenario."""
    done = benchmark(name, "--json", *arguments, **more)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    [scenario] = found["scenarios"]
    assert scenario["name"] == name
    return found, scenario


def rows(scenario, contender=OURS):
    return {row["measure"]: row for row in scenario["rows"] if row["contender"] == contender}


def test_swap_to_signal(tmp_path):
    """Each contender has its signals counted and timed, and is compared; the run says what it was made on."""
    found, scenario = measured("swap_to_signal", "--directory", tmp_path)
    ours, floor = rows(scenario), rows(scenario, "shell, looks every 1 s")
    assert ours["swap to signal"]["count"] == ROUNDS
    assert (
        0 < ours["swap to signal"]["min"] <= ours["swap to signal"]["p50"] <= ours["swap to signal"]["p99"] <= ours["swap to signal"]["max"]
    )
    assert {ours["signals per swap"][key] for key in ("min", "p50", "p99", "max")} == {1}
    assert ours["swap to signal"]["ratio"] is None
    assert floor["swap to signal"]["count"] == 1
    assert floor["swap to signal"]["ratio"] > 0
    assert found["schema"] == 1
    assert found["options"] == {"rounds": ROUNDS, "pause": 0.05}
    machine = found["machine"]
    assert machine["directory"] == str(tmp_path)
    assert machine["cores"] > 0
    assert all(machine[key] for key in ("kernel", "python", "file_system", "target"))
    assert list(tmp_path.iterdir()) == []


def test_swap_to_volume(tmp_path):
    """The new set is on the volume at each signal, and the sidecar's footprint is taken twice."""
    _, scenario = measured("swap_to_volume", "--directory", tmp_path)
    ours = rows(scenario)
    assert ours["swap to signal"]["count"] == ours["signals per swap"]["count"] == ROUNDS
    for when in ("after start", "after swaps"):
        assert ours[f"RSS {when}"]["p50"] >= ours[f"PSS {when}"]["p50"] > 0
        assert ours[f"anonymous {when}"]["unit"] == "MiB"
        assert ours[f"threads {when}"]["p50"] >= 1


@pytest.mark.servers
def test_key_to_volume(tmp_path):
    """One key of a real Consul server after the other is changed, and seen in the file."""
    _, scenario = measured("key_to_volume", "--directory", tmp_path)
    assert rows(scenario)["key to volume"]["count"] == ROUNDS
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_here_is_named():
    """A contender that is not on PATH is skipped with what it lacks, and an unknown scenario is refused with those there are."""
    done = benchmark("swaps")
    assert done.returncode == 2
    assert "swap_to_signal, swap_to_volume" in done.stderr
    result = Result("s", "about", [Row(OURS, "m", "ms", [1.0])], [Skipped("other", "no other on PATH")], 0.0, 0.0)
    assert "other: not measured, no other on PATH" in table(result)
    assert result.document()["skipped"] == [{"contender": "other", "reason": "no other on PATH"}]


def test_every_scenario_has_a_title():
    """The title of a scenario is the first line of its docstring."""
    for name in scenarios.names():
        assert (ROOT / "benchmarks/scenarios" / f"{name}.py").read_text().startswith('"""')


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
