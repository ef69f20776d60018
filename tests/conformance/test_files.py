"""What consul-template's file writer is tested with (`renderer/renderer_test.go`), and the rows it lacks, with our outcomes.

Theirs writes one file over another, wherever it lies; ours lays out whole sets on a volume of its own, so what is not ours is never
touched, and what was published before is kept as a generation instead of as `FILE.bak`.
"""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conformance.app import App

NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give files away or to become somebody else")
NOBODY = 65534


def entry(content: str = "new", **more: str) -> dict[str, str]:
    return {"content": content, **more}


@pytest.fixture
def written(app):
    """Makes an application whose one file has no source but a variable that is always there."""

    def make(files: dict[str, object] | None = None, **volume: object) -> App:
        made = app(sources={"own": {"kind": "env", "names": ["PATH"]}}, failure={"startup_grace": "500ms"})
        made.write(volume={"path": str(made.live), **volume}, files=files or {"app.conf": "new"})
        return made

    return make


def publish(app: App) -> None:
    done = app.once()
    assert done.returncode == 0, done.stderr


def refusal(app: App) -> str:
    """Return why it was not published."""
    done = app.once()
    assert done.returncode == 1
    return done.stderr


def attributes(path: Path) -> tuple[int, int, int]:
    """Return the mode, the owner and the group of what a reader meets."""
    found = path.stat()
    return stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid


# Where


def test_a_missing_parent_is_made(written, tmp_path: Path):
    """Of the volume, and of a file on it."""
    volume = tmp_path / "not/there"
    publish(written({"conf.d/deep/er.conf": "new"}, path=str(volume)))

    file = volume / "conf.d/deep/er.conf"
    assert file.read_text() == "new"
    made = (volume.parent, volume, file.parent.parent, file.parent)
    assert [stat.S_IMODE(path.stat().st_mode) for path in made] == [0o750] * 4


def test_a_parent_that_is_a_file_is_refused(written):
    app = written()
    app.live.write_text("I was here")
    assert f"{app.live}" in refusal(app)
    assert app.live.read_text() == "I was here"


def test_a_link_at_the_destination_is_not_followed_and_not_replaced(written):
    """Theirs replaces the link; ours says whose it is not, and leaves it and what it leads to."""
    app = written()
    elsewhere = app.folder / "elsewhere"
    elsewhere.write_text("theirs")
    app.live.mkdir()
    (app.live / "app.conf").symlink_to(elsewhere)

    assert f"{app.live}/app.conf is in the way: a link to '{elsewhere}'" in refusal(app)
    assert elsewhere.read_text() == "theirs"
    assert (app.live / "app.conf").readlink() == elsewhere


def test_a_link_in_the_place_of_a_file_is_not_written_through(written):
    """The same for files that are written in place."""
    app = written(in_place=True)
    elsewhere = app.folder / "elsewhere"
    elsewhere.write_text("theirs")
    app.live.mkdir()
    (app.live / "app.conf").symlink_to(elsewhere)

    assert f"{app.live}/app.conf is in the way" in refusal(app)
    assert elsewhere.read_text() == "theirs"


def test_a_link_to_the_volume_is_followed(written):
    """The volume may be mounted wherever its path leads."""
    app = written()
    (app.folder / "disk").mkdir()
    app.live.symlink_to("disk")
    publish(app)
    assert (app.folder / "disk/app.conf").read_text() == "new"


@NEEDS_ROOT
@pytest.mark.parametrize("flags", ["remount,bind,ro", "directory"])
def test_a_directory_that_may_not_be_written_is_told_with_its_mend(written, flags: str):
    """As a mount that is read-only, and as a directory of another user; what is published stays."""
    app = written()
    publish(app)
    app.write(files={"app.conf": "newer"})
    command = [sys.executable, "-m", "reloader", "once", str(app.file)]
    if flags == "directory":
        # Root without its capabilities is bound by the modes of files, like anybody else.
        app.live.chmod(0o555)
        argv = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", *command]
        mend = f"uid 0 may not, {app.live} belongs to uid 0"
    else:
        mount = f'mount --bind {app.live} {app.live} && mount -o {flags} {app.live} && exec "$@"'
        argv = ["unshare", "-m", "--propagation", "private", "sh", "-c", mount, "sh", *command]
        mend = "the volume is read-only: mount it without `readOnly`"
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)

    assert done.returncode == 1
    assert mend in done.stderr
    assert app.published() == "new"
    assert app.generation == 1


# Modes and owners


def test_the_mode_is_0640_unless_it_is_written_down(written):
    app = written({"app.conf": entry(), "public.conf": entry(mode="0644"), "private.conf": entry(mode="0400")})
    publish(app)
    modes = {name: attributes(app.live / name)[0] for name in ("app.conf", "public.conf", "private.conf")}
    assert modes == {"app.conf": 0o640, "public.conf": 0o644, "private.conf": 0o400}


def test_in_place_the_mode_of_the_file_is_kept_unless_it_is_written_down(written):
    app = written({"app.conf": entry(), "given.conf": entry(mode="0600")}, in_place=True)
    app.live.mkdir()
    for name in ("app.conf", "given.conf"):
        (app.live / name).write_text("old")
        (app.live / name).chmod(0o604)
    before = (app.live / "app.conf").stat().st_ino
    publish(app)

    assert app.published() == app.published("given.conf") == "new"
    assert attributes(app.live / "app.conf")[0] == 0o604
    assert attributes(app.live / "given.conf")[0] == 0o600
    assert (app.live / "app.conf").stat().st_ino == before


@NEEDS_ROOT
def test_owner_and_group_are_the_volumes_unless_they_are_written_down(written):
    """By name or by number; each without the other."""
    rows = {
        "neither": ({}, 0, 4242),
        "owner": ({"owner": "nobody"}, NOBODY, 4242),
        "group": ({"group": "4343"}, 0, 4343),
        "both": ({"owner": str(NOBODY), "group": "4343"}, NOBODY, 4343),
    }
    app = written({name: entry(**configured) for name, (configured, _, _) in rows.items()})
    app.live.mkdir()
    os.chown(app.live, -1, 4242)
    publish(app)
    assert {name: attributes(app.live / name) for name in rows} == {name: (0o640, *expected) for name, (_, *expected) in rows.items()}


@NEEDS_ROOT
def test_in_place_the_owner_of_the_file_is_kept_unless_it_is_written_down(written):
    app = written({"app.conf": entry(), "given.conf": entry(owner="4141", group="4343")}, in_place=True)
    app.live.mkdir()
    for name in ("app.conf", "given.conf"):
        (app.live / name).write_text("old")
        os.chown(app.live / name, NOBODY, 4242)
    publish(app)

    assert attributes(app.live / "app.conf")[1:] == (NOBODY, 4242)
    assert attributes(app.live / "given.conf")[1:] == (4141, 4343)


def test_an_owner_that_nobody_knows_is_refused(written):
    """Before anything is written."""
    app = written({"app.conf": entry(owner="no-such-user")})
    refused = app.once()
    assert refused.returncode == 2
    assert "owner 'no-such-user' is unknown in this container: write its number" in refused.stderr
    assert not app.live.exists()


# Content


@pytest.mark.parametrize("in_place", [False, True])
def test_a_second_pass_with_the_same_does_nothing(written, in_place: bool):
    """No new generation, not even a new file."""
    app = written(in_place=in_place)
    publish(app)
    before = (app.live / "app.conf").stat()
    publish(app)

    after = (app.live / "app.conf").stat()
    assert (after.st_ino, after.st_mtime_ns, after.st_ctime_ns) == (before.st_ino, before.st_mtime_ns, before.st_ctime_ns)
    assert app.generation == 1


@pytest.mark.parametrize("in_place", [False, True])
def test_other_content_is_published(written, in_place: bool):
    app = written(in_place=in_place)
    publish(app)
    app.write(files={"app.conf": "newer"})
    publish(app)
    assert app.published() == "newer"
    assert app.generation == 2


@NEEDS_ROOT
@pytest.mark.parametrize("in_place", [False, True])
def test_a_changed_mode_or_owner_alone_is_a_change(written, in_place: bool):
    """Theirs does not apply a mode."""
    app = written({"app.conf": entry(mode="0644")}, in_place=in_place)
    publish(app)
    app.write(files={"app.conf": entry(mode="0600")})
    publish(app)
    assert attributes(app.live / "app.conf")[:2] == (0o600, 0)
    app.write(files={"app.conf": entry(mode="0600", owner=str(NOBODY))})
    publish(app)
    assert attributes(app.live / "app.conf")[:2] == (0o600, NOBODY)
    assert app.published() == "new"
    assert app.generation == 3


def test_empty_content_is_content(written):
    """Unless a check says otherwise: `nonempty` keeps what is published."""
    app = written()
    publish(app)
    app.write(files={"app.conf": ""})
    publish(app)
    assert app.published() == ""

    app.write(volume={"path": str(app.live), "check": {"builtin": ["nonempty"]}}, files={"app.conf": "also new"})
    publish(app)
    app.write(files={"app.conf": ""})
    assert "nonempty: empty or only white space: app.conf" in refusal(app)
    assert app.published() == "also new"


@pytest.mark.parametrize("in_place", [False, True])
def test_a_file_that_is_absent_is_made(written, in_place: bool):
    """Beside one that is there, and again when a hand removed it from a volume that is written in place."""
    app = written(in_place=in_place)
    publish(app)
    app.write(files={"app.conf": "new", "more.conf": "more"})
    publish(app)
    assert (app.published(), app.published("more.conf")) == ("new", "more")
    if in_place:
        (app.live / "app.conf").unlink()
        publish(app)
        assert app.published() == "new"


# What was there before


def test_what_was_published_before_is_kept_as_a_generation(written):
    """None at first, then one more with each; `reloader rollback` goes back to one."""
    app = written(keep=3)
    generations = []
    for text in ("one", "two", "three"):
        app.write(files={"app.conf": text})
        publish(app)
        generations.append({path.name: (path / "app.conf").read_text() for path in app.live.glob("..[0-9]*")})

    assert generations[0] == {"..1": "one"}
    assert generations[1] == {"..1": "one", "..2": "two"}
    assert generations[2] == {"..1": "one", "..2": "two", "..3": "three"}


def test_without_earlier_generations_only_young_ones_are_kept(written):
    """For readers that are still in them: `keep: 0` is no reason to pull a set away from under a slow one."""
    app = written(keep=0)
    publish(app)
    app.write(files={"app.conf": "newer"})
    publish(app)
    assert (app.live / "..1/app.conf").read_text() == "new"
