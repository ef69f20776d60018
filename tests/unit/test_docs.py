"""The documents say what is so: their commands run, their configurations load, their tables are those of the program."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import pytest

from reloader import cli, settings
from reloader.plan import Pipeline
from reloader.policy import Effect, verdict
from reloader.render import FILTERS, Renderer
from reloader.server import Endpoints
from reloader.status import Metrics, PipelineReport, SourceReport, Status
from reloader.world.clock import Clock
from tests.e2e.sidecar import reloader
from tests.servers.daemon import Daemon
from tests.unit.test_policy import TABLE, in_mode

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path
    for path in (
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("examples/**/*.md"),
        *ROOT.glob("deploy/**/*.md"),
        *ROOT.glob("benchmarks/*.md"),
    )
)
HOSTS = {"github.com", "jinja.palletsprojects.com", "keepachangelog.com", "semver.org"}
"""All that the documents link to."""


@dataclass(frozen=True)
class Block:
    """A fenced block; `title` says where a reader is to save it, or what it is here."""

    document: Path
    language: str
    fragment: bool
    title: str
    text: str


def blocks(*documents: Path) -> Iterator[Block]:
    for document in documents:
        for info, text in re.findall(r"^```(\w.*?)\n(.*?)^```$", document.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
            language, *words = info.split()
            title = next((word.removeprefix("title=") for word in words if word.startswith("title=")), "")
            yield Block(document, language, "fragment" in words, title, text)


def titled(document: str, title: str, number: int = 0) -> str:
    return [block.text for block in blocks(ROOT / document) if block.title == title][number]


def section(document: str, title: str) -> str:
    parts = re.split(r"^##+ (.+)$", (ROOT / document).read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))[title]


def rows(text: str) -> list[list[str]]:
    """Return the cells of a table's body."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def saved(folder: Path, *found: Block) -> list[Path]:
    """Save blocks where a reader would, but below `folder`: their own paths are changed to it."""
    paths = [folder / block.title.lstrip("/") for block in found]
    for path, block in zip(paths, found, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(re.sub(r"(?<![\w/.])/(tmp/try|etc/reloader)\b", rf"{folder}/\1", block.text))
    return paths


def test_the_readme_has_its_two_commands():
    shell = [line for block in blocks(ROOT / "README.md") if block.language == "sh" for line in block.text.splitlines()]
    demo = "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/reloader demo"
    tests = ".venv/bin/pip install -e '.[test]' && .venv/bin/pytest -n 4 --dist worksteal"

    assert [line for line in shell if ".venv/bin/reloader demo" in line] == [demo]
    assert [line for line in shell if ".venv/bin/pytest" in line] == [tests]


def test_the_demo_prints_what_the_readme_shows():
    shown, printed = titled("README.md", "demo"), reloader("demo").stdout

    def without_numbers(text: str) -> str:
        return re.sub(r"reloader-demo-\w+|[\d.]+ (?=m?s )", "#", re.sub("^ +", "", text, flags=re.MULTILINE))

    assert without_numbers(printed) == without_numbers(shown)


@pytest.mark.parametrize("line", [line for block in blocks(*DOCUMENTS) if block.language == "sh" for line in block.text.splitlines()])
def test_every_command_of_ours_is_one(line: str):
    """Each call of `reloader` in a shell block is accepted by the command line's own parser."""
    for arguments in re.findall(r"(?:^|&& | -- )(?:\.venv/bin/)?reloader ([^&#]*)", line):
        assert cli._parser().parse_args(arguments.split()).command


CONFIGURATIONS = [
    block for block in blocks(ROOT / "README.md", *ROOT.glob("docs/**/*.md")) if block.language == "yaml" and not block.fragment
]


@pytest.mark.parametrize("block", CONFIGURATIONS, ids=lambda block: f"{block.document.name}:{block.title}")
def test_every_configuration_is_accepted(block: Block, tmp_path: Path):
    (path,) = saved(tmp_path, block)
    saved(tmp_path, *(other for other in blocks(block.document) if other.language == "jinja"))

    assert settings.load([path], {}).pipelines


@pytest.fixture
def web(tmp_path: Path) -> Pipeline:
    """The pipeline of the README that has NGINX, Consul and Vault."""
    found = [block for block in blocks(ROOT / "README.md") if block.title.startswith("/etc/reloader/")]
    (path, _template) = saved(tmp_path, *found)
    return settings.load([path], {}).pipelines[0]


@pytest.mark.parametrize(
    ("instances", "upstream"), [([{"address": "10.0.0.7", "port": 8080}], "server 10.0.0.7:8080;"), ([], "server 127.0.0.1:9 down;")]
)
def test_the_template_of_the_readme_renders(web: Pipeline, instances: list[dict[str, object]], upstream: str):
    values = {
        "routes": {"hello": "hi"},
        "web": instances,
        "tls": {"certificate": "C", "private_key": "K", "issuing_ca": "A"},
        "site": {"greeting": "good morning\n"},
    }
    renderer = Renderer(web.volume)
    (directory,) = renderer.template_directories
    templates = {directory: {"nginx.conf.j2": (Path(directory) / "nginx.conf.j2").read_text()}}

    rendered = renderer.render(values, templates, "/etc/nginx/live/..7")
    lines = [line.strip() for line in rendered["nginx.conf"].data.decode().splitlines()]

    assert {upstream, "ssl_certificate /etc/nginx/live/..7/tls.crt;", 'location /hello { return 200 "hi"; }'} <= set(lines)
    assert 'add_header X-Greeting "good morning" always;' in lines


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Callable[[str], Daemon]]:
    """Makes daemons, and ends them."""
    made: list[Daemon] = []
    yield lambda name: made.append(Daemon(tmp_path / f"{name}.log", death_signal="TERM")) or made[-1]
    for each in made:
        each.stop()


WORDS = {"ready": Effect.SERVE, "ready, degraded": Effect.DEGRADED, "not ready": Effect.NOT_READY, "**closed**": Effect.CLOSED}
SITUATIONS = {
    "all is well": ["all is well"],
    "at the start, nothing is published yet, within `startup_grace`": ["starting, nothing ever published, within startup_grace"],
    "the same, `startup_grace` is over": ["the same, grace over"],
    "the same, because a check or the target refused the first set of all": ["the same, the first set was refused"],
    "`failure.fallback` is published, because nothing else ever was": ["the fallback is published"],
    "the same, and a check or the target refused the first set of all": ["the fallback is published, the first set was refused"],
    "it closed before and withdrew what was published, and nothing good came since": ["closed before, nothing published since"],
    "at the start, a set of an earlier run is there, its sources younger than `max_staleness`": [
        "starting, a young generation is there from an earlier run"
    ],
    "the same, a source older": ["starting, an old generation is there from an earlier run", "one source of several is old"],
    "a source cannot be read or is refused, its value younger than `max_staleness`": [
        "source unreachable, last good younger than max_staleness",
        "source never current, max_staleness never",
    ],
    "the same, older": ["source unreachable, older"],
    "the lease or the certificate of a source has run out": ["a lease has run out"],
    "rendering or the check rejects new content; what is published stays": [
        "content rejected, waiting",
        "content rejected, waited max_staleness",
    ],
    "the volume, or its record alone, cannot be written (full, read-only, something foreign in the way)": [
        "volume cannot be written, waiting",
        "volume cannot be written, waited max_staleness",
    ],
    "the target refuses a set; the one before is back on the volume, and confirmed": [
        "the target refused a set, and the one before is back",
        "content rejected, waited max_staleness",
    ],
    "the target refuses what is published, and there is nothing good to go back to": [
        "the target refuses what is published, and there is nothing to go back to"
    ],
    "a person put an earlier generation back": ["a person put an earlier generation back"],
    "at the start, the volume is read-only, or its record cannot be read, as after a change of the UID; what is published stays": [
        "the record on the volume cannot be read",
        "the same, for max_staleness",
    ],
    "the target does not run": ["target absent"],
    "a reload is under way": ["reload owed, nothing wrong"],
    "the target cannot be told from others, may not be signalled, ignores the signal, or does not confirm": [
        "target there but troubled, within the grace",
        "target there but troubled, after it",
    ],
}
"""The rows of the policy's own test that a row of the README stands for, in order of time."""


def effects(cell: str, count: int) -> list[Effect]:
    """Return what a cell says of each moment: one word for all, or the first and, after the semicolon, the last."""
    said = [WORDS[re.match(r"\*\*closed\*\*|not ready|ready(, degraded)?", part.strip())[0]] for part in cell.split(";")]
    return said * count if len(said) == 1 else said


@pytest.mark.parametrize("row", rows(section("README.md", "When something fails")), ids=lambda row: row[0])
def test_the_failure_table_is_what_the_policy_says(row: list[str]):
    situation, when_open, when_closed = row
    cases = [TABLE[name][0] for name in SITUATIONS[situation]]

    for mode, cell in (("open", when_open), ("closed", when_closed)):
        assert effects(cell, len(cases)) == [verdict(in_mode(facts, mode)).effect for facts in cases]


def test_the_failure_table_is_whole():
    assert {row[0] for row in rows(section("README.md", "When something fails"))} == set(SITUATIONS)
    assert {name for names in SITUATIONS.values() for name in names} == set(TABLE)


def test_every_command_is_in_the_reference():
    choices = next(action.choices for action in cli._parser()._actions if action.choices)
    text = section("docs/reference.md", "Commands")

    assert [row[0] for row in rows(text)] == [f"`reloader {name}`" for name in choices]
    options = {option for parser in choices.values() for action in parser._actions for option in action.option_strings}
    assert options - {"-h"} == set(re.findall(r"`(?:\w+ )?(--[\w-]+)", text)) - {"--version"}


def test_every_exit_status_is_in_the_reference():
    said = [row[0] for row in rows(section("docs/reference.md", "Exit statuses"))]
    assert said == [str(status) for status in (cli.DONE, cli.FAILED, cli.MISCONFIGURED, cli.LOCKED)]


REPORT = PipelineReport(
    name="web",
    mode="open",
    last_reload_successful=True,
    last_success=1.0,
    certified=2.0,
    certified_from=1.0,
    sources=(SourceReport(name="a", kind="files", up=True, current_until=0.0, expires=1.0),),
)


@pytest.fixture
def status() -> Status:
    status = Status(Clock())
    status.put(replace(REPORT, ready=True, started=True))
    return status


def test_every_endpoint_is_in_the_reference(status: Status):
    endpoints = Endpoints(status, Metrics(status, "1"), "all")
    paths = [row[0].strip("`") for row in rows(section("docs/reference.md", "Endpoints"))]

    assert [path for path in paths if endpoints.answer(path.replace("NAME", "web"), "127.0.0.1").status != 200] == []
    there_are = endpoints.answer("/nothing", "127.0.0.1").body.decode().partition("there are ")[2].strip()
    assert set(paths) == {*there_are.split(", "), "/readyz/NAME"}


def test_every_metric_is_in_the_reference(status: Status):
    metrics = Metrics(status, "1", lambda: [("/site", "inotify")])
    metrics.introduce("web")
    for what, labels in (("source_errors", {"source": "a"}), ("signal_failures", {}), ("refusals", {"stage": "check"})):
        metrics.count(what, "web", **labels, **({} if what == "refusals" else {"reason": "x"}))
    metrics.took("web", "render", 0.1)

    exported = set()
    for family in metrics.registry.collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        exported.add((name, *sorted({label for sample in family.samples for label in sample.labels} - {"le"})))
    said = [re.fullmatch(r"`(\w+)(?:\{(.*)\})?`", row[0]).groups("") for row in rows(section("docs/reference.md", "Metrics"))]
    assert {(name, *sorted(filter(None, labels.split(",")))) for name, labels in said} == exported
    assert len(said) == len(exported)


def test_every_filter_is_in_the_reference():
    said = [name for row in rows(section("docs/reference.md", "Templates")) for name in re.findall(r"`(\w+)`", row[0])]
    assert sorted(said) == sorted(FILTERS)


def test_every_room_is_in_the_architecture():
    """The first table has each part of the package, the second each module of those that it opens up."""
    first, second = (part.strip() for part in section("docs/architecture.md", "Rooms").split("Inside the larger ones:"))
    parts = {name for row in rows(first) for name in re.findall(r"`([\w./]+)`", row[0])}
    house = {f"{path.name}/" if path.is_dir() else path.name for path in (ROOT / "reloader").iterdir()}
    assert parts == house - {"__init__.py", "__pycache__/", "py.typed"}

    room = ""
    inside: dict[str, set[str]] = {}
    for row in rows(second):
        room = row[0].strip("` ") or room
        inside.setdefault(room, set()).update(re.findall(r"`(\w+)`", row[1]))
    there = {room: {path.stem for path in (ROOT / "reloader" / room).glob("*.py")} - {"__init__"} for room in inside}
    there["targets/"] -= {"process", "exec", "http", "command", "none"}
    assert inside == there


def anchors(document: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(document: Path):
    for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        if link.startswith("https://"):
            assert link.split("/")[2] in HOSTS
            continue
        name, _, anchor = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_names_the_machine_it_was_written_on(document: Path):
    assert not re.search(r"/(?:work|root|home)/\w", document.read_text(encoding="utf-8"))


def defined_in(path: Path) -> set[str]:
    """Return the tests of a file as pytest names them."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        inside = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}::" if isinstance(node, ast.ClassDef) else ""
        found |= {prefix + each.name for each in inside if isinstance(each, ast.FunctionDef) and each.name.startswith("test_")}
    return found


@pytest.mark.parametrize("promise", re.split(r"^## ", (ROOT / "docs/promises.md").read_text(encoding="utf-8"), flags=re.MULTILINE)[1:])
def test_every_promise_has_tests_and_they_exist(promise: str):
    named = re.findall(r"`(tests/[\w/]+\.py)::([\w:]+)`", promise)

    assert len(named) >= 5
    assert re.search(r"^Not (covered|built):", promise, re.MULTILINE)
    assert [f"{path}::{test}" for path, test in named if test not in defined_in(ROOT / path)] == []


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-build.txt"])
def test_the_requirements_say_where_the_command_is_that_refreshes_them(name: str):
    where = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]["pip"]["custom-compile-command"]
    assert where == "see Dependencies in CONTRIBUTING.md"
    assert where in (ROOT / name).read_text().partition("\n\n")[0]
    assert re.search(rf"^uv pip compile .*-o {name}\b", section("CONTRIBUTING.md", "Dependencies").replace(" && ", "\n"), re.MULTILINE)


def test_the_newest_changes_come_first():
    versions = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    numbers = [tuple(map(int, version.split("."))) for version in versions[1:]]
    assert versions[0] == "Unreleased"
    assert all(newer > older for newer, older in pairwise(numbers))


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """The modules of CONTRIBUTING.md, installed as packages of somebody else; returns the environment in which they are found."""
    modules, information = tmp_path / "site", tmp_path / "site" / "examples-1.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: examples\nVersion: 1\n")
    contributing = list(blocks(ROOT / "CONTRIBUTING.md"))
    points = [tomllib.loads(block.text)["project"]["entry-points"] for block in contributing if block.language == "toml"]
    lines = [
        line for groups in points for group, names in groups.items() for line in (f"[{group}]", *(f"{n} = {v}" for n, v in names.items()))
    ]
    (information / "entry_points.txt").write_text("\n".join(lines) + "\n")
    saved(modules, *(block for block in contributing if block.title.startswith("reloader_")))
    return {"PYTHONPATH": f"{ROOT}:{modules}"}


@pytest.fixture
def configuration(tmp_path: Path, installed: dict[str, str]) -> Path:
    (path,) = saved(tmp_path, *(block for block in blocks(ROOT / "CONTRIBUTING.md") if block.title == "web.yaml"))
    return path


def test_the_source_of_the_example_works(tmp_path: Path, installed: dict[str, str], configuration: Path):
    done = reloader("once", configuration, env=installed)

    assert done.returncode == 0, done.stderr
    published = (tmp_path / "tmp/try/live/upstream.conf").read_text().splitlines()
    assert "server 127.0.0.1:8080;" in published or "server ::1:8080;" in published


def test_the_source_of_the_example_tells_what_is_wrong(installed: dict[str, str], configuration: Path):
    configuration.write_text(configuration.read_text().replace("host: localhost, poll: 1m", "host: a..b, poll: 0s, hots: x"))
    refused = reloader("check", configuration, env=installed)

    assert refused.returncode == 2
    assert "sources.web.hots: unknown key 'hots'" in refused.stderr

    configuration.write_text(configuration.read_text().replace(", hots: x", ""))
    refused = reloader("check", configuration, env=installed)
    assert "sources.web.host: expected a host name" in refused.stderr
    assert "sources.web.poll: expected a duration longer than 0s" in refused.stderr


def test_the_target_of_the_example_works(tmp_path: Path, installed: dict[str, str], configuration: Path, daemon: Callable[[str], Daemon]):
    (target,) = saved(tmp_path, *(block for block in blocks(ROOT / "CONTRIBUTING.md") if block.title == "target"))
    configuration.write_text(configuration.read_text().replace("target: {kind: none}\n", target.read_text()))
    touched = tmp_path / "tmp/try/reload"
    command = [sys.executable, "-m", "reloader", "run", configuration, "--listen", "off"]

    daemon("sidecar").start(command, env=installed, ready=touched.exists)


def test_the_contract_holds_for_the_source_of_the_example(tmp_path: Path, installed: dict[str, str]):
    """The entry that CONTRIBUTING.md shows, put where it says."""
    contract = (ROOT / "tests/unit/test_source_contract.py").read_text()
    (line,) = re.findall(r"^and `(\"dns\": .+)` in its `CASES`", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    before, table, after = contract.partition("\nCASES: ")
    head, brace, cases = after.partition("{\n")
    copy = tmp_path / "test_contract_of_the_example.py"
    copy.write_text(f"{before}\n{titled('CONTRIBUTING.md', 'contract')}\n{table}{head}{brace}    {line}\n{cases}")

    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "-c",
        ROOT / "pyproject.toml",
        "-k",
        "dns",
        copy,
    ]
    done = subprocess.run([*map(str, command)], env={"PATH": "/usr/bin:/bin", **installed}, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout
    assert re.search(r"\b[5-9] passed|\b\d\d passed", done.stdout), done.stdout
