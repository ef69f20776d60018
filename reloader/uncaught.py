"""What is told of an error that nothing catches: its kind and the line, never its text, which may quote a value."""

import logging
import sys
import threading
from types import TracebackType

from reloader.internal import told


def tell_without_values() -> None:
    """Take the place of what Python prints of such an error: in the main thread, in another one, and where none can be raised."""
    sys.excepthook = _in_the_main_thread
    threading.excepthook = lambda failed: _tell(failed.exc_value)
    sys.unraisablehook = lambda failed: _tell(failed.exc_value)


def _in_the_main_thread(_kind: type[BaseException], error: BaseException, _traceback: TracebackType | None) -> None:
    if not isinstance(error, KeyboardInterrupt):
        _tell(error)


def _tell(error: BaseException | None) -> None:
    if error is None:
        return
    if logging.getLogger().handlers:
        logging.getLogger("reloader").error("%s", told(error))
    else:  # a command without a log: it ends by this, and somebody waits for a word
        sys.stderr.write(f"reloader: {told(error)}\n")
