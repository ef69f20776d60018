"""The checks as a whole: their ids are documented, one that breaks holds up no other, and each place has mends of its own."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from reloader import doctor, settings
from reloader.doctor import CHECKS, Machine, Patient, Place, State
from reloader.doctor.checks import Check, failed, ok, skipped, warning
from reloader.doctor.finding import Evidence, Finding, Mend

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "docs/doctor.schema.json").read_text())
ROOT_MOUNT = "1 0 0:50 / / rw,relatime - overlay overlay rw"
FOUND = (
    ok("right", "web"),
    skipped("not looked at"),
    skipped("not looked at"),
    failed(
        "wrong",
        "web",
        evidence=[Evidence("/proc/1/status", "Uid 0")],
        mends=[Mend("pod", "the Pod", "spec:\n  a: 1\n"), Mend("words", "x", "y\n")],
    ),
    warning("could be better"),
)


def test_every_check_is_in_the_reference():
    page = (ROOT / "docs/reference.md").read_text(encoding="utf-8")
    section = page.partition("### What the doctor looks at\n")[2].partition("\n### ")[0]
    assert re.findall(r"^\| `([a-z.]+)` \| (.+) \|$", section, re.MULTILINE) == [(check.id, check.about) for check in CHECKS]


def test_ids_are_unique_and_have_the_form_of_the_schema():
    ids = [check.id for check in CHECKS]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(SCHEMA["$defs"]["finding"]["properties"]["check"]["pattern"], each) for each in ids)


def test_a_check_that_breaks_is_a_finding_without_the_text_of_its_error(monkeypatch: pytest.MonkeyPatch):
    """The text may quote a value."""

    def breaks(_patient: Patient) -> Iterable[Finding]:
        raise RuntimeError("canary-in-an-error")

    monkeypatch.setattr(doctor, "CHECKS", (Check("a.breaks", "", breaks), Check("a.works", "", lambda _: [ok("fine")])))
    first, second = doctor.examine(Patient())

    assert (first.check, first.state) == ("a.breaks", State.FAILED)
    assert "RuntimeError, test_doctor_checks.py line" in first.told
    assert "canary" not in first.told
    assert (second.check, second.state) == ("a.works", State.OK)


def test_the_document_fits_its_schema():
    findings = [Finding(**{**vars(each), "check": "a.b"}) for each in FOUND]
    made = doctor.document(Patient(machine=Machine(Path("/nowhere"), {})), findings)

    jsonschema.validate(json.loads(json.dumps(made)), SCHEMA)
    assert made["worst"] == "failed"
    assert made["place"]["kind"] == "host"


def lines(*, colour: bool) -> list[str]:
    findings = [Finding(**{**vars(each), "check": f"a.{number}"}) for number, each in enumerate(FOUND)]
    return "\n".join(doctor.lines(Patient(machine=Machine(Path("/nowhere"), {})), findings, colour=colour)).splitlines()


def test_a_person_reads_what_is_wrong_last_with_what_mends_it():
    """And each reason for looking away once."""
    assert lines(colour=False) == [
        "This is a host (/proc: nothing of a Pod or a container is to be seen).",
        "skipped  not looked at:",
        "         a.1, a.2",
        "ok       a.0  web: right",
        "warning  a.4  could be better",
        "FAILED   a.3  web: wrong",
        "         seen in /proc/1/status: Uid 0",
        "         mend (pod), the Pod:",
        "             spec:",
        "               a: 1",
        "         or (words), x:",
        "             y",
        "1 failed, 1 warning, 2 skipped, 1 ok",
    ]


def test_colour_is_for_terminals():
    assert not any("\x1b" in line for line in lines(colour=False))
    assert any(line.startswith("\x1b[31mFAILED \x1b[0m  a.3") for line in lines(colour=True))


@pytest.mark.parametrize("states", [(), ("ok",), ("ok", "skipped"), ("ok", "warning", "skipped"), ("failed", "warning", "ok")])
def test_the_worst_state_is_the_last_of_the_order(states: tuple[str, ...]):
    order = ("ok", "skipped", "warning", "failed")
    assert doctor.worst([Finding(state=State(each), told="") for each in states]) == max(states, key=order.index, default="ok")


# The same thing is mended otherwise in another place


def patient(folder: Path, marks: Iterable[str], **environ: str) -> Patient:
    """Return one whose container has a writable root and shows no process but its own."""
    root, stat = folder / "root", f"1 (python) S {'0 ' * 48}"
    first = {"stat": stat, "comm": "python", "cmdline": "python\0app.py\0", "status": "Uid:\t0\t0\t0\t0\n", "cgroup": "0::/"}
    files = {"proc/self/mountinfo": ROOT_MOUNT, "proc/self/cgroup": "0::/", **{f"proc/1/{name}": text for name, text in first.items()}}
    for name, text in {**files, **dict.fromkeys(marks, "")}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    file = folder / "web.yaml"
    volume = f"{{path: {folder}/live, files: {{a: {{content: x}}}}}}"
    file.write_text(f"sources: {{s: {{kind: env, names: [A]}}}}\nvolume: {volume}\ntarget: {{match: {{name: nginx}}}}\n")
    plan = settings.load([file], {})
    return Patient(plan=plan, files={"web": file}, machine=Machine(root, environ))


def mended(examined: Patient, check: str) -> list[tuple[str, Any]]:
    looked = next(each for each in CHECKS if each.id == check)
    (found,) = looked.look(examined)
    return [(mend.kind, yaml.safe_load(mend.text) if mend.kind in ("pod", "compose") else mend.text) for mend in found.mends]


def test_in_a_pod_the_pod_is_mended(tmp_path: Path):
    examined = patient(tmp_path, (), KUBERNETES_SERVICE_HOST="10.0.0.1")
    assert examined.place is Place.POD
    assert mended(examined, "process.namespace") == [("pod", {"spec": {"shareProcessNamespace": True}})]
    assert mended(examined, "container.root") == [
        ("pod", {"spec": {"containers": [{"name": "reloader", "securityContext": {"readOnlyRootFilesystem": True}}]}})
    ]


def test_in_compose_the_service_is_mended(tmp_path: Path):
    examined = patient(tmp_path, (".dockerenv",))
    assert examined.place is Place.CONTAINER
    assert mended(examined, "process.namespace") == [("compose", {"services": {"reloader": {"pid": "service:app"}}})]
    assert mended(examined, "container.root") == [("compose", {"services": {"reloader": {"read_only": True}}})]


def test_on_a_laptop_neither_is_a_mistake(tmp_path: Path):
    """All processes of a host are seen, and its root is its own affair."""
    examined, asked = patient(tmp_path, ()), ("process.namespace", "container.root")
    looked = {check.id: [found.state for found in check.look(examined)] for check in CHECKS if check.id in asked}

    assert examined.place is Place.HOST
    assert looked == {"process.namespace": [State.OK], "container.root": [State.SKIPPED]}


def test_a_secret_in_the_environment_of_a_patient_is_not_shown(tmp_path: Path):
    assert "canary" not in repr(patient(tmp_path, (), VAULT_TOKEN="canary"))
