"""The operator's files and environment: read, validated, and handed on as one plan, or refused with every mistake at its place.

What that takes is imported when it is done: the sidecar leaves it to a process that ends with it (`apart`).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from reloader import plan
from reloader.settings.mistakes import ConfigurationInvalid, Mistake, NoConfiguration
from reloader.settings.tree import Place, Problem, Tree

__all__ = ["ConfigurationInvalid", "Mistake", "NoConfiguration", "files_of", "find", "load", "places", "zero_file"]

DEFAULT_DIRECTORY = Path("/etc/reloader")
CONFIG = "RELOADER_CONFIG"
_OPTIONS = ("--watch", "--process", "--signal")
_VARIABLES = ("CONFIG_DIR", "PROCESS_NAME", "RELOAD_SIGNAL")
"""Those of config-reloader-sidecar, which this one replaces as it is."""


def find(
    files: Sequence[Path],
    watch: Sequence[str],
    process: str | None,
    signal: str | None,
    environ: Mapping[str, str],
    *,
    directory: Path = DEFAULT_DIRECTORY,
    named: Callable[[frozenset[str]], None] | None = None,
) -> tuple[plan.Plan, tuple[Path, ...]]:
    """Return the plan and the files it came from (none for `--watch` and its variables).

    `named` is told the kinds of sources, right or wrong, before the validation, which takes longer than all before it.

    The first that is given counts: files; `--watch`; `RELOADER_CONFIG`, a file or a directory; `*.yaml` in `directory`; `CONFIG_DIR`.

    Raises:
        NoConfiguration: nothing is given.
        ConfigurationInvalid: something in it is wrong.

    """
    if files and (watch or process or signal):
        raise ConfigurationInvalid([Mistake("command line", "--watch", "expected files, or --watch with its options, not both")])
    if watch or process or signal:
        return zero_file(watch, process or "", signal, environ), ()
    if chosen := files or _usual_files(environ, directory):
        found = files_of(chosen)
        return load(found, environ, named), found
    if environ.get("CONFIG_DIR"):
        watched = [part.strip() for part in environ["CONFIG_DIR"].split(",") if part.strip()]
        values = (watched, environ.get("PROCESS_NAME", ""), environ.get("RELOAD_SIGNAL"))
        return _without_file(*values, environ, "environment", _VARIABLES), ()
    raise NoConfiguration([Mistake("", "no configuration", f"name a file, put one into {directory} as *.yaml, or use --watch")])


def places(
    files: Sequence[Path], watch: Sequence[str], environ: Mapping[str, str], *, directory: Path = DEFAULT_DIRECTORY
) -> tuple[Path, ...]:
    """Return where the configuration comes from, and may come from later: files, or directories whose `*.yaml` are meant."""
    if files or watch:
        return tuple(files)
    usual = _usual_files(environ, directory)
    return tuple(usual) if usual else (directory,) if directory.is_dir() else ()


def load(paths: Sequence[Path], environ: Mapping[str, str], named: Callable[[frozenset[str]], None] | None = None) -> plan.Plan:
    """Return the plan of these files, a pipeline each; a directory means the `*.yaml` in it. `named` is as for `find`.

    Raises:
        ConfigurationInvalid: with all mistakes of all files.

    """
    from reloader.settings import yamlfile  # noqa: PLC0415 - 1 MiB

    mistakes: list[Mistake] = []
    trees: list[tuple[Tree, list[Problem]]] = []
    for path in files_of(paths):
        try:
            tree, problems = yamlfile.read(path)
        except ConfigurationInvalid as invalid:
            mistakes += invalid.mistakes
            continue
        if not tree.has("name"):
            tree.data["name"] = path.stem
        _beside(tree, path)
        trees.append((tree, problems))
    if named is not None:
        named(frozenset(kind for tree, _ in trees for kind in _kinds(tree)))
    from reloader.settings import planning  # noqa: PLC0415 - pydantic: 130 ms and 13 MiB

    return planning.planned(trees, environ, mistakes)


def _kinds(tree: Tree) -> Iterator[str]:
    written = (tree.look(("sources", name, "kind")) for name in tree.keys("sources"))
    yield from (kind for kind in written if isinstance(kind, str))


def _beside(tree: Tree, path: Path) -> None:
    """Let the relative path of a template begin at the file that names it: a ConfigMap that holds both is the same files elsewhere."""
    for name in tree.keys("volume", "files"):
        written = tree.look(("volume", "files", name, "template"))
        if isinstance(written, str) and written:
            tree.data["volume"]["files"][name]["template"] = str(path.absolute().parent / written)


def zero_file(watch: Sequence[str], process: str, signal: str | None, environ: Mapping[str, str]) -> plan.Plan:
    """Return the plan of a pipeline that only watches directories and signals the process of that name.

    Raises:
        ConfigurationInvalid: an option is missing or wrong, or a variable.

    """
    return _without_file(watch, process, signal, environ, "command line", _OPTIONS)


def files_of(paths: Iterable[Path]) -> tuple[Path, ...]:
    """Return the files that are meant, in order.

    Raises:
        ConfigurationInvalid: a directory has none.

    """
    found = {path: _in_directory(path) if _is_directory(path) else [path] for path in paths}
    if empty := [path for path, files in found.items() if not files]:
        raise ConfigurationInvalid(Mistake(str(path), "", "no *.yaml in this directory") for path in empty)
    return tuple(dict.fromkeys(file for files in found.values() for file in files))


def _is_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # who reads it as a file is told why that cannot be
        return False


def _in_directory(directory: Path) -> list[Path]:
    return sorted(path for path in directory.glob("*.yaml") if not path.name.startswith("."))


def _usual_files(environ: Mapping[str, str], directory: Path) -> Sequence[Path]:
    if chosen := environ.get(CONFIG):
        return [Path(chosen)]
    return [directory] if _in_directory(directory) else []


def _without_file(
    watch: Sequence[str], process: str, signal: str | None, environ: Mapping[str, str], where: str, names: tuple[str, str, str]
) -> plan.Plan:
    directory, name, number = (Place(where, called) for called in names)
    missing = [directory.mistake((), "required: the directory to watch")] if not watch else []
    missing += [name.mistake((), "required: the name of the process to signal")] if not process else []
    if missing:
        raise ConfigurationInvalid(missing)
    from reloader.settings import planning  # noqa: PLC0415 - as above

    tree = Tree({"name": "watch"}, {(): Place(where)})
    for position, path in enumerate(watch, 1):
        source = f"watch{position if len(watch) > 1 else ''}"
        tree.put(("sources", source, "kind"), "files", Place(where))
        tree.put(("sources", source, "path"), path, directory)
    tree.put(("target", "match", "name"), process, name)
    if signal:
        tree.put(("target", "signal"), signal, number)
    return planning.planned([(tree, [])], environ, [])
