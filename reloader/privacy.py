"""What others may see of this process: nothing of its memory, whoever they run as; it is the first thing done in a new process.

In a shared process namespace the target, which mostly runs as the same user, could otherwise read every secret from `/proc/PID/mem` and
the token from `/proc/PID/environ`, and attach to us. Nothing else of the package is imported here: until this is done, all is open.
"""

import ctypes

_PR_GET_DUMPABLE, _PR_SET_DUMPABLE = 3, 4


def keep_private() -> None:
    """Have the kernel give our memory, environment and descriptors to no other process without SYS_PTRACE, and write no core of us.

    A program that we execute is as open as any other (execve(2) resets this). Where there is no such thing, nothing happens; see
    `is_private`.
    """
    _prctl(_PR_SET_DUMPABLE)


def is_private() -> bool:
    """Return whether it worked."""
    return _prctl(_PR_GET_DUMPABLE) == 0


def tell() -> None:
    """Warn where it did not."""
    import logging  # noqa: PLC0415 - 20 ms, in which all would be open

    if not is_private():
        logging.getLogger("reloader").warning(
            "memory is open to other processes of this user",
            extra={"fields": {"reason": "the kernel takes no prctl(PR_SET_DUMPABLE); allow it, or run the target as another user"}},
        )


def _prctl(option: int) -> int | None:
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    return None if prctl is None else int(prctl(option, 0, 0, 0, 0))
