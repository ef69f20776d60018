"""One pipeline: waits for a reason to act, runs one cycle; the only thread that writes its volume or touches its target."""

import logging
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from math import inf

from reloader.check import CheckErrored, CheckRefused
from reloader.fileset import RenderFailed
from reloader.internal import told
from reloader.pipeline.closing import Closing
from reloader.pipeline.content import Content
from reloader.pipeline.delivery import Delivery, Refusal
from reloader.pipeline.facts import Freshness, View, facts, report
from reloader.pipeline.fallback import FallbackUnusable
from reloader.pipeline.hand import Hand
from reloader.pipeline.intake import Intake
from reloader.pipeline.parts import Parts
from reloader.pipeline.stages import StageFailed, Stages
from reloader.pipeline.stopping import Stopping
from reloader.policy import Cause, Delivery as State, Verdict, verdict
from reloader.snapshot import Snapshot
from reloader.status import PipelineReport
from reloader.targets import Held, Instance, Trouble
from reloader.volume import VolumeError, VolumeLocked
from reloader.volume.wish import Wish

__all__ = ["Parts", "Pipeline"]

log = logging.getLogger("reloader")

UNSETTLED_LOOK = 1.0
"""How often a pipeline that is not at rest is looked at: ages grow and graces end without an event."""
CYCLE_LIMIT = 60.0
"""How long one cycle may take, beside the operator's check, before the thread counts as stuck."""
EXPECTED = (RenderFailed, CheckRefused, CheckErrored, VolumeError, Held, FallbackUnusable)


class Pipeline:
    """Sources, a volume, a target."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._plan, self._mailbox, self._volume, self._clock = parts.plan, parts.mailbox, parts.volume, parts.world.clock
        stages = Stages(parts.plan.name, parts.metrics, parts.world.clock, EXPECTED, parts.trace)
        self.content = Content(parts.plan, parts.volume, stages, parts.metrics, parts.world)
        self.hand = Hand(parts.plan.name, parts.volume, self.content, stages, parts.world)
        self.delivery = Delivery(
            parts.plan, parts.target, parts.volume, stages, parts.metrics, parts.world, was_refused=self.content.was_refused
        )
        stopping = Stopping(parts.plan.name, parts.target, stages, parts.metrics, parts.world)
        self._closing = Closing(parts.plan, parts.volume, self.content, stopping, stages, parts.world, parts.leave)
        self._intake = parts.intake or Intake(parts.plan.name, {}, parts.mailbox, parts.metrics)
        self._settled_with: tuple[int, tuple[Instance, ...]] = (0, ())
        self._stages = stages
        self._freshness = Freshness(parts.world.clock)
        self._started = self._resync_at = self._clock.now()
        self.due = inf
        """When the thread will have reported next, in seconds of `Clock.awake`; late is stuck."""
        self._opened = self._stopping = False
        self.locked: str | None = None
        """Who has the volume, where somebody else does."""

    def open(self) -> None:
        """Take the volume; one that cannot be taken now is tried again with every cycle.

        Raises:
            VolumeLocked: another reloader has it.

        """
        try:
            with self._stages.stage("open", 0, quiet=True):
                self._volume.open()
        except StageFailed as failed:
            self.content.refuse_volume(failed)
            self.locked = str(failed) if isinstance(failed.cause, VolumeLocked) else None
            if isinstance(failed.cause, VolumeLocked):
                raise failed.cause from None
        else:
            self._opened, self.locked = True, None
            self.content.accept_volume()
            self._freshness.resume(self._volume.record, self._volume.shown_since)
            self.content.resume_rollback()
            self._intake.remember(self._volume.record.filled)

    def stop(self) -> None:
        """Make `run` return once the step in hand has ended; what is owed stays owed in the record."""
        self._stopping = True
        self._mailbox.nudge()

    @property
    def stopping(self) -> bool:
        """Return whether it was asked to stop."""
        return self._stopping

    @property
    def is_asking(self) -> bool:
        """Return whether a target was asked to reload, or is being verified, and has not said yes or no."""
        return self.delivery.is_asking

    def ask(self, wish: Wish) -> "Future[str]":
        """Have something done by hand; the answer tells a person what was, or is NotPossible."""
        answer = self.hand.ask(wish)
        self._mailbox.nudge()
        return answer

    def retry(self) -> None:
        """Have refused content tried again."""
        self.hand.retry()
        self._mailbox.nudge()

    def run(self) -> None:
        """Run cycles until `stop`."""
        self._parts.turnstile.enter(self._plan.name)
        while not self._stopping:
            self.due = self._clock.awake() + CYCLE_LIMIT + self._check_timeout()
            look_at = self._guarded_cycle()
            self.due = look_at - self._clock.suspended() + CYCLE_LIMIT
            self._mailbox.wait(look_at - self._clock.now(), self._parts.target.descriptors())
        self.close()

    def publish_once(self) -> bool:
        """Publish what the sources say now, waiting for them for `startup_grace`; return whether what is published may be relied on."""
        self.content.retry_refused()  # somebody asks for it
        while not self._over():
            snapshot = self._mailbox.take()
            if self._opened and self._publish(snapshot):
                break
            self._mailbox.wait(UNSETTLED_LOOK)
        if self._opened and self._verdict().wants_fallback:
            self.content.fallback.publish(self._mailbox.take())
        self.content.complete_record()
        refused = self.content.rejected or self.content.unwritable
        return self.report().ready and self._volume.published is not None and refused is None

    def _publish(self, snapshot: Snapshot) -> bool:
        """Publish what a person or the snapshot asks for; return whether that was done."""
        self._note_read(snapshot)
        self.hand.obey()
        return self._volume.record.rolled_back is not None or self.content.converge(snapshot, last_reload=None)

    def await_snapshot(self) -> Snapshot:
        """Return what the sources say once each has said something, or what there is when `startup_grace` is over."""
        if not self._opened:
            self._intake.remember(self._volume.peek().filled)
        while self._mailbox.take().missing and not self._over():
            self._mailbox.wait(UNSETTLED_LOOK)
        return self._mailbox.take()

    def close(self) -> None:
        """Write down how old everything is, and free the volume and the target."""
        if self._opened:
            with suppress(VolumeError):
                self._remember_ages()
        self._parts.turnstile.leave(self._plan.name)
        self._parts.target.close()
        self._volume.close()
        self.hand.turn_down("the pipeline ends; ask again")
        self._stages.close()

    def cycle(self) -> float:
        """Make the volume match the snapshot, then the target match the volume; return when to look again."""
        self._intake.release(self._clock.now())
        snapshot, waited = self._mailbox.take(), self.delivery.busy
        self._note_read(snapshot)
        if not self._has_turn():
            self.report()
            return min(self._resync_at, self._clock.now() + UNSETTLED_LOOK)
        self._close_or_open(snapshot)
        if self._ready_to_publish():
            self.hand.obey()
        elif not self._opened:
            self.hand.turn_down("its volume cannot be used now; `reloader status` tells why")
        if self._ready_to_publish():
            self._converge(snapshot)
        if self._opened:
            self.content.follow(snapshot)
        if self._may_deliver():
            self._deliver()
        if not self.delivery.under_way:
            self._parts.turnstile.give(self._plan.name)
        self.content.complete_record()
        known = self.report()
        self._stages.rest(known.published, "failed" if self.delivery.state is State.FAILED else None if known.owed else "ok")
        if waited and not self.delivery.busy:
            return self._clock.now()  # what came meanwhile was not looked at, and its wake-up is used up
        return self._next_look(known)

    def _close_or_open(self, snapshot: Snapshot) -> None:
        """Do what the failure table says of closed pipelines; what an earlier run left has until the grace is over to prove current."""
        heard, judged = all(standing.reading or standing.failure for standing in snapshot.standings.values()), self._verdict()
        self._closing.converge(judged, may_act=(heard or self._over()) and not self._may_open(judged, snapshot))

    def _may_open(self, judged: Verdict, snapshot: Snapshot) -> bool:
        """Return whether nothing is wrong but that nothing good is published, and a set that was not tried yet may be that."""
        untried = snapshot.first_change is not None or (self.content.rejected is None and self.content.unwritable is None)
        may_try = self._opened and judged.may_publish and not snapshot.missing and self._volume.record.rolled_back is None
        return untried and may_try and judged.causes <= {Cause.NOTHING, Cause.WITHDRAWN}

    def _converge(self, snapshot: Snapshot) -> None:
        """Publish what the sources say; or the fallback, where it is time for that."""
        judged = self._verdict()
        if judged.may_publish and self.content.converge(snapshot, last_reload=self._last_reload(), under_way=self.delivery.under_way):
            self._mailbox.taken(snapshot)
        if judged.wants_fallback and self._volume.published is None:
            self.content.fallback.publish(snapshot)

    def _verdict(self) -> Verdict:
        return verdict(facts(self._view()))

    def _view(self) -> View:
        """Return all that is known now."""
        return View(
            self._plan,
            self._mailbox.take(),
            self._volume,
            self._opened,
            self.content,
            self.delivery,
            self._freshness,
            self._closing.in_effect,
            now=self._clock.now(),
            started=self._started,
        )

    def _note_read(self, snapshot: Snapshot) -> None:
        """Remember which sources were read, and which had items, before a set is published that was made of them."""
        if not self._opened:
            return
        record = replace(self._volume.record, filled=self._intake.filled)
        if any(standing.reading is not None and name not in record.ages for name, standing in snapshot.standings.items()):
            ages, current = self._freshness.noted(snapshot)
            record = replace(record, ages=ages, current=current)
        if record != self._volume.record:
            self._volume.note_record(record)

    def _has_turn(self) -> bool:
        """Return whether no other pipeline is at the same process; nobody is asked where this is the only one."""
        turnstile = self._parts.turnstile
        if not turnstile.is_shared:
            return True
        try:
            instances = self._parts.target.instances()
        except Held:
            return True
        return turnstile.take(self._plan.name, instances, self._mailbox.nudge)

    def _may_deliver(self) -> bool:
        """Return whether it is known what the target is to run on: on a volume it is there, what is mounted must be looked at first."""
        return self._opened and (self._plan.volume is not None or self.content.has_compared)

    def _deliver(self) -> None:
        """Hand over what is published; go back where the target refuses it."""
        self.delivery.converge()
        refusal = self.delivery.answer()
        if refusal is not None:
            self._go_back(refusal)
        elif self.delivery.state is State.CONFIRMED:
            self._note_confirmed()
            self._parts.confirmed(self.content.made_at(self.delivery.number))

    def _go_back(self, refusal: Refusal) -> None:
        try:
            gone = self.content.go_back(refusal.number, refusal.reason)
        except StageFailed as failed:
            self.content.refuse_volume(failed)
            gone = False
        if gone:
            self._settled_with = (0, ())  # a target that ended on the refused set is no new one when it is back
            self.delivery.converge()
        else:
            self.delivery.give_up(refusal.reason)

    def _note_confirmed(self) -> None:
        """Remember what runs; a target that is new on what is published may take what the one before refused."""
        number, instances = self._settled_with
        if (number, instances) == (self.delivery.number, self.delivery.instances):
            return
        self._settled_with = self.delivery.number, self.delivery.instances
        self.content.confirmed(self.delivery.number)
        if self.content.rejected is not None and number == self.delivery.number:
            self.content.retry_refused()
            self._mailbox.nudge()

    @property
    def target_left(self) -> bool:
        """Return whether the target ran on what is published, and is there no more."""
        _, instances = self._settled_with
        return bool(instances) and self.delivery.trouble in (Trouble.ABSENT, Trouble.GONE)

    def report(self) -> PipelineReport:
        """Put down how the pipeline fares."""
        known = self._known()
        self._parts.status.put(known)
        return known

    def _known(self) -> PipelineReport:
        view = self._view()
        return replace(report(view, verdict(facts(view))), events=self._stages.events, change=self.content.change)

    def _report_mistake(self, reason: str) -> None:
        """Put down a mistake of ours beside how the pipeline fares; where even that cannot be told, a closed one is not relied on."""
        try:
            known = self._known()
        except Exception:  # noqa: BLE001 - it may be the mistake itself
            mode = self._plan.failure.mode
            before = self._parts.status.reports.get(self._plan.name, PipelineReport(name=self._plan.name, mode=mode, reasons=()))
            known = replace(before, ready=before.ready and mode == "open", reasons=tuple(each for each in before.reasons if each != reason))
        self._parts.status.put(replace(known, degraded=True, reasons=(*known.reasons, reason)))

    def _guarded_cycle(self) -> float:
        """Run a cycle; a mistake of ours degrades this pipeline, and ends neither it nor the others."""
        try:
            self._resync()
            return self.cycle()
        except Exception as error:
            reason = told(error)
            self._stages.failed("cycle", reason, 0)
            log.debug("cycle", exc_info=True)
            self._report_mistake(reason)
            return self._clock.now() + UNSETTLED_LOOK

    def _resync(self) -> None:
        """Look at everything once in a while, whether anything seemed to change or not."""
        now = self._clock.now()
        if now < self._resync_at:
            return
        self._resync_at = now + self._plan.timing.resync
        self._parts.look()
        if not self._opened:
            with suppress(VolumeLocked):  # reported as what keeps the volume from being written
                self.open()
        self.content.look_again()
        if self._opened:
            self._volume.sweep(now)
            with suppress(StageFailed), self._stages.stage("record", 0, quiet=True):
                self._remember_ages()

    def _remember_ages(self) -> None:
        ages, current = self._freshness.noted(self._mailbox.take())
        self._volume.remember(replace(self._volume.record, ages=ages, current=current))

    def _ready_to_publish(self) -> bool:
        return self._opened and not self.delivery.busy

    def _last_reload(self) -> float | None:
        """Return when the target was last given something to read."""
        published = self._volume.published
        known = [at for at in (self.delivery.last_signal, published.at if published else None) if at is not None]
        return max(known, default=None)

    def _next_look(self, known: PipelineReport) -> float:
        now = self._clock.now()
        may_publish = self._ready_to_publish() and self._verdict().may_publish
        wanted = [self._resync_at, self._intake.look_at, self.content.look_at if may_publish else inf, self.delivery.look_at]
        wanted.append(self._closing.look_at)
        ends = [end for source in known.sources for end in (source.current_until, source.expires) if end is not None]
        if known.degraded or any(not source.up for source in known.sources) or any(end <= now for end in ends):
            wanted.append(now + UNSETTLED_LOOK)
        return min(*wanted, *(end for end in ends if end > now), inf)

    def _over(self) -> bool:
        return self._clock.now() - self._started >= self._plan.failure.startup_grace

    def _check_timeout(self) -> float:
        check = self._plan.volume.check if self._plan.volume else None
        return check.timeout if check else 0.0
