"""What a Vault server issued to us: renewed in time, issued anew before it ends, kept alive until what replaces it is in use.

What fails here never issues in a loop: a lease that cannot be renewed is used until shortly before its end, and for one that the server
does not know any more there is one new issue, and for the next a longer and longer wait.
"""

import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from math import inf

from reloader.backends.gate import Gate
from reloader.backends.reads import ReadFailed
from reloader.backends.turns import Job, Turns
from reloader.backends.vault.client import LONGEST, Client
from reloader.backends.vault.identity import Token
from reloader.backends.vault.issued import Issued, Read
from reloader.backends.vault.losses import Losses
from reloader.backends.vault.older import RETRIED, InUse, Older
from reloader.backends.vault.renewal import Denied, Gone, Lessor
from reloader.schedule import succession
from reloader.snapshot import FailureKind
from reloader.world import World

log = logging.getLogger("reloader")


class Leases:
    """All that one backend had issued; used by several threads at once."""

    def __init__(
        self,
        client: Client,
        gate: Gate,
        turns: Turns,
        world: World,
        issue: Callable[[Read], Issued],
        changed: Callable[[Iterable[Read]], None],
        mended: Callable[[Read], None],
    ) -> None:
        self._client = client
        self._gate = gate
        self._lessor = Lessor(client, world)
        self._turns = turns
        self._world = world
        self._issue = issue
        self._changed = changed
        """Told which reads are due at another time than was said."""
        self._mended = mended
        """Told which read needs nothing new for now after all: what it has lives on."""
        self._lock = threading.RLock()
        self._current: dict[Read, Issued] = {}
        self._older = InUse(world.clock)
        self._losses = Losses(client, world.clock)
        self._unproven: dict[Read, Callable[[Token], bool]] = {}
        self._job = Job(self._keep_up, LONGEST)
        self._working = False
        self.save: Callable[[], None] = lambda: None
        client.identity.on_new_token(self._succeed)

    def current(self, read: Read) -> Issued | None:
        """Return what was issued for a read last, if it still lives."""
        with self._lock:
            issued = self._current.get(read)
            if issued is not None and issued.ends <= self._world.clock.now():
                del self._current[read]
                return None
            return issued

    def take(self, issued: Issued) -> Issued:
        """Take what was issued just now; what it replaces stays alive until `confirmed`."""
        with self._lock:
            self._replace(issued)
            self._unproven.pop(issued.read, None)
            self._losses.issued(issued)
            self._older.forget_ended(self._current.values())
        self.save()
        self._hurry()
        return issued

    def attend(self, issued: Issued) -> tuple[Issued, bool]:
        """Do what is due: renew the lease, or have it issued anew; return what there is then, and whether the server was asked for it.

        Raises:
            ReadFailed: that did not work now; what was issued may live on.

        """
        issued, now = self._proven(issued), self._world.clock.now()
        if now >= issued.replace:
            return self._replaced(issued), True
        if now < issued.renew:
            return issued, False
        with self._lock:
            is_kept_up = self._older.is_kept_up(issued)
        if is_kept_up:
            return replace(issued, renew=inf), False
        return self._renew(issued), True

    def awaits(self, read: Read) -> None:
        """Raise where nothing may be issued for a read yet; see `Losses.awaits`."""
        self._losses.awaits(read)

    def confirmed(self, read: Read, at: float) -> None:
        """Let go of what was replaced until `at`: all who use this read run on what came then, or later."""
        with self._lock:
            done = self._older.replaced(read, at)
            for older in done:
                older.needed = False
        if done:
            self.save()

    def hold(self, read: Read) -> Callable[[], None]:
        """Keep alive what was issued for a read that nobody waits for any more, until the returned function is called."""
        with self._lock:
            issued = self._current.get(read)
            held = [self._older.keep(issued)] if issued is not None and issued.lease else []
        self._hurry()
        return lambda: self._release(*held)

    def revoke(self) -> tuple[str, ...]:
        """Revoke every lease, and the tokens that are ours, with which theirs end; return why some could not be."""
        with self._lock:
            issued = [*self._current.values(), *self._older.leases().values()]
            self._current.clear()
            self._older.clear()
        self.save()
        leases = dict.fromkeys(each.lease for each in issued if each.lease and not each.token.revocable)
        tokens = {each.token.serial: each.token for each in issued if each.token.revocable}
        reasons = [self._lessor.revoke_lease(lease) for lease in leases]
        identity = self._client.identity
        identity.revoke()
        reasons += [self._lessor.revoke_token(token) for token in tokens.values() if identity.lives(token)]
        return tuple(reason for reason in reasons if reason)

    def all(self) -> tuple[Issued, ...]:
        """Return what lives, what was replaced first."""
        now = self._world.clock.now()
        with self._lock:
            current = {each.lease for each in self._current.values()}
            older = [issued for lease, issued in self._older.leases().items() if lease not in current]
            return tuple(each for each in (*older, *self._current.values()) if each.ends > now)

    def adopt(self, issued: Issued, is_its: Callable[[Token], bool]) -> None:
        """Take what an earlier run had issued; `is_its` tells the token that it was issued with, where that is an operator's."""
        with self._lock:
            self._replace(issued)
            self._unproven[issued.read] = is_its
        self._hurry()

    def close(self) -> None:
        """Renew nothing any more."""
        with self._lock:
            self._job.ended = True
        self._turns.remove(self._job)

    def _put(self, issued: Issued) -> Issued:
        """Take what became of it; a change of tokens meanwhile stays in force."""
        with self._lock:
            before = self._current.get(issued.read)
            if before is not None:
                issued = replace(issued, leave=min(before.leave, issued.leave))
            self._current[issued.read] = issued
        self.save()
        return issued

    def _renew(self, issued: Issued) -> Issued:
        try:
            renewed = self._put(self._renewed(issued))
        except Denied as denied:
            log.warning("lease not renewed; it is issued anew before its end", extra={"fields": {"reason": str(denied)}})
            return self._put(replace(issued, renew=inf))
        except Gone:
            return self._lose(issued)
        except ReadFailed as failed:
            failed.again_by = issued.replace
            raise
        self._losses.lives(issued.read)
        return renewed

    def _replaced(self, issued: Issued) -> Issued:
        try:
            fresh = self._issue(issued.read)
        except ReadFailed as failed:
            if not failed.everywhere:
                self._prolong(issued)
            raise
        self._losses.lives(issued.read)
        return self.take(fresh)

    def _prolong(self, issued: Issued) -> None:
        """Have what could not be issued anew renewed until it is, however long it then takes until the next try."""
        with self._lock:
            if issued.lease and self._older.prolonged(issued) is None:  # beside whoever holds it, who may let go before that
                self._older.keep(issued, is_current=True)
        self._hurry()

    def abandon(self, read: Read) -> None:
        """Prolong nothing for a read that nobody waits for any more."""
        with self._lock:
            issued = self._current.get(read)
            if issued is not None and (prolonged := self._older.prolonged(issued)) is not None:
                self._older.drop(prolonged)

    def _replace(self, issued: Issued) -> None:
        """Read this from now on; what it replaces stays alive until `confirmed`."""
        before = self._current.get(issued.read)
        self._current[issued.read] = issued
        if before is None or not before.lease:
            return
        prolonged = self._older.prolonged(before)
        if prolonged is None:
            self._older.keep(before, issued.at)
        else:
            prolonged.replaced_at, prolonged.is_current = issued.at, False

    def _renewed(self, issued: Issued) -> Issued:
        """Return it renewed, and count how often that failed, whoever tries; see `Lessor.renewed`."""
        try:
            renewed = self._lessor.renewed(issued)
        except ReadFailed as failed:
            if not failed.everywhere:  # of these the gate tells whether they count
                with self._lock:
                    self._older.fails(issued.lease)
            raise
        with self._lock:
            self._older.succeeds(issued.lease)
        return renewed

    def _lose(self, issued: Issued) -> Issued:
        """Issue anew what the server does not know any more: once at once, from then on after a wait."""
        with self._lock:
            self._current.pop(issued.read, None)
            self._losses.lost(issued.read)
        log.warning("lease gone", extra={"fields": {"reason": f"{issued.read.path}: the server does not know its lease any more"}})
        self.save()
        self.awaits(issued.read)
        return self.take(self._issue(issued.read))

    def _proven(self, issued: Issued) -> Issued:
        """Return what an earlier run had issued, to be issued anew where its token ended, or the operator gave another one since."""
        with self._lock:
            is_its = self._unproven.get(issued.read)
        if is_its is None:
            return issued
        identity = self._client.identity
        token, now = identity.token(), self._world.clock.now()
        if is_its(token):
            issued = replace(issued, token=token)
        elif issued.token.ours and issued.lease:
            issued = replace(issued, leave=inf if identity.lives(issued.token) else now)
        elif issued.lease:
            issued = replace(issued, leave=succession(now, issued.token.ends - now, self._world.random))
        with self._lock:
            self._unproven.pop(issued.read, None)
            self._current[issued.read] = issued
        return issued

    def _succeed(self, old: Token, _new: Token | None) -> None:
        """Have what hangs on a token issued anew with the next one, before the old one ends where it still lives."""
        now, identity = self._world.clock.now(), self._client.identity
        left = old.ends - now if identity.lives(old) else 0.0
        with self._lock:
            hanging = [each for each in self._current.values() if each.lease and each.token.serial == old.serial]
            for issued in hanging:
                self._current[issued.read] = replace(issued, leave=succession(now, left, self._world.random))
        self.save()
        self._changed([issued.read for issued in hanging])

    def _release(self, *those: Older) -> None:
        """Leave these to who reads them, if that is what is read still."""
        with self._lock:
            for older in those:
                older.needed = False
            current = {issued.lease: issued.read for issued in self._current.values()}
        self._changed({current[older.issued.lease] for older in those if older.issued.lease in current})

    def _hurry(self) -> None:
        """Have replaced leases renewed in time."""
        with self._lock:
            if self._job.ended or self._older.due() is None:
                return
            working, self._working = self._working, True
        if working:
            self._turns.hurry(self._job)
        else:
            self._turns.add(self._job)

    def _keep_up(self, _hold: float) -> float:
        """Renew one lease that was replaced and is still in use, if that is due; return when the next one is."""
        with self._lock:
            self._older.forget_ended(self._current.values())
            older = self._older.due()
        if older is None or older.issued.renew > self._world.clock.now():
            self._gate.leave(self._job)
        elif self._gate.enter(self._job) is not None or not self._renew_older(older):
            return self._gate.due(self._job)
        with self._lock:
            following = self._older.due()
        return inf if following is None else following.issued.renew

    def _renew_older(self, older: Older) -> bool:
        """Renew it, or find out why that cannot be; return False where the server fails as a whole: it is done when that is over."""
        before, renewed = older.issued, None
        try:
            renewed = self._renewed(before)
        except (Denied, Gone):
            pass
        except ReadFailed as failed:
            return self._put_off(before, failed)
        self._gate.answered(self._job)
        if renewed is not None or older.is_current:
            self._keep_on(renewed or replace(before, renew=inf))
        else:  # who reads it is told the same, and does something about it
            with self._lock:
                alike = self._older.alike(before)
            self._release(*alike)
        return True

    def _put_off(self, before: Issued, failed: ReadFailed) -> bool:
        with self._lock:
            failures, last = self._older.failed(before.lease)
        if failed.everywhere:
            _, alone = self._gate.failed(self._job, failed, failures)
            with self._lock:
                self._older.fails(before.lease, alone)
            return False
        self._gate.failed_alone(self._job, answered=failed.kind is not FailureKind.UNREACHABLE)
        self._keep_on(replace(before, renew=last + RETRIED.delay(failures, self._world.random)))
        return True

    def _keep_on(self, became: Issued) -> None:
        """Take what became of it; what need not be replaced now after all is renewed by who reads it from here on."""
        with self._lock:
            for each in self._older.alike(became):
                each.issued = became
            current, prolonged = self._current.get(became.read), self._older.prolonged(became)
            if current is not None and current.lease == became.lease:  # nobody else renews it
                self._current[became.read] = became = replace(became, leave=min(became.leave, current.leave))
            in_time = prolonged is not None and self._world.clock.now() < became.replace
            if prolonged is not None and in_time:
                self._older.drop(prolonged)
        self.save()
        if in_time:
            self._mended(became.read)
