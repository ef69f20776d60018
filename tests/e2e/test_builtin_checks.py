"""Built-in checks and advice as users meet them: through the commands."""

from pathlib import Path

import pytest

from tests.e2e.sidecar import reloader

EVERYTHING = "[json, yaml, toml, keypair, nonempty, {max_change: 50%}]"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    site = tmp_path / "site"
    site.mkdir()
    return site


def configured(site: Path, builtin: str, target: str = "{kind: none}") -> Path:
    """Return a configuration that copies `site` as it is."""
    file = site.with_name("app.yaml")
    volume = f"{{path: {site.with_name('live')}, copy: site, check: {{builtin: {builtin}}}}}"
    file.write_text(f"sources: {{site: {{kind: files, path: {site}}}}}\nvolume: {volume}\ntarget: {target}\n")
    return file


def test_a_set_that_changes_too_much_stays_away_until_it_may(site: Path) -> None:
    """The first publish passes, the next is held against what is published, and a larger share lets it through."""
    published = site.with_name("live") / "routes"
    (site / "routes").write_text("1\n2\n3\n4\n")
    assert reloader("once", configured(site, "[{max_change: 50%}]")).returncode == 0
    (site / "routes").write_text("1\n")
    refused = reloader("once", configured(site, "[{max_change: 50%}]"))
    assert refused.returncode == 1
    assert "max_change: 3 of the 4 published lines would change or go, more than 50%" in refused.stderr
    assert published.read_text() == "1\n2\n3\n4\n"
    assert reloader("once", configured(site, "[{max_change: 75%}]")).returncode == 0
    assert published.read_text() == "1\n"


def test_a_broken_file_is_told_by_its_place_and_not_published(site: Path) -> None:
    """And nothing of it is quoted, in the log neither."""
    (site / "app.json").write_text('{\n "password": canary\n}')
    refused = reloader("once", configured(site, "[json, nonempty]"))
    assert refused.returncode == 1
    assert "json: app.json, line 2, column 14: not JSON" in refused.stderr
    assert "canary" not in refused.stdout + refused.stderr
    assert not (site.with_name("live") / "app.json").exists()


def test_all_of_them_are_taken_together_and_by_variable(site: Path) -> None:
    """As the reference writes them."""
    file = configured(site, EVERYTHING)
    assert reloader("check", file).returncode == 0
    refused = reloader("check", file, env={"RELOADER_VOLUME__CHECK__BUILTIN": "[{max_change: 0%}]"})
    assert refused.returncode == 2
    assert "RELOADER_VOLUME__CHECK__BUILTIN: expected a share of the published lines" in refused.stderr


def test_check_advises_a_stronger_proof(site: Path) -> None:
    """In the list of what is signalled."""
    checked = reloader("check", configured(site, "[nonempty]", "{match: {name: nginx}}"))
    assert "\n  advice   nginx: verify {workers: true}; alive only notices a target that dies\n" in checked.stdout
