"""What is told of a mistake of our own: its kind and the line, so that it can be mended, and never its text, which may quote a value."""

from pathlib import Path
from traceback import walk_tb

_PACKAGE = Path(__file__).parent


def told(error: BaseException) -> str:
    """Return `internal error: KeyError in pipeline/content.py:123`: the innermost line of ours on its way."""
    lines = [(Path(frame.f_code.co_filename), number) for frame, number in walk_tb(error.__traceback__)]
    own = [f"{path.relative_to(_PACKAGE)}:{number}" for path, number in lines if path.is_relative_to(_PACKAGE)]
    return f"internal error: {type(error).__name__}" + (f" in {own[-1]}" if own else "")
