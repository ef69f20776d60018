"""The pages for users do what they say, in their own words."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from reloader import cli
from reloader.doctor import CHECKS
from tests.e2e.sidecar import reloader
from tests.servers.daemon import Daemon
from tests.servers.ports import free_port
from tests.unit.test_docs import ROOT, Block, blocks, rows, saved, titled
from tests.waiting import eventually

TUTORIAL = "docs/tutorial.md"


@dataclass
class Reader:
    """Somebody who does what a page says, with its directory moved and the endpoints on a free port."""

    folder: Path
    page: str
    listen: str

    @property
    def env(self) -> dict[str, str]:
        """The environment of every command."""
        return {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "RELOADER_SERVER__LISTEN": self.listen}

    def words(self, title: str) -> str:
        """Return a block of the page."""
        text = titled(self.page, title).replace("/tmp/try", f"{self.folder}/tmp/try")
        return text.replace("python3", sys.executable).replace(".venv/bin/reloader", f"{sys.executable} -m reloader")

    def does(self, title: str) -> str:
        """Run the commands of a block, and return what they print."""
        done = subprocess.run(["sh", "-ec", self.words(title)], env=self.env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def sees(self, title: str, printed: str) -> bool:
        """Return whether every line of a block is printed, whatever its numbers are."""
        return set(self._lines(self.words(title))) <= set(self._lines(printed))

    @staticmethod
    def _lines(text: str) -> list[str]:
        without_numbers = "".join("#" if each.isdigit() else each for each in text)
        while "##" in without_numbers:
            without_numbers = without_numbers.replace("##", "#")
        return [" ".join(line.split()) for line in without_numbers.replace("just now", "# s ago").splitlines()]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Callable[[str], Daemon]]:
    """Makes processes that go on, and ends them."""
    made: list[Daemon] = []
    yield lambda name: made.append(Daemon(tmp_path / f"{name}.log", death_signal="TERM")) or made[-1]
    for each in made:
        each.stop()


def test_the_tutorial_works_as_written(tmp_path: Path, daemon: Callable[[str], Daemon]):
    """A change arrives, a broken one does not, and one that was made while the sidecar was away arrives when it is back."""
    saved(tmp_path, *(block for block in blocks(ROOT / TUTORIAL) if block.title.startswith("/tmp/try/")))
    reader = Reader(tmp_path, TUTORIAL, f"127.0.0.1:{free_port()}")
    sidecar, app = daemon("sidecar"), daemon("app")

    assert reader.sees("checked", reader.does("prepare"))
    sidecar.start(reader.words("sidecar").split(), env=reader.env, ready=(tmp_path / "tmp/try/live/app.conf").exists)
    app.start(reader.words("program").split(), ready=app.log.read_text)

    def last() -> str:
        return app.log.read_text().splitlines()[-1]

    assert last() == "greeting = hello"
    eventually(lambda: "generation 1 confirmed" in reader.does("status"), what="the first set being confirmed")
    reader.does("change")
    eventually(lambda: last() == "greeting = good morning")
    eventually(lambda: reader.sees("changed", reader.does("status")), what="what the page shows")
    reader.does("break")
    eventually(lambda: reader.sees("broken", reader.does("status")), what="what the page shows of a broken change")

    sidecar.stop()
    reader.does("away")
    assert last() == "greeting = good morning"
    sidecar.start(reader.words("sidecar").split(), env=reader.env, ready=lambda: last() == "greeting = good night")
    reader.does("clean")


PAGES = sorted((ROOT / "docs").glob("**/*.md"))
CONFIGURATIONS = [block for block in blocks(*PAGES) if block.language == "yaml" and not block.fragment]
MANIFESTS = [block for block in blocks(*PAGES) if block.language == "yaml" and block.text.startswith("apiVersion:")]


@pytest.mark.parametrize("block", CONFIGURATIONS, ids=lambda block: f"{block.document.name}:{block.title}")
def test_check_takes_every_configuration(block: Block, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """`reloader check` finds no mistake, and no target of which it knows a stronger proof."""
    monkeypatch.setattr("os.environ", {"PATH": "/usr/bin:/bin"})
    (path,) = saved(tmp_path, block)
    saved(tmp_path, *(other for other in blocks(block.document) if other.language == "jinja"))

    assert cli.main(["check", str(path)]) == cli.DONE, capsys.readouterr().err
    assert "no mistakes" in capsys.readouterr().out


@pytest.mark.parametrize("block", MANIFESTS, ids=lambda block: f"{block.document.name}:{block.title}")
def test_every_manifest_fits_the_schema(block: Block):
    """Kubernetes knows every field, and every field has its type."""
    kubernetes_validate.validate(yaml.safe_load(block.text), kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize(
    ("page", "pipeline", "manifest"),
    [("nginx", "web.yaml", "deployment.yaml"), ("migrate-from-vault-agent-injector", "app.yaml", "after.yaml")],
)
def test_the_doctor_finds_nothing_wrong_with_a_pod_that_is_shown(page: str, pipeline: str, manifest: str, tmp_path: Path):
    """The command of the page: its configuration and its manifest fit each other."""
    found = list(blocks(ROOT / f"docs/how-to/{page}.md"))
    saved(tmp_path, *(block for block in found if block.title.startswith("/etc/reloader/")))
    written = tmp_path / manifest
    (text,) = (block.text for block in found if block.title == manifest)
    written.write_text(text.replace("/etc/reloader", f"{tmp_path}/etc/reloader"))

    done = reloader("doctor", tmp_path / "etc/reloader" / pipeline, "--manifest", written, "--json")
    assert [each for each in json.loads(done.stdout)["findings"] if each["state"] in {"warning", "failed"}] == []
    assert done.returncode == 0


TROUBLES = re.findall(r"^> - `(\w+\.\w+)`: (.+)$", (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.fixture(scope="module")
def sentences() -> set[str]:
    """Every text in the parts that the doctor quotes, and every piece of one that is put together."""
    files = [path for room in ("doctor", "targets", "volume") for path in (ROOT / "reloader" / room).rglob("*.py")]
    nodes = [node for path in files for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def test_every_check_of_the_doctor_is_a_line_of_some_symptom():
    assert {check for check, _ in TROUBLES} == {check.id for check in CHECKS}


@pytest.mark.parametrize("told", [told for _, told in TROUBLES if told != "…"], ids=lambda told: told[:40])
def test_the_doctor_says_what_the_page_quotes(told: str, sentences: set[str]):
    assert [part for part in map(str.strip, told.split("…")) if not any(part in sentence for sentence in sentences)] == []


def test_a_shell_loop_has_the_faults_that_are_shown(tmp_path: Path):
    """Its two files are torn, its reload is lost, it acts on no change, and it kills."""
    reader = Reader(tmp_path, "docs/explanation.md", "off")
    reader.does("empty")

    for fault in ("tear", "lose", "double", "kill"):
        _commands, shown = (block.text for block in blocks(ROOT / reader.page) if block.title == fault)
        assert reader.does(fault) == shown, fault
    reader.does("clean")


GLOSSARY = rows((ROOT / "docs/glossary.md").read_text(encoding="utf-8"))
SYNONYMS = {word.strip(): row[0] for row in GLOSSARY if len(row) == 3 for word in row[2].strip(" |").split(",") if word.strip()}


def test_each_term_is_explained_once():
    terms = [row[0] for row in GLOSSARY]
    assert terms == sorted(set(terms))


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.name)
def test_a_page_has_one_word_for_one_thing(page: Path):
    text = re.sub(r"^```.*?^```$|`[^`]*`", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    if page.name != "glossary.md":
        assert {word: f"say {term}" for word, term in SYNONYMS.items() if re.search(rf"\b{word}s?\b", text, re.IGNORECASE)} == {}
