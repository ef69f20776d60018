"""Makes the volume match the snapshot: render, check, one rename. What is refused stays where it came from."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf

from reloader.certificates import first_to_end, texts_in
from reloader.check import CheckRefused
from reloader.fileset import Rendered, RenderFailed
from reloader.pipeline.fallback import Fallback
from reloader.pipeline.holding import Holding
from reloader.pipeline.made import Made
from reloader.pipeline.making import Making, Values
from reloader.pipeline.publishing import Publishing
from reloader.pipeline.refusals import Refusals
from reloader.pipeline.stages import StageFailed, Stages
from reloader.plan import Pipeline as Plan
from reloader.schedule import Backoff, Pace
from reloader.snapshot import Snapshot
from reloader.status import Change, Metrics
from reloader.volume import Mounted, Volume, VolumeError
from reloader.world import World

ERRORED = Backoff(base=1.0, cap=60.0)
"""How soon a publish is tried again that failed for want of room, right or a program."""

LEAST_EXTENSION = 1.0
"""By how many seconds the end of a set must change to be written down again: the two clocks never differ by the same amount."""
AGAIN = 1.0
"""How soon to look again whether what is held may be tried."""


@dataclass(frozen=True)
class Rejected:
    """Newer content that is not published, and since when."""

    stage: str
    reason: str
    since: float
    refused: bool
    """Somebody said no, rather than that it could not be tried."""


class Content:
    """The first convergence of one pipeline. It never waits: `look_at` says when it wants to be called again."""

    def __init__(self, plan: Plan, volume: Volume | Mounted, stages: Stages, metrics: Metrics, world: World) -> None:
        self._plan = plan
        self._volume = volume
        self._stages = stages
        self._metrics = metrics
        self._world = world
        self._making = Making(plan, volume)
        self._publishing = Publishing(plan, stages, metrics, world)
        self._holding = Holding()
        self._made = Made()
        self._refusals = Refusals(volume, plan.failure.retry_refused, (plan.volume and plan.volume.check, plan.target), world)
        self._pace = Pace(settle=plan.timing.settle, settle_max=plan.timing.settle_max, min_interval=plan.timing.min_interval)
        self._candidate = self._retried = ""
        self._failures = 0
        self.fallback = Fallback(plan, volume, self._publishing, self._refusals, stages, world)
        self._retry_at = -inf
        self._looks_again = False
        self._held_until = inf
        self._held_for = inf
        self.look_at = inf
        self.has_compared = False
        """Whether what the sources say was held against what is published; before that, nobody knows what is mounted."""
        self.rejected: Rejected | None = None
        """Content that render, check or the target rejected."""
        self._tried: Rejected | None = None
        """What was rejected, while it is published once more: if it is refused again, it has waited all the time."""
        self.unwritable: Rejected | None = None
        """What the volume cannot take."""
        self.unsaved: Rejected | None = None
        """What of the record the volume cannot take, though the set was published."""

    @property
    def held(self) -> frozenset[str]:
        """Return the sources whose newest value is not used, because a set with it was refused."""
        return self._holding.held

    def converge(self, snapshot: Snapshot, *, last_reload: float | None, under_way: bool = False) -> bool:
        """Go as far as can be gone now; return whether the changes of the snapshot were taken.

        `under_way` says that somebody was given what is published, and has not said yes or no.
        """
        now = self._world.clock.now()
        changes = self._pace.due(snapshot.first_change, snapshot.last_change, whole=snapshot.whole, last_reload=last_reload)
        look = -inf if self._looks_again and changes == inf else inf
        due = inf if snapshot.missing or self._volume.record.rolled_back is not None else min(changes, self._retry_at, look)
        self.look_at = due
        if now < due:
            return False
        self._retry_at = self.look_at = inf
        self._looks_again = False
        values: Values = self._holding.effective(snapshot.values)
        before = self._volume.published
        try:
            waits = self._bring(values, snapshot)
            if self._volume.published == before and self._may_release(now, under_way=under_way):
                self._release()
                values = snapshot.values
                waits = self._bring(values, snapshot, again=True)
        except StageFailed as failed:
            self._reject(failed, values, now)
        else:
            self._note_success(waits, now)
        return True

    @property
    def change(self) -> Change | None:
        """Return what the last publish changed; the first to ask pays for the comparison."""
        return self._publishing.changes.last

    def look_again(self) -> None:
        """Compare at the next call, though nothing changed; a change that waits for its time is compared then."""
        self._looks_again = True

    def retry_refused(self) -> None:
        """Let refused content be tried again now."""
        self._release()
        self._retried = ""
        self._refusals.retry_all()
        self._retry_at = -inf

    def refuse_volume(self, failed: StageFailed) -> None:
        """Note that the volume cannot be taken."""
        self._reject(failed, {}, self._world.clock.now())

    def accept_volume(self) -> None:
        """Note that the volume is taken, or has what it should: what kept it from being written is over."""
        self.unwritable = None

    def complete_record(self) -> None:
        """Write what the record lacks, and note since when it cannot be written."""
        volume = self._volume
        volume.note_record(volume.record)
        since = self.unsaved.since if self.unsaved else self._world.clock.now()
        self.unsaved = None if volume.unsaved is None else Rejected("record", volume.unsaved, since, refused=False)

    def made_at(self, number: int) -> Mapping[str, float]:
        """Return when each reading came that a set was made of; nothing of a set that this process did not compare with them."""
        return self._made.at(number)

    def follow(self, snapshot: Snapshot) -> None:
        """Note in the record how long the sets hold whose leases were renewed."""
        if isinstance(self._volume, Mounted):
            return
        ahead, record = self._world.clock.wall() - self._world.clock.now(), self._volume.record
        ends = {number: ahead + expires for number, expires in self._made.follow(snapshot).items()}
        longer = {
            number: replace(known, expires=ends[number])
            for number, known in record.generations.items()
            if number in ends and known.expires is not None and abs(ends[number] - known.expires) > LEAST_EXTENSION
        }
        if longer:
            self._volume.note_record(replace(record, generations={**record.generations, **longer}))

    def confirmed(self, number: int) -> None:
        """Take note that the target runs on a generation."""
        published = self._volume.published
        if published is not None and published.number == number:
            self._refusals.accept(published.fingerprint)
            self._retried, self._tried = "", None
        if self._holding.held:  # it waited for this
            self._retry_at = min(self._retry_at, self._held_until)

    def was_refused(self, fingerprint: str) -> bool:
        """Return whether this content, or what is new in it, was refused before, and is only tried again because time has passed."""
        by_hand = self._volume.record.rolled_back is not None
        return not by_hand and (fingerprint == self._retried or self._refusals.is_known(fingerprint))

    def go_back(self, number: int, reason: str) -> bool:
        """Put back what was good before, because the target refused what is published; return whether there was something.

        Raises:
            StageFailed: the volume cannot be written.

        """
        published = self._volume.published
        if published is None or published.number != number or number == self._volume.last_confirmed:
            return False
        now = self._world.clock.now()
        before = self.rejected or self._tried
        since = before.since if before else now
        refused, good = self._holding.made_of(number), self._holding.made_of(self._volume.last_confirmed)
        self._refuse(Rejected("verify", reason, since, refused=True), published.fingerprint, now, held=self._holding.refuse(refused, good))
        if isinstance(self._volume, Mounted):
            return False
        return self._publishing.republish(self._volume)

    def resume_rollback(self) -> None:
        """Go on with a rollback that a crash cut short, so that the target is not asked again for what it refused."""
        volume, published = self._volume, self._volume.published
        if isinstance(volume, Mounted) or published is None or volume.record.rolled_back is not None:
            return
        if published.number == volume.last_confirmed or self._refusals.waits(published.fingerprint) is None:
            return
        try:
            self._publishing.republish(volume)
        except StageFailed as failed:
            self.refuse_volume(failed)

    def put_back(self, volume: Volume, number: int) -> None:
        """Let readers see an earlier generation again, because a person asked for it.

        Raises:
            StageFailed: the volume cannot be written.

        """
        self._publishing.put_back(volume, number)
        self.unwritable = None

    def withdraw(self, reason: str, *, refused: bool) -> None:
        """Let readers see nothing, because the pipeline closed; `refused` says that the target did not take what they see.

        Raises:
            StageFailed: the volume cannot be written.

        """
        volume, published = self._volume, self._volume.published
        if isinstance(volume, Mounted) or published is None:
            return
        self._publishing.withdraw(volume)
        self._release()  # what was held kept alive what is withdrawn
        if refused and self._refusals.waits(published.fingerprint) is None:
            rejected = Rejected("verify", reason, self._world.clock.now(), refused=True)
            self._refuse(rejected, published.fingerprint, self._world.clock.now(), held=False)
        else:
            self._retry_at = -inf

    def preview(self, snapshot: Snapshot) -> Rendered:
        """Return the set that the snapshot asks for, with the published `generation` in it: another name of it is no change.

        Raises:
            StageFailed: it cannot be rendered.

        """
        published, number = self._volume.published, self._volume.next_number()
        with self._stages.stage("render", number, quiet=True):
            return self._making.previewed(snapshot.values, published.number if published else number)

    def _may_release(self, now: float, *, under_way: bool) -> bool:
        """Return whether to try again what is held: once the rest is confirmed, so that it is not taken back along with it.

        Where nobody takes the rest, it may be what is held that is needed: so it waits twice as long, and not for ever.
        """
        if not self._holding.held or now < self._held_until:
            return False
        published, confirmed = self._volume.published, self._volume.record.confirmed
        is_confirmed = published is not None and confirmed is not None and confirmed.number == published.number and confirmed.instances
        return bool(is_confirmed) or (not under_way and now >= self._held_until + self._held_for)

    def _release(self) -> None:
        """Use the newest value of every source again."""
        self._holding.release()
        self._held_until = inf

    def _bring(self, values: Values, snapshot: Snapshot, *, again: bool = False) -> float | None:
        """Publish what the values ask for, unless it is published already, or was refused: then return when it is tried again."""
        number = self._volume.next_number()
        with self._stages.stage("render", number, quiet=True):
            rendered, fingerprint = self._making.compared(values)
        self._candidate = fingerprint
        self._retried = fingerprint if again else self._retried
        self.has_compared = True
        published = self._volume.published
        if published is not None and published.fingerprint == fingerprint:
            self._volume.note_record(self._volume.record.with_content(published.number))
            self._note_published(published.number, values, snapshot)
            if isinstance(self._volume, Mounted):
                self._volume.meet_again(_changed(snapshot))
            return None
        if (waits := self._refusals.waits(fingerprint)) is not None:
            return waits
        if self._holding.held and self._has_expired(fingerprint):
            return inf
        if isinstance(self._volume, Mounted):
            with self._stages.stage("publish", number):
                self._volume.adopt(fingerprint, _changed(snapshot), first_to_end(texts_in(values)))
        else:
            final = self._making.final(values, rendered, number)
            self._publishing.publish(self._volume, number, final, fingerprint, snapshot, again=self.was_refused(fingerprint))
        self._note_published(number, values, snapshot)
        return None

    def _has_expired(self, fingerprint: str) -> bool:
        """Return whether this content is known, and something in it is valid no more: nobody goes back to it."""
        wall = self._world.clock.wall()
        return any(known.fingerprint == fingerprint and known.has_expired(wall) for known in self._volume.record.generations.values())

    def _note_published(self, number: int, values: Values, snapshot: Snapshot) -> None:
        needed = {number, self._volume.last_confirmed}
        self._holding.published(number, values, needed)
        self._made.note(number, values, snapshot, needed)
        self._publishing.changes.made_of(number, values, snapshot, self._volume.record.generations)

    def _note_success(self, waits: float | None, now: float) -> None:
        """What was tried is published, or waits for its time as refused content."""
        self._failures, self.unwritable = 0, None
        if self._holding.held:
            self._retry_at = self._held_until if now < self._held_until else max(self._held_until + self._held_for, now + AGAIN)
        if waits is not None:
            self._retry_at = min(self._retry_at, waits)
            self.rejected = self.rejected or self._refused_before(now)
        elif not self._holding.held:
            self._tried = (self.rejected or self._tried) if self._refusals.remember(self._candidate) else None
            self.rejected = None
        self.look_at = self._retry_at

    def _refused_before(self, now: float) -> Rejected:
        stage, who = self._refusals.refuser(self._candidate)
        return Rejected(stage, f"{who} refused it before", now, refused=True)

    def _reject(self, failed: StageFailed, values: Values, now: float) -> None:
        """Keep what is published, say why, and try again later, or at once without what changed."""
        refused = isinstance(failed.cause, CheckRefused | RenderFailed)
        before = self.unwritable if isinstance(failed.cause, VolumeError) else self.rejected
        rejected = Rejected(failed.stage, str(failed), before.since if before else now, refused)
        told = before is not None and (before.stage, before.reason) == (rejected.stage, rejected.reason)
        if refused:
            published = self._volume.published
            held = self._holding.refuse(values, self._holding.made_of(published.number if published else None))
            fingerprint = self._candidate if isinstance(failed.cause, CheckRefused) else None
            if not (told if fingerprint is None else self.was_refused(fingerprint)):
                self._metrics.count("refusals", self._plan.name, stage=failed.stage)
            self._refuse(rejected, fingerprint, now, held=held)
            return
        self._failures += 1
        self._retry_at = self.look_at = now + ERRORED.delay(self._failures, self._world.random)
        if isinstance(failed.cause, VolumeError):
            self.unwritable = rejected
        else:
            self.rejected = rejected

    def _refuse(self, rejected: Rejected, fingerprint: str | None, now: float, *, held: bool) -> None:
        """Remember refused content; where something of it is held, try the rest at once. What does not render is tried when it changes."""
        self.rejected = rejected
        self._held_until = self._refusals.note(fingerprint, rejected.stage) if fingerprint is not None else inf
        self._held_for = self._held_until - now
        self._retry_at = self.look_at = now if held else self._held_until


def _changed(snapshot: Snapshot) -> float | None:
    """Return when the newest of the values became what it is, where the sources can tell."""
    known = [standing.reading.changed for standing in snapshot.standings.values() if standing.reading is not None]
    return max((changed for changed in known if changed is not None), default=None)
