"""Consul: reads as blocking queries, which the server answers when something changed, or after a while.

https://developer.hashicorp.com/consul/api-docs/features/blocking says what a client has to do; it is done here.
"""

import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

from reloader import plan as plans
from reloader.backends.consul.client import DEADLINE, Answer, Connection, token_of
from reloader.backends.consul.folds import Folding
from reloader.backends.consul.reads import Fold, Key, Read
from reloader.backends.reads import Fetched, Inbox, LetGo, ReadFailed, ReadingBackend
from reloader.backends.turns import Turns
from reloader.schedule import ANSWER_INTERVAL, BLOCKING_WAIT, next_poll
from reloader.snapshot import Reading
from reloader.words import counted
from reloader.world import World

LONGEST_LOOKUP = 60.0
"""How many seconds the resolver may take for the address before the read counts as stuck; no deadline ends that."""
MISSING_AGAIN = 300.0
"""How often a key that does not exist is read by itself where a fold would show it, so that it is seen when it is denied instead."""


@dataclass(frozen=True)
class Since:
    """Since when news is asked for."""

    index: int
    token: int
    """Under which of our tokens: what another one may read is no news to the server, which would hold the answer back."""


class Backend(ReadingBackend):
    """One server and identity; each thread that reads has a connection of its own."""

    def __init__(self, plan: plans.Consul, turns: Turns, world: World) -> None:
        super().__init__(turns, world, longest_read=2 * DEADLINE + LONGEST_LOOKUP)  # twice: of any server, and of the leader
        self._plan = plan
        self._folding = Folding(self, turns, world.clock)
        self._token: str | None = None
        self._tokens = 0
        """How many there were so far."""
        self._connections_lock = threading.Lock()
        self._idle: list[Connection] = []
        self._used: dict[Connection, Read | None] = {}  # with the read that it waits for news of
        self._closed = False

    def watch(self, read: Hashable, inbox: Inbox, name: str) -> Callable[[], None]:
        """Keep reading; see `reloader.backends.Backend`."""
        if not isinstance(read, Key):
            return super().watch(read, inbox, name)
        with self._lock:
            self._folding.want(read.key)
            leave = super().watch(read, inbox, name)
        return lambda: self._left(read, leave)

    def fetch(self, read: Hashable, state: Any, hold: float) -> Fetched:
        """Ask for news since the index in `state`, and deliver what there is."""
        wanted = cast("Read", read)
        try:
            return self._fetch(wanted, state, hold)
        except ReadFailed as failed:
            if isinstance(wanted, Fold) and not failed.everywhere:
                with self._lock:
                    self._folding.failed_alone(wanted.folder, failed.kind)
            raise
        finally:
            self._was_read(wanted)

    def let_go(self, read: Hashable) -> bool:
        """Cut the connection of a blocking query."""
        with self._connections_lock:
            held = [connection for connection, waiting in self._used.items() if waiting == read and not connection.closed]
            for connection in held:
                connection.close()
        return bool(held)

    def repeatable(self, read: Hashable) -> bool:  # noqa: ARG002 - holds for all
        """Return False: what is watched needs no look."""
        return False

    def free(self) -> None:
        """Close the connections, also under those who read."""
        with self._connections_lock:
            self._closed = True
            for connection in (*self._idle, *self._used):
                connection.close()
            self._idle.clear()

    def _fetch(self, read: Read, state: Since | None, hold: float) -> Fetched:
        token, number = self._current_token()
        index = state.index if state is not None and state.token == number else None
        with self._connection(read, holding=bool(index and hold)) as connection:
            answer = connection.ask(read, token, index, hold)
        now = self._world.clock.now()
        current_until = now + DEADLINE + max(BLOCKING_WAIT * 17 / 16, self._turns.round())
        again, state = now + answer.took * ANSWER_INTERVAL, Since(answer.index, number)
        if answer.value is None and self._is_shown(read):
            again, state = next_poll(now, MISSING_AGAIN, self._world.random), None
        reading = Reading(value=answer.value, at=now, current_until=current_until + again - now, detail=_detail(answer))
        return Fetched(reading=reading, due=again, state=state)

    def _current_token(self) -> tuple[str | None, int]:
        """Return the token to use now, and which one of ours it is."""
        token = token_of(self._plan)
        with self._lock:
            if token != self._token:
                self._token, self._tokens = token, self._tokens + 1
                self._folding.new_token()
            return token, self._tokens

    def _is_shown(self, read: Read) -> bool:
        with self._lock:
            return isinstance(read, Key) and self._folding.shows(read.key)

    def _was_read(self, read: Read) -> None:
        with self._lock:
            if isinstance(read, Key) and self.is_wanted(read):
                self._folding.read_alone(read.key)

    def _left(self, read: Key, leave: Callable[[], None]) -> None:
        with self._lock:
            leave()
            if not self.is_wanted(read):
                self._folding.drop(read.key)

    @contextmanager
    def _connection(self, read: Read, *, holding: bool) -> Iterator[Connection]:
        connection = self._take(read, holding=holding)
        try:
            if not self.is_wanted(read):  # let_go came before there was a connection to cut
                raise LetGo
            yield connection
        except ReadFailed:
            if connection.closed:
                raise LetGo from None
            raise
        finally:
            self._give_back(connection)

    def _take(self, read: Read, *, holding: bool) -> Connection:
        with self._connections_lock:
            if self._closed:
                raise LetGo
            connection = self._idle.pop() if self._idle else Connection(self._plan, self._turns.open, self._world)
            self._used[connection] = read if holding else None
        return connection

    def _give_back(self, connection: Connection) -> None:
        with self._connections_lock:
            del self._used[connection]
            if not connection.closed:
                self._idle.append(connection)


def _detail(answer: Answer) -> str:
    told, value = f"index {answer.index}", answer.value
    if not isinstance(value, list | dict):
        return told
    return f"{told}, {counted(len(value), 'item')}"
