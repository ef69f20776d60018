"""Makes one plan of all files: the environment laid over each, validated, held against the rules."""

from collections.abc import Mapping, Sequence
from typing import Any

from reloader import plan
from reloader.settings import environment
from reloader.settings.mistakes import ConfigurationInvalid, Mistake
from reloader.settings.model import Document, validate
from reloader.settings.rules import as_written, between_keys, connections
from reloader.settings.tree import Loc, Problem, Tree
from reloader.settings.volumes import PROCESS_WIDE, Configured, between_files, in_volume


def planned(trees: Sequence[tuple[Tree, list[Problem]]], environ: Mapping[str, str], mistakes: list[Mistake]) -> plan.Plan:
    """Return the plan of all files, each with what is known to be wrong with it; `mistakes` are those of files that gave no tree.

    Raises:
        ConfigurationInvalid: any of them has a mistake.

    """
    found = [*mistakes, *environment.override([tree for tree, _ in trees], environ)]
    configured = []
    for tree, problems in trees:
        found += environment.usual(tree, environ)
        document, all_problems = _validated(tree, problems)
        found += tree.mistakes(all_problems)
        if document is not None:
            configured.append(Configured(tree, document))
    found += between_files(configured)
    if found:
        raise ConfigurationInvalid(found)
    return _plan(configured)


def _validated(tree: Tree, problems: list[Problem]) -> tuple[Document | None, list[Problem]]:
    """Return what can be made of a file, and all that is wrong with it."""
    document, invalid = validate(tree)
    found = _beside(problems, [*invalid, *as_written(tree)], within=False)
    if document is not None:
        found = _beside(found, [*between_keys(document, tree), *in_volume(document, tree)], within=True)
    return document, found


def _beside(known: list[Problem], more: list[Problem], *, within: bool) -> list[Problem]:
    """Return the problems known with those that do not only come of them: at the same value or in it, or else holding it."""
    at = [loc for loc, _ in known]
    return known + [(loc, told) for loc, told in more if not any(_related(loc, other, within=within) for other in at)]


def _related(loc: Loc, other: Loc, *, within: bool) -> bool:
    return loc[: len(other)] == other or (within and other[: len(loc)] == loc)


def _plan(files: Sequence[Configured]) -> plan.Plan:
    settings: dict[str, dict[str, Any]] = {"server": {}, "state": {}, "log": {}}
    for section, key in PROCESS_WIDE:
        for file in files:
            if file.tree.has(section, key):
                settings[section][key] = getattr(getattr(file.document, section), key)
    return plan.Plan(
        pipelines=tuple(_pipeline(file.document) for file in files),
        server=plan.Server(**settings["server"]),
        state=plan.State(**settings["state"]),
        log=plan.Log(**settings["log"]),
    )


def _pipeline(document: Document) -> plan.Pipeline:
    if document.target is None:
        raise ValueError("a document without a target is a mistake, and makes no plan")
    return plan.Pipeline(
        name=document.name,
        connections=connections(document),
        sources=document.sources,
        volume=document.volume,
        target=document.target,
        timing=document.timing,
        failure=document.failure,
    )
