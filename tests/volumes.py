"""Volumes for tests: sets of files, what a reader sees of them, and disks that fail or kill at a chosen call."""

import errno
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from reloader.fileset import Rendered, RenderedFile
from reloader.plan import File, Volume as Plan
from reloader.volume import Volume
from reloader.volume.in_place import InPlace
from reloader.world import World
from reloader.world.disk import Disk

OLD = {"app.conf": b"old app", "gone.conf": b"old gone", "conf.d/site.conf": b"old site", "conf.d/deep/er.conf": b"old deep"}
NEW = {"app.conf": b"new app", "conf.d/site.conf": b"new site", "conf.d/more.conf": b"new more", "added/one.conf": b"new" * 100_000}
NAMES = {*OLD, *NEW}
CHANGES_OF_DISK = sorted(name for name in vars(Disk) if not name.startswith("_"))


def rendered(contents: Mapping[str, bytes], **more: Any) -> Rendered:
    """Return a set with these contents."""
    return {name: RenderedFile(data=data, **more) for name, data in contents.items()}


def make(path: Path, disk: Disk | None = None, **more: Any) -> Volume:
    """Return a volume on that directory, not open yet."""
    plan = Plan(path=str(path), files={name: File(content="") for name in NAMES}, **more)
    return (InPlace if plan.in_place else Volume)(plan, World(disk=disk or Disk()))


def publish(volume: Volume, contents: Mapping[str, bytes], **more: Any) -> int:
    """Stage and publish a set, as a cycle does; return its number."""
    files = rendered(contents, **more)
    number = volume.next_number()
    volume.stage(number, files, volume.fingerprint(files))
    volume.publish(number)
    return number


def cycle(volume: Volume, contents: Mapping[str, bytes]) -> None:
    """Do all that a run does on its volume: open, publish, confirm, sweep (as if an hour had passed)."""
    volume.open()
    number = publish(volume, contents)
    volume.confirm(number, [{"pid": 1, "started": 2.5, "boot": "b"}])
    volume.sweep(os_time() + 3600)


def os_time() -> float:
    """Return the boot clock's time."""
    return World().clock.now()


def seen(path: Path) -> dict[str, bytes]:
    """Return what a reader sees through the user links."""
    return {name: (path / name).read_bytes() for name in NAMES if (path / name).exists()}


def strangers(path: Path, volume: Volume) -> set[str]:
    """Return what is on the volume though nothing needs it."""
    published = volume.published
    first = {each.name for each in (path / "..data").iterdir()} if published else set()
    known = {"..data", "..reloader", *first, *(f"..{number}" for number in volume.record.generations)}
    home = {each.name for each in (path / "..reloader").iterdir()}
    return ({each.name for each in path.iterdir()} - known) | (home - {"lock", "key", "record.json"})


Hook = Callable[[int, str, Callable[[], Any], tuple[Any, ...]], Any]


def hooked(hook: Hook) -> Disk:
    """Return a disk that hands each call to `hook`, whatever calls a disk has: its index, its name, what runs it, its arguments."""
    calls = 0

    def around(name: str) -> Callable[..., Any]:
        def call(disk: Disk, *args: Any) -> Any:
            nonlocal calls
            calls += 1
            return hook(calls - 1, name, lambda: getattr(Disk, name)(disk, *args), args)

        return call

    return type("HookedDisk", (Disk,), {name: around(name) for name in CHANGES_OF_DISK})()


def recording(names: list[str]) -> Disk:
    """Return a disk that writes down its calls."""

    def hook(_index: int, name: str, run: Callable[[], Any], _args: tuple[Any, ...]) -> Any:
        names.append(name)
        return run()

    return hooked(hook)


def failing(at: int, number: int, *, after: bool) -> Disk:
    """Return a disk whose call `at` fails with an error number, before or after it did its work, and no other."""

    def hook(index: int, name: str, run: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        if index == at and after:
            done = run()
            if name == "lock":
                os.close(done)
        if index == at:
            raise OSError(number, os.strerror(number), str(args[0]))
        return run()

    return hooked(hook)


def killing(at: int, when: str) -> Disk:
    """Return a disk that kills this process at call `at`: before it, after it, or in the middle of it."""

    def hook(index: int, name: str, run: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        if index == at and when == "amid":
            _half(name, args)
        if index == at and when in ("amid", "before"):
            os.kill(os.getpid(), signal.SIGKILL)
        answer = run()
        if index == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    return hooked(hook)


AMID = ("write_file", "make_file", "overwrite_file", "remove_tree")
"""The calls that are more than one step for the kernel."""


def _half(name: str, args: tuple[Any, ...]) -> None:
    if name in ("write_file", "make_file"):
        args[0].write_bytes(args[1][: len(args[1]) // 2])
    elif name == "overwrite_file":
        with args[0].open("r+b") as file:
            file.write(args[1][: len(args[1]) // 2])
    elif name == "remove_tree" and args[0].is_dir():
        next(path for path in args[0].rglob("*") if path.is_file()).unlink()


def cycle_until_killed(path: str, contents: Mapping[str, bytes], at: int, when: str, *, in_place: bool = False) -> None:
    """Run a cycle in this process and be killed in it."""
    cycle(make(Path(path), killing(at, when), keep=0, in_place=in_place), contents)


ERRORS = (errno.EIO, errno.EDQUOT, errno.ENOSPC)
