"""Learns from the kernel that something happened in a directory; what that was is for a look to find out.

watchdog's inotify thread is used without its Observer. Measured with 7.1 on 3000 kubelet swaps: the Observer passes an event through two
more threads, and one of them sleeps half a second whenever it meets the first half of a rename before the second, so that the swap is
seen 500 ms late; it does not tell anyone that the kernel dropped events; and it dies with a directory that is deleted. Straight from the
inotify thread the worst was 3 ms.
"""

import os
import threading
from collections.abc import Callable, Mapping

from watchdog.observers.inotify_c import CallbackId, InotifyConstants, InotifyEvent, InotifyFD, Mask, WatchDescriptor

from reloader.backends.scan import Identity

EVENTS = Mask(
    InotifyConstants.IN_CREATE
    | InotifyConstants.IN_MOVE
    | InotifyConstants.IN_DELETE
    | InotifyConstants.IN_CLOSE_WRITE
    | InotifyConstants.IN_ATTRIB  # a file that may be read now
    | InotifyConstants.IN_MOVE_SELF
)
_ONE = CallbackId(1)
"""There is one callback per watch."""


class _Callback:
    """Runs on the inotify thread, which ends with any exception; so it does nothing but take note."""

    def __init__(self, wake: threading.Event, matters: Callable[[str], bool]) -> None:
        self._wake = wake
        self._matters = matters
        self.ended: set[WatchDescriptor] = set()

    def on_event(self, event: InotifyEvent) -> None:
        if self._matters(os.fsdecode(event.name)):
            self._wake.set()

    def on_watch_deleted(self, wd: WatchDescriptor) -> None:
        self.ended.add(wd)
        self._wake.set()

    def on_queue_overflow(self) -> None:
        self._wake.set()


class Watches:
    """Sets an event when something happens in the directories that it is aimed at. Used by one thread."""

    def __init__(self, wake: threading.Event, matters: Callable[[str], bool] = lambda _name: True) -> None:
        """Make one that watches nothing.

        Args:
            wake: the event.
            matters: whether what happens to an entry of that name, or to the directory itself (an empty name), can change what is read
                there; asked on the inotify thread, so it must not raise.

        """
        self._callback = _Callback(wake, matters)
        self._inotify: InotifyFD | None = None
        self._descriptors: dict[Identity, WatchDescriptor] = {}

    def aim(self, directories: Mapping[Identity, str]) -> bool:
        """Watch these directories and no others; return whether one is watched anew, so that what happened before in it was not seen.

        Raises:
            OSError: not all of them can be watched, and why.

        """
        self._forget_ended()
        for identity in self._descriptors.keys() - directories.keys():
            self._started().remove_callbacks([(self._descriptors.pop(identity), _ONE)])
        missing = directories.keys() - self._descriptors.keys()
        for identity in missing:
            self._add(identity, directories[identity])
        return bool(missing)

    def close(self) -> None:
        """End the inotify thread and free what it holds."""
        if self._inotify is not None:
            self._inotify.stop()
            self._inotify.join()
        self._inotify = None
        self._descriptors.clear()
        self._callback.ended.clear()

    def _forget_ended(self) -> None:
        if self._inotify is not None and not self._inotify.is_alive():
            self.close()
        ended = self._callback.ended.copy()
        self._callback.ended.difference_update(ended)
        self._descriptors = {identity: number for identity, number in self._descriptors.items() if number not in ended}

    def _add(self, identity: Identity, path: str) -> None:
        # Asked first, because watchdog takes the kernel's EACCES for success.
        if not os.access(path, os.R_OK):
            raise PermissionError(f"{path} may not be read")
        self._descriptors[identity] = self._started().add_callback(os.fsencode(path), EVENTS, self._callback, _ONE)

    def _started(self) -> InotifyFD:
        if self._inotify is None:
            self._inotify = InotifyFD()
            self._inotify.start()
        return self._inotify
