"""How much of what is published a set may change at once."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from reloader.check.errors import CheckRefused
from reloader.fileset import Rendered


def check(percent: int, rendered: Rendered, published: Mapping[str, bytes], directories: Iterable[str]) -> None:
    """Refuse a set that lacks more than so many per cent of the published lines.

    A line is there if the file of the same name has it, wherever in the file; one that was there twice must be there twice. New lines
    count for nothing, and neither does the number in the name of a generation below one of `directories`.
    """
    below = b"|".join(re.escape(f"{directory.rstrip('/')}/..".encode()) for directory in sorted(set(directories)))
    generation = re.compile(rb"(?:%s)(?:0|[1-9][0-9]*)\b" % below)
    lines = {name: _lines(data, generation) for name, data in published.items()}
    total = sum(map(Counter.total, lines.values()))
    gone = sum((old - _lines(rendered[name].data, generation) if name in rendered else old).total() for name, old in lines.items())
    if gone * 100 > percent * total:
        raise CheckRefused(
            f"max_change: {gone} of the {total} published lines would change or go, more than {percent}%; "
            "if that is meant, raise max_change until it is published"
        )


def _lines(data: bytes, generation: re.Pattern[bytes]) -> Counter[bytes]:
    return Counter(generation.sub(b"", data).splitlines())
