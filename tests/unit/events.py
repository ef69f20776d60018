"""What may happen to a pipeline in virtual time, and a model of what it may tell and serve then, which knows nothing of its code."""

import errno
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from reloader.plan import CLOSING, FailurePolicy, StopTarget
from reloader.snapshot import FailureKind
from reloader.targets import Trouble
from reloader.volume.wish import Wish
from tests.unit.virtual_pod import FILE, App, Crash, Machine, Sidecar, failure, make_plan, reading

GRACE, OLDEST, LIMIT = 30.0, 600.0, 35.0
AFTERWARDS = (0.0, 0.0, 0.2, 1.0, 5.0, 29.0, 31.0, 36.0, 100.0, 599.0, 601.0, 4000.0)
"""How many seconds pass after what happens."""
AT_ONCE = 12
"""How many cycles in a row may want another one at once."""
SLACK = 3.0
"""How many seconds after its limit something is known to have been seen; a pipeline that is not at rest looks each second."""
MOMENT = 0.01
"""What lies this close to a limit may be on either side of it."""
FAULTS = {"full": errno.ENOSPC, "read-only": errno.EROFS, "failing": errno.EIO}


@dataclass
class Source:
    """What is true of one source, and what was told of it."""

    mode: str
    value: str = ""
    kind: str = "good"
    """Or what does not take its value: `template`, `check`, `target`."""
    down: FailureKind | None = None
    poll: float = inf
    lease: float | None = None
    told: str | None = None
    """The value that this run was told last."""
    told_kind: str = "good"
    failing: bool = False
    known: float = -inf
    """Until when it is known to have been current, in true time; infinite while it is watched."""
    expires: float = inf
    uncertain: bool = False
    """Nobody can tell how old what an earlier boot knew of it is, because the wall clock was set."""
    history: list[str] = field(default_factory=list)

    def good(self, now: float, oldest: float) -> bool:
        return now < self.expires + MOMENT and now - min(self.known, now) <= oldest + MOMENT


@dataclass(frozen=True, kw_only=True)
class Setup:
    """A pipeline as its operator may configure it, and how it begins."""

    mode: str
    sources: dict[str, tuple[str | None, float | None]]
    """The mode and the lease of each."""
    actions: tuple[str, ...]
    oldest: float
    retry: float
    fallback: bool
    proves_completion: bool
    app_first: bool
    answers_first: bool


def setups(
    leases: tuple[float | None, ...] = (None, None, 20.0, 3600.0), retries: tuple[float, ...] = (300.0, inf)
) -> st.SearchStrategy[Setup]:
    source = st.tuples(st.sampled_from([None, None, "open", "closed"]), st.sampled_from(leases))
    actions = st.lists(st.booleans(), min_size=4, max_size=4).map(
        lambda listed: tuple(
            name for name, is_listed in zip(CLOSING, listed, strict=True) if is_listed and (name != "stop_target" or listed[1])
        )
    )
    return st.builds(
        Setup,
        mode=st.sampled_from(["open", "closed"]),
        sources=st.lists(source, min_size=1, max_size=2).map(lambda drawn: dict(zip("ab", drawn, strict=False))),
        actions=actions,
        oldest=st.sampled_from([OLDEST, OLDEST, inf]),
        retry=st.sampled_from(retries),
        fallback=st.sampled_from([False, False, True]),
        proves_completion=st.booleans(),
        app_first=st.booleans(),
        answers_first=st.booleans(),
    )


KINDS_OF_EVENTS: dict[str, dict[str, st.SearchStrategy[Any]]] = {}
"""What may happen, by the name of its method, and what that takes."""


def happens(**drawn: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a rule of what happens, which is followed by some time."""

    def made(event: Callable[..., None]) -> Callable[..., None]:
        def happening(self: "Events", *, after: float, **given: Any) -> None:
            event(self, **given)
            self._pass(after)

        happening.__name__, happening.__doc__ = event.__name__, event.__doc__
        KINDS_OF_EVENTS[event.__name__] = takes = {"after": st.sampled_from(AFTERWARDS), **drawn}
        return rule(**takes)(happening)

    return made


class Events(RuleBasedStateMachine):
    """What may happen, in any order, and what holds after each cycle."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
        self.machine = Machine()
        self.app = App(self.machine, self.folder / "live")
        self.sidecar: Sidecar | None = None
        self.broken = False
        self.stepped = False
        self.served: str | None = None
        """What readers saw after the last cycle."""
        self.served_since = -inf
        self.counter = 0
        self.by_hand = False
        """Whether a person asked for something since the last change of what is served."""
        self.held = False
        self.closed_since: float | None = None
        self.ever_confirmed: set[str] = set()
        self.disk_since: float | None = None
        self.trouble_since: float | None = None
        self.bad_since: float | None = None
        self.heeds_since: float | None = None
        """Since when newer content is tried at once."""

    # What there is

    @initialize(setup=setups())
    def begin(self, setup: "Setup") -> None:
        self.mode, self.oldest, self.actions = setup.mode, setup.oldest, set(setup.actions)
        self.sources = {name: Source(mode or self.mode, lease=lease) for name, (mode, lease) in setup.sources.items()}
        if setup.fallback:
            (self.folder / "fallback").mkdir()
            (self.folder / "fallback" / FILE).write_text('{"fallback": 1}')
        failure_policy = FailurePolicy(
            mode=self.mode,
            startup_grace=GRACE,
            max_staleness=self.oldest,
            retry_refused=setup.retry,
            fallback=str(self.folder / "fallback") if setup.fallback else None,
            when_closed=tuple(StopTarget() if action == "stop_target" else action for action in setup.actions),
        )
        self.plan = make_plan(self.folder, {name: mode for name, (mode, _) in setup.sources.items()}, failure_policy)
        self.app.proves_completion = setup.proves_completion
        for name in self.sources:
            self._change(name, "good")
        if setup.app_first:
            self.app.appear()
        self._start()
        if setup.answers_first:
            for name in self.sources:
                self._answer(name)
        self._settle()

    @property
    def time(self) -> float:
        return self.machine.time

    # What happens to the sources

    @happens(name=st.sampled_from("ab"))
    def a_source_changes(self, name: str) -> None:
        self._change(self._one(name), "good")
        self._answer(self._one(name))

    @happens(name=st.sampled_from("ab"), kind=st.sampled_from(["template", "check", "target"]))
    def a_source_changes_to_what_is_not_taken(self, name: str, kind: str) -> None:
        self._change(self._one(name), kind)
        self._answer(self._one(name))

    @happens()
    def all_sources_change(self) -> None:
        for name in self.sources:
            self._change(name, "good")
            self._answer(name)

    @happens(name=st.sampled_from("ab"))
    def a_source_answers(self, name: str) -> None:
        self._answer(self._one(name))

    @happens(name=st.sampled_from("ab"), kind=st.sampled_from([FailureKind.UNREACHABLE, FailureKind.REFUSED, None, None]))
    def a_server_goes_or_comes(self, name: str, kind: FailureKind | None) -> None:
        self.sources[self._one(name)].down = kind
        self._answer(self._one(name))

    @happens(name=st.sampled_from("ab"), poll=st.sampled_from([30.0, 300.0, inf]))
    def a_source_is_read_otherwise(self, name: str, poll: float) -> None:
        """Polled instead of watched, or the other way round."""
        self.sources[self._one(name)].poll = poll
        self._answer(self._one(name))

    def _one(self, name: str) -> str:
        return name if name in self.sources else "a"

    def _change(self, name: str, kind: str) -> None:
        self.counter += 1
        source = self.sources[name]
        source.value = f"{name}{self.counter}{'!' if kind == 'target' else ''}"
        source.kind = kind

    def _answer(self, name: str) -> None:
        source, sidecar = self.sources[name], self.sidecar
        assert sidecar is not None
        if source.down is not None:
            sidecar.put(name, failure(source.down, self.machine))
            source.known, source.failing = min(source.known, self.time), True
            return
        value = {"template": {}, "check": {"x": f'{source.value}"'}}.get(source.kind, {"x": source.value})
        expires = None if source.lease is None else self.machine.now + source.lease
        sidecar.put(name, reading(value, self.machine, lasts=source.poll, expires=expires))
        source.told, source.told_kind, source.failing, source.uncertain = source.value, source.kind, False, False
        source.known = self.time + source.poll
        source.expires = inf if source.lease is None else self.time + source.lease
        source.history.append(source.value)
        spoken = all(each.told is not None for each in self.sources.values())
        bad = spoken and any(each.told_kind in ("template", "check") for each in self.sources.values())
        self.bad_since = None if not bad else self.bad_since or self.time

    # What happens to the time

    @happens()
    def nothing_happens(self) -> None:
        pass

    @happens(seconds=st.sampled_from([-90000.0, -3600.0, -61.0, -1.0, 1.0, 61.0, 3600.0, 90000.0]))
    def the_wall_clock_is_set(self, seconds: float) -> None:
        self.machine.ahead += seconds
        self.stepped = True
        for source in self.sources.values():
            source.uncertain |= source.told is None and self.machine.boots > 1

    def _pass(self, seconds: float) -> None:
        end = self.time + seconds
        for _ in range(8):  # then it starves for the rest: whoever looks late must come to the same
            look = self._settle()
            if look >= end - self.machine.booted:
                break
            self.machine.time = max(self.time, look + self.machine.booted)
        self.machine.time = end

    # What happens to the sidecar and its machine

    @happens(away=st.sampled_from([0.0, 1.0, 700.0]))
    def the_sidecar_restarts(self, away: float) -> None:
        self._stop()
        self._back(away)

    @happens(away=st.sampled_from([0.0, 1.0, 700.0]))
    def the_sidecar_is_killed(self, away: float) -> None:
        self._die()
        self._back(away)

    @happens(calls=st.integers(0, 12))
    def the_sidecar_is_killed_amid_its_next_changes(self, calls: int) -> None:
        self.machine.crash_in = calls

    @happens(clean=st.booleans())
    def the_machine_reboots(self, clean: bool) -> None:
        (self._stop if clean else self._die)()
        up = self.app.instance is not None
        self.app.end()
        self.machine.reboot()
        for source in self.sources.values():
            source.uncertain |= self.stepped
        self._start()
        if up:
            self.app.appear()

    def _stop(self) -> None:
        assert self.sidecar is not None
        try:
            self.sidecar.close()
        except Crash:
            self.sidecar.die()
        self._gone()

    def _die(self) -> None:
        assert self.sidecar is not None
        if self.closed_since is not None:  # it may have been about to withdraw
            self.served = self.app.shown
        self.sidecar.die()
        self._gone()

    def _gone(self) -> None:
        self.machine.crash_in = None
        for source in self.sources.values():
            source.known, source.told, source.failing, source.told_kind = min(source.known, self.time), None, False, "good"
            # The record knows it by the wall clock alone, and of what was published.
            source.expires = inf if self.stepped or not self._values(self.served or "{}") else source.expires
        self.bad_since = self.disk_since = self.heeds_since = None
        self.closed_since = None

    def _back(self, away: float) -> None:
        self.machine.time += away
        self._start()

    def _start(self) -> None:
        self.sidecar = Sidecar(self.plan, self.machine, self.app)
        self.disk_since = self.time if self.machine.disk_trouble is not None else None
        try:
            self.sidecar.pipeline.open()
        except Crash:
            self._die()
            self._start()

    # What happens to the application

    @happens(says=st.sampled_from(["confirms", "confirms", "refuses", "is silent", "takes its time"]))
    def the_application_will_say(self, says: str) -> None:
        self.app.says = says

    @happens(trouble=st.sampled_from([None, None, Trouble.AMBIGUOUS, Trouble.PERMISSION, Trouble.IGNORED, Trouble.NOT_READY]))
    def the_application_cannot_be_asked(self, trouble: Trouble | None) -> None:
        self.app.trouble = trouble
        self.trouble_since = None if trouble is None else self.time

    @happens(stubborn=st.booleans())
    def the_application_starts(self, stubborn: bool) -> None:
        self.app.appear()
        self.app.stubborn = stubborn

    @happens()
    def the_application_ends(self) -> None:
        self.app.end()

    # What happens to the volume, and by hand

    @happens(fault=st.sampled_from([None, None, *FAULTS]))
    def the_disk_fails_or_recovers(self, fault: str | None) -> None:
        self.machine.disk_trouble = FAULTS[fault] if fault else None
        self.disk_since = None if fault is None else self.disk_since or self.time

    @happens(calls=st.integers(0, 12))
    def a_change_of_the_disk_will_fail_once(self, calls: int) -> None:
        self.machine.fail_in = calls

    @happens()
    def a_person_puts_an_earlier_set_back(self) -> None:
        self._ask(Wish(act="rollback"))

    @happens()
    def a_person_lets_go(self) -> None:
        self._ask(Wish(act="resume"))

    @happens()
    def a_person_sends_sighup(self) -> None:
        assert self.sidecar is not None
        self.sidecar.pipeline.retry()
        self.sidecar.pipeline.content.look_again()

    def _ask(self, wish: Wish) -> None:
        assert self.sidecar is not None
        self.by_hand = True
        answer = self.sidecar.pipeline.ask(wish)
        self._settle()
        if answer.done() and answer.exception() is None:
            self.held = wish.act == "rollback"

    # What follows

    def _settle(self) -> float:
        """Run cycles until none is wanted at once; return when the next one is."""
        try:
            return self._cycles()
        except Exception:
            self.broken = True
            raise

    def _cycles(self) -> float:
        for _ in range(AT_ONCE):
            self.machine.time += 1e-4
            look = self._cycle()
            if look > self.machine.now:
                return look
        raise AssertionError(f"{AT_ONCE} cycles in a row want another one at once")

    def _cycle(self) -> float:
        assert self.sidecar is not None
        stops = len(self.app.stops)
        try:
            look = self.sidecar.cycle()
        except Crash:
            self._die()
            self._start()
            return self._cycle()
        self._check(stops)
        if self.sidecar.left:
            self._stop()
            self.machine.time += 10.0
            self._start()
            return self.machine.now
        return look

    # What holds

    def _check(self, stops: int) -> None:
        assert self.sidecar is not None
        report, now = self.sidecar.report, self.time
        before, self.served = self.served, self.app.shown
        if self.app.confirmed is not None:
            self.ever_confirmed.add(self.app.confirmed)
        if before != self.served:
            self._check_change(before, self.served)
            self.served_since = now
            self.by_hand = self.held
        taken = self.sidecar.pipeline._opened
        heeds = taken and self.app.says in ("confirms", "refuses")  # newer content waits for a target that is reading
        self.heeds_since = (self.heeds_since or now) if heeds else None
        self._check_ready(report.ready, report.closed, taken=taken)
        if taken and self.mode == "closed":
            self._check_what_lasts(report.closed)
        if report.closed:
            self.closed_since = self.closed_since or now
        self._check_actions(report.closed_by, stops)
        if not report.closed:
            self.closed_since = None

    @property
    def closed_sources(self) -> list[Source]:
        return [source for source in self.sources.values() if source.mode == "closed"]

    @property
    def heard(self) -> bool:
        assert self.sidecar is not None
        all_spoke = all(source.told or source.failing for source in self.sources.values())
        return all_spoke or self.time - self.sidecar.started >= GRACE - 0.01

    def _check_ready(self, ready: bool, closed: bool, *, taken: bool) -> None:
        served, on_fallback = self.served, self.served is not None and "fallback" in self.served
        stale = [source for source in self.closed_sources if not source.uncertain and not source.good(self.time, self.oldest)]
        if ready and "not_ready" in self.actions:
            lacking = {source.mode for source in self.sources.values() if source.told is None or source.failing}
            decides = lacking or {self.mode}
            assert served is not None or "closed" not in decides, "a closed pipeline is ready with nothing"
            assert not (stale and served), f"ready on what is too old: {stale}"
            assert not (self.mode == "closed" and on_fallback)
        if stale and served and taken:
            assert closed, f"not closed though a source is too old: {stale}"
        if not self.closed_sources and self.mode == "open":
            assert not closed, "an open pipeline closed"
            assert ready or served is None or not taken or on_fallback, "an open pipeline is not ready on what works"

    def _check_what_lasts(self, closed: bool) -> None:
        """What is wrong for longer than it may be closes a closed pipeline, whatever was tried in the meantime."""
        assert self.sidecar is not None
        if self.served is None or self.held or closed:
            return
        now, started = self.time, self.sidecar.started
        bad = None if self.bad_since is None or self.heeds_since is None else max(self.bad_since, self.heeds_since)
        assert bad is None or now - bad <= self.oldest + SLACK, "newer content was refused for too long"
        instance = self.app.instance
        runs_on_less = instance is not None and instance.started + self.machine.booted <= self.served_since
        asked = runs_on_less and self.app.trouble in (Trouble.AMBIGUOUS, Trouble.PERMISSION, Trouble.IGNORED)
        unread = self.app.reads != self.served  # otherwise it was asked before, and takes its time
        if asked and unread and self.trouble_since is not None:
            since = max(self.trouble_since, self.served_since, started)
            assert now - since <= GRACE + SLACK, "the target could not be asked for too long"

    def _check_change(self, before: str | None, after: str | None) -> None:
        """Whatever readers see next: it was told by the sources, nothing of it is worse than what it replaced, and it was due."""
        assert self.sidecar is not None
        values = [] if after is None else self._values(after)
        told = all(value in source.history for value, source in zip(values, self.sources.values(), strict=True)) if values else True
        assert told, f"{after} was never told"
        if before is None and values and not self.by_hand:
            stale = [each for each in self.closed_sources if not each.uncertain and not each.good(self.time, self.oldest)]
            assert not stale, f"a first set of what is too old: {stale}"
        if after is None:
            refused = before in self.app.refused and not self.ever_confirmed
            assert refused or self.closed_since is not None, f"{before} was taken away for nothing"
        elif before is not None and "fallback" in after:
            assert self.by_hand or before in self.app.refused, "the fallback took the place of something"
        elif before is not None and values and "fallback" not in before and not self.by_hand:
            older = [old for old, new in zip(self._values(before), values, strict=True) if _number(new) < _number(old)]
            assert not older or before in self.app.refused or not {*older}.isdisjoint(self._refused_values()), f"{before} -> {after}"

    def _refused_values(self) -> set[str]:
        return {value for text in self.app.refused if text for value in self._values(text)}

    def _values(self, text: str) -> list[str]:
        return [] if "fallback" in text else list(json.loads(text).values())

    def _check_actions(self, closed_by: tuple[str, ...], stops: int) -> None:
        sidecar = self.sidecar
        assert sidecar is not None
        assert set(closed_by) <= self.actions
        stopped, left = len(self.app.stops) > stops, sidecar.left
        since = inf if self.closed_since is None else self.time - self.closed_since
        if stopped:
            assert "stop_target" in self.actions
            assert self.closed_since is not None
            assert self.heard
            assert not any(self.app.stops[stops:]) or since >= LIMIT, "stopped before its set was withdrawn"
        if left:
            assert "exit" in self.actions
            assert self.closed_since is not None
            assert self.heard
            shown = sidecar.shown_when_left
            lacks = shown is None or "fallback" in shown
            assert "withdraw" not in self.actions or lacks or since >= LIMIT, "left before its set was withdrawn"

    # What it comes to

    def teardown(self) -> None:
        try:
            if not self.broken and self.sidecar is not None:
                self._heal()
        finally:
            self.end()

    def end(self) -> None:
        if self.sidecar is not None:
            self.sidecar.die()
        shutil.rmtree(self.folder)

    def _heal(self) -> None:
        """Without a cause, in time, all is well."""
        assert self.sidecar is not None
        self.machine.disk_trouble = self.machine.crash_in = self.machine.fail_in = None
        self.app.trouble, self.app.says, self.app.stubborn = None, "confirms", False
        self.disk_since = None
        for name, source in self.sources.items():
            source.down, source.poll, source.lease = None, inf, None  # nothing ends any more
            self._change(name, "good")
            self._answer(name)
        if self.app.instance is None:
            self.app.appear()
        for _ in range(100):
            if self.sidecar.report.held is not None:
                self._ask(Wish(act="resume"))
            self._pass(5.0)
            for name in self.sources:
                if self.sources[name].told is None:
                    self._answer(name)
            if self.app.instance is None:
                self.app.appear()
            if self._is_well():
                break
        else:
            raise AssertionError(f"it does not heal: {self.sidecar.report}")
        self._pass(70.0)
        assert self._is_well()

    def _is_well(self) -> bool:
        assert self.sidecar is not None
        report = self.sidecar.report
        wanted = [source.value for source in self.sources.values()]
        newest = self.served is not None and self._values(self.served) == wanted
        runs = self.app.reads == self.served
        return newest and runs and report.ready and not report.degraded and not report.closed and report.owed is None


def _number(value: str) -> int:
    found = re.search("[0-9]+", value)
    assert found is not None
    return int(found[0])
