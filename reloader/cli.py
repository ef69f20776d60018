"""The command line, and what each outcome's exit status is: 0 done, 1 failed or closed, 2 configuration, 3 the volume is another's.

Each command imports what it takes: it begins sooner, and a sidecar keeps for good whatever was imported.
"""

import argparse
import json
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reloader import __version__, logs, privacy, settings
from reloader.plan import Pipeline, Plan
from reloader.settings.apart import Asked, Loading
from reloader.words import counted
from reloader.world import World
from reloader.world.signals import Signals
from reloader.written import signal_name

if TYPE_CHECKING:
    from reloader.onlooker import Onlooker

DONE, FAILED, MISCONFIGURED, LOCKED = 0, 1, 2, 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    options = _parser().parse_args(arguments)
    command: Any = options.command
    try:
        return int(command(options))
    except settings.ConfigurationInvalid as invalid:
        print(invalid, file=sys.stderr)
        return MISCONFIGURED


def _run(options: argparse.Namespace) -> int:
    signals = Signals()
    signals.catch((signal.SIGTERM, signal.SIGINT, signal.SIGHUP))  # what comes while it starts is obeyed once it runs
    world = World()
    try:
        loading = Loading(_asked(options), world.children)
        from reloader.backends import import_clients  # beside the loading, which takes as long
        from reloader.supervisor import Supervisor
        from reloader.volume import VolumeLocked

        plan = _startable(loading.plan(import_clients))
    except ChildProcessError as reason:
        return _failed(reason)
    logs.set_up(plan.log)
    privacy.tell()
    places = settings.places(options.files, options.watch, os.environ)
    try:
        supervisor = Supervisor(plan, places, lambda: _startable(Loading(_asked(options), world.children).plan()), world, signals)
    except OSError as error:
        return _failed(f"cannot listen on {plan.server.listen}: {_said(error)}; set server.listen, or off for none")
    try:
        return supervisor.run()
    except VolumeLocked as locked:
        return _failed(locked, LOCKED)


def _said(error: OSError) -> str:
    """Return the words of the system, which Python adds to; a resolver has its own, by numbers below 0."""
    number = error.errno or 0
    return os.strerror(number) if number > 0 else str(error.strerror or error).partition(" (while ")[0]


def _once(options: argparse.Namespace) -> int:
    from reloader.once import once
    from reloader.volume import VolumeLocked

    plan = _startable(_plan(options)[0])
    logs.set_up(plan.log)
    try:
        outcomes = once(plan, World(), dry_run=options.dry_run)
    except VolumeLocked as locked:
        return _failed(locked, LOCKED)
    for name, outcome in outcomes.items():
        for reason in outcome.reasons:
            print(f"reloader: {name}: {reason}", file=sys.stderr)
    done = all(outcome.done for outcome in outcomes.values())
    if options.dry_run and done:
        print("".join(outcome.diff for outcome in outcomes.values()) or "nothing would change")
    return DONE if done else FAILED


def _check(options: argparse.Namespace) -> int:
    from reloader.advice import delays
    from reloader.online import online

    plan, files = _plan(options)
    good = True
    if options.online:
        logs.set_up(plan.log)
    for pipeline in plan.pipelines:
        print("\n".join(_summary(pipeline)), flush=True)
        for seen in online(pipeline, World()) if options.online else ():
            print(f"  {'answers' if seen.good else 'FAILED':<8} {seen.name}: {seen.told}", flush=True)
            good = good and seen.good
    for each in delays(plan.pipelines):
        print(f"advice   {each}")
    print(f"{counted(len(files), 'file')}, no mistakes" if files else "no file, no mistakes")
    return DONE if good else FAILED


def _status(options: argparse.Namespace) -> int:
    from reloader.onlooker import Unanswered, show, watch

    onlooker = _onlooker(options)
    if options.over:
        watch(onlooker.ask, sys.stdout, as_json=options.json)
        return DONE
    try:
        document = onlooker.ask()
    except Unanswered as reason:
        return _failed(reason)
    show(document, sys.stdout, as_json=options.json)
    return DONE if document["ready"] else FAILED


def _onlooker(options: argparse.Namespace) -> "Onlooker":
    from reloader.onlooker import Onlooker
    from reloader.state import state_directory

    if options.address:
        return Onlooker(None, options.address)
    try:
        plan = _plan(options)[0]
    except settings.NoConfiguration:  # as beside `run --watch`
        plan = Plan(pipelines=())
    except settings.ConfigurationInvalid as invalid:
        if options.files:
            raise
        print(f"{invalid}\nreloader: so the one is asked that listens where it does by default", file=sys.stderr)
        plan = Plan(pipelines=())
    return Onlooker(state_directory(plan.state), plan.server.listen)


def _by_hand(options: argparse.Namespace) -> int:
    from reloader import by_hand
    from reloader.volume.wish import NotPossible, Wish

    asked = Wish(act=options.act, generation=getattr(options, "generation", None))
    try:
        answer = by_hand.do(_plan(options)[0], options.pipeline, asked, World())
    except NotPossible as reason:
        return _failed(reason)
    for line in answer["said"]:
        print(line if answer["done"] else f"reloader: {line}", file=sys.stdout if answer["done"] else sys.stderr)
    return DONE if answer["done"] else FAILED


def _demo(_options: argparse.Namespace) -> int:
    from reloader.demo import demo

    return DONE if demo(sys.stdout) else FAILED


def _doctor(options: argparse.Namespace) -> int:
    from reloader import doctor

    logging.getLogger("reloader").addHandler(logging.NullHandler())  # what is logged of a read is told as a finding

    def configured(files: Sequence[Path]) -> tuple[Plan, tuple[Path, ...]]:
        return _plan(argparse.Namespace(**{**vars(options), "files": files}))

    patient = doctor.patient_of(options.files, options.manifest, configured)
    findings = tuple(doctor.examine(patient))
    if options.json:
        print(json.dumps(doctor.document(patient, findings), indent=1))
    else:
        print("\n".join(doctor.lines(patient, findings, colour=sys.stdout.isatty() and "NO_COLOR" not in os.environ)))
    if patient.mistakes:
        return MISCONFIGURED
    return FAILED if doctor.worst(findings) is doctor.State.FAILED else DONE


def _startable(plan: Plan) -> Plan:
    """Return the plan, if it can run here; `check` may run where that is otherwise.

    Raises:
        ConfigurationInvalid: the owner of a file is unknown here or may not be set.

    """
    from reloader.volume import owners

    mistakes = []
    for pipeline, volume in ((each.name, each.volume) for each in plan.pipelines if each.volume is not None):
        for name, file in volume.files.items():
            try:
                owners.resolve(file.owner, file.group, _group_of(Path(volume.path), owners.KEEP))
            except owners.OwnerRefused as refused:
                mistakes.append(settings.Mistake(pipeline, f"volume.files.{name}", str(refused)))
    if mistakes:
        raise settings.ConfigurationInvalid(mistakes)
    return plan


def _group_of(path: Path, otherwise: int) -> int:
    return path.stat().st_gid if path.is_dir() else otherwise


def _failed(reason: object, status: int = FAILED) -> int:
    print(f"reloader: {reason}", file=sys.stderr)
    return status


def _plan(options: argparse.Namespace) -> tuple[Plan, tuple[Path, ...]]:
    """Return the plan that the command line, the files and the environment ask for, and the files."""
    return settings.find(*_asked(options))


def _asked(options: argparse.Namespace) -> Asked:
    given = {"SERVER__LISTEN": options.listen, "LOG__LEVEL": options.log_level, "LOG__FORMAT": options.log_format}
    environ = {**os.environ, **{f"RELOADER_{name}": value for name, value in given.items() if value}}
    return options.files, options.watch, options.process, options.signal, environ


def _summary(pipeline: Pipeline) -> list[str]:
    """Return what a pipeline would read, write and signal, and what would serve it better."""
    from reloader.advice import advice
    from reloader.volume.in_place import COST

    lines = [f"pipeline {pipeline.name} (fail-{pipeline.failure.mode})"]
    lines += [f"  reads    {name}: {source.kind} {_what(source.settings)}" for name, source in pipeline.sources.items()]
    if pipeline.volume is not None:
        names = [*pipeline.volume.files, *([f"every file of {pipeline.volume.copy}"] if pipeline.volume.copy else [])]
        lines += [f"  writes   {pipeline.volume.path}/{name}" for name in names]
        lines += [f"  beware   {COST}"] if pipeline.volume.in_place else []
    lines.append(f"  signals  {pipeline.target.kind} {_what(pipeline.target.settings)}".rstrip())
    return [*lines, *(f"  advice   {each}" for each in advice(pipeline))]


def _what(settings_of_kind: Any) -> str:
    """Return what a kind's settings say; of a mapping, which may hold a secret, only the names."""
    if settings_of_kind is None:
        return ""
    given = ((each, getattr(settings_of_kind, each.name)) for each in fields(settings_of_kind))
    told = ((each.name, value) for each, value in given if each.name == "signal" or value not in (each.default, None))
    return ", ".join(f"{name} {signal_name(value) if name == 'signal' else _shown(value)}" for name, value in told)


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"({', '.join(value)})"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}s"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value) or "''"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="reloader", description="Renders configuration onto a shared volume, and makes a running process take it."
    )
    parser.add_argument("--version", action="version", version=f"reloader {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = _command(commands, "run", _run, "the sidecar: watch, render, publish, signal")
    first = _command(commands, "once", _once, "one render and publish, then exit: init containers, CI")
    first.add_argument("--dry-run", action="store_true", help="print what would change, secrets masked, and change nothing")
    check = _command(commands, "check", _check, "validate configuration and templates without touching a server")
    check.add_argument("--online", action="store_true", help="also read each source once, and show what came, without a value")
    doctor = _command(commands, "doctor", _doctor, "try each thing in place, and name what mends it")
    doctor.add_argument("--json", action="store_true", help="the findings as a document")
    manifest_help = "a Pod, Deployment, StatefulSet or DaemonSet, also in a stream; - for the standard input"
    doctor.add_argument("--manifest", action="append", default=[], type=Path, metavar="FILE", help=manifest_help)
    status = _command(commands, "status", _status, "what the running one knows", configured_by="files alone")
    status.add_argument("--json", action="store_true", help="the whole document")
    status.add_argument("--watch", dest="over", action="store_true", help="go on showing it, until Ctrl-C")
    status.add_argument("--address", metavar="HOST:PORT", help="where it listens (default: as configured)")
    back = _command(commands, "rollback", _by_hand, "put an earlier generation back, and hold it", configured_by="--config")
    back.add_argument("generation", nargs="?", type=int, metavar="GENERATION", help="which (default: the newest that was confirmed before)")
    on = _command(commands, "resume", _by_hand, "let go of what is held, and try what was refused again", configured_by="--config")
    for each, act in ((back, "rollback"), (on, "resume")):
        each.set_defaults(act=act)
        each.add_argument("--pipeline", metavar="NAME", help="which, where there are several")
    commands.add_parser("demo", help="a real change travelling to a real process on this machine").set_defaults(command=_demo)
    for each in (run, first):
        each.add_argument("--log-level", choices=("debug", "info", "warning", "error"))
        each.add_argument("--log-format", choices=("json", "logfmt", "console"))
    run.add_argument("--listen", metavar="ADDRESS", help="where the endpoints are served, such as [::]:9533, or off")
    return parser


def _command(commands: Any, name: str, command: Any, text: str, configured_by: str = "files") -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(command=command, listen=None, log_level=None, log_format=None, watch=[], process="", signal=None)
    if configured_by.startswith("files"):
        parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="a configuration file; one pipeline each")
    else:
        parser.add_argument(configured_by, dest="files", action="append", default=[], type=Path, metavar="FILE", help="as for run")
    if configured_by == "files alone":
        return parser
    parser.add_argument("--watch", action="append", default=[], metavar="DIR", help="no file: watch this mounted directory")
    parser.add_argument("--process", default="", metavar="NAME", help="no file: the process to signal")
    parser.add_argument("--signal", metavar="SIGNAL", help="no file: the signal, HUP unless told otherwise")
    return parser
