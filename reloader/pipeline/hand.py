"""What a person does to a running pipeline: puts an earlier generation back and holds it, lets go, has refused content tried again.

What is held is in the record before anything is done for it, and every cycle brings the volume there: so it outlives a crash at any point.
"""

import logging
import threading
from concurrent.futures import Future
from dataclasses import replace
from queue import Empty, SimpleQueue

from reloader.pipeline.content import Content
from reloader.pipeline.stages import StageFailed, Stages
from reloader.volume import Mounted, Volume
from reloader.volume.layout import HOME
from reloader.volume.wish import NotPossible, Wish, Wishes, chosen
from reloader.world import World

log = logging.getLogger("reloader")


class Hand:
    """Takes what is asked on any thread, and does it on the pipeline's."""

    def __init__(self, name: str, volume: Volume | Mounted, content: Content, stages: Stages, world: World) -> None:
        self._name = name
        self._volume = volume
        self._content = content
        self._stages = stages
        self._world = world
        self._wishes = Wishes(volume.path / HOME, world) if isinstance(volume, Volume) else None
        self._asked: SimpleQueue[tuple[Wish, Future[str]]] = SimpleQueue()
        self._again = threading.Event()

    def ask(self, wish: Wish) -> Future[str]:
        """Have something done; the answer tells a person what was, or is NotPossible."""
        answer: Future[str] = Future()
        self._asked.put((wish, answer))
        return answer

    def retry(self) -> None:
        """Have refused content tried again."""
        self._again.set()

    def obey(self) -> None:
        """Do what was asked, take the wish that was left, and bring back what is held."""
        if self._again.is_set():
            self._again.clear()
            self._content.retry_refused()
        for wish, answer in self._drain():
            self._answer(wish, answer)
        self._take_wish()
        self._bring_back()

    def turn_down(self, reason: str) -> None:
        """Answer everything that was asked with why it cannot be done."""
        for _wish, answer in self._drain():
            answer.set_exception(NotPossible(reason))

    def _drain(self) -> list[tuple[Wish, "Future[str]"]]:
        asked = []
        while True:
            try:
                asked.append(self._asked.get_nowait())
            except Empty:
                return asked

    def _answer(self, wish: Wish, answer: "Future[str]") -> None:
        try:
            said = self._fulfil(wish)
        except NotPossible as reason:
            answer.set_exception(reason)
        else:
            trouble = self._bring_back()
            answer.set_result(f"{said}; not on the volume yet: {trouble}; it is tried again" if trouble else said)

    def _take_wish(self) -> None:
        wish = self._wishes.take() if self._wishes else None
        if self._wishes is None or wish is None:
            return
        try:
            self._fulfil(wish)
        except NotPossible as reason:
            log.warning("wish not fulfilled", extra={"fields": {"pipeline": self._name, "reason": str(reason)}})
        if self._volume.unsaved is None:  # otherwise the next run takes it again
            self._wishes.remove()

    def _fulfil(self, wish: Wish) -> str:
        """Put down what is to be held from now on.

        Raises:
            NotPossible: why not, in words for a person.

        """
        if wish.act == "resume":
            return self._let_go()
        if not isinstance(self._volume, Volume):
            raise NotPossible("this pipeline has no volume: what is mounted is not ours to change")
        return self._hold(self._volume, wish.generation)

    def _hold(self, volume: Volume, wanted: int | None) -> str:
        published = volume.published
        before = published.number if published else None
        number = chosen(volume.record, wanted, before, self._world.clock.wall(), lambda each: volume.directory(each).is_dir())
        volume.note_record(replace(volume.record, rolled_back=number))
        self._stages.note("held by hand", number)
        was = f", in the place of {before}" if before not in (None, number) else ""
        return f"generation {number} is published{was}, and held until `reloader resume`"

    def _let_go(self) -> str:
        held = self._volume.record.rolled_back
        self._volume.note_record(replace(self._volume.record, rolled_back=None))
        self._content.retry_refused()
        self._stages.note("let go by hand", held or 0)
        if held is None:
            return "nothing was held; refused content is tried again"
        return f"generation {held} is held no more; the newest content is next"

    def _bring_back(self) -> str | None:
        """Let readers see what is held; return why that cannot be done now."""
        held, volume = self._volume.record.rolled_back, self._volume
        if held is None or not isinstance(volume, Volume) or held not in volume.record.generations:
            return None
        published = volume.published
        if published is not None and published.number == held:
            self._content.accept_volume()
            return None
        try:
            self._content.put_back(volume, held)
        except StageFailed as failed:
            self._content.refuse_volume(failed)
            return str(failed)
        return None
