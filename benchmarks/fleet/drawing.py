"""Lines over time as SVG, written by hand: a library's picture has one set of colours, this one follows the reader's light or dark page."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 800, 340
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 84, 48
LEGEND = 20
"""Pixels from one line of text to the next."""
READABLE = 80
"""Pixels that a name of a marked time needs."""

# Okabe and Ito's colours, which the colour-blind can tell apart (https://jfly.uni-koeln.de/color/).
_STYLE = """
  svg { --paper: #ffffff; --ink: #1f2328; --grid: #d1d9e0; --shade: #f0e9df; --l0: #0072b2; --l1: #d55e00; --l2: #009e73; }
  @media (prefers-color-scheme: dark) {
    svg { --paper: #0d1117; --ink: #e6edf3; --grid: #3d444d; --shade: #2b2620; --l0: #56b4e9; --l1: #e69f00; --l2: #2ec4a0; }
  }
  text { font: 13px system-ui, sans-serif; fill: var(--ink); }
  .title { font-weight: 600; font-size: 15px; }
  .paper { fill: var(--paper); }
  .shade { fill: var(--shade); }
  .grid { stroke: var(--grid); stroke-width: 1; }
  .level { stroke: var(--ink); stroke-width: 1; stroke-dasharray: 4 4; }
  .line { fill: none; stroke-width: 1.5; stroke-linejoin: round; }
  .l0 { stroke: var(--l0); }
  .l1 { stroke: var(--l1); }
  .l2 { stroke: var(--l2); }
"""


@dataclass(frozen=True)
class Line:
    """What is drawn as one line: times in seconds, and values."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Chart:
    """Up to three lines over one time."""

    title: str
    unit: str
    """Of the values."""
    lines: Sequence[Line]
    shaded: Sequence[tuple[float, float, str]] = ()
    """Times that are marked: begin, end, name."""
    levels: Sequence[tuple[float, str]] = ()
    """Values that are marked."""
    zero: float = 0.0
    """What counts as time 0."""
    hours: bool = False
    """Whether time is counted in hours, and not in minutes."""

    def svg(self) -> str:
        """Return the picture."""
        return "\n".join(_Picture(self).parts()) + "\n"


class _Picture:
    def __init__(self, chart: Chart) -> None:
        self._chart = chart
        times = [at for line in chart.lines for at, _ in line.points] + [at for begin, end, _ in chart.shaded for at in (begin, end)]
        values = [value for line in chart.lines for _, value in line.points] + [value for value, _ in chart.levels]
        self._begin, self._end = min(times), max(times)
        self._step = _nice(max(values) / 5)
        self._most = self._step * ceil(max(values) / self._step)
        self._top = TOP + LEGEND * (len(chart.lines) - 2)

    def parts(self) -> Iterator[str]:
        size = f'width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
        title = escape(self._chart.title)
        yield f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{title}">'
        yield f"<style>{_STYLE}</style>"
        yield f'<rect class="paper" width="{WIDTH}" height="{HEIGHT}"/>'
        yield _text(LEFT, 24, title, "title")
        yield from self._shades()
        yield from self._grid()
        yield from self._levels()
        yield from self._lines()
        yield "</svg>"

    def _x(self, at: float) -> float:
        return LEFT + (at - self._begin) / (self._end - self._begin) * (WIDTH - LEFT - RIGHT)

    def _y(self, value: float) -> float:
        return HEIGHT - BOTTOM - value / self._most * (HEIGHT - BOTTOM - self._top)

    def _shades(self) -> Iterator[str]:
        for begin, end, name in self._chart.shaded:
            left, width = self._x(begin), self._x(end) - self._x(begin)
            yield f'<rect class="shade" x="{left:.1f}" y="{self._top}" width="{width:.1f}" height="{HEIGHT - BOTTOM - self._top}"/>'
            if width > READABLE:
                yield _text(left + width / 2, self._top + 16, name, anchor="middle")

    def _grid(self) -> Iterator[str]:
        for number in range(round(self._most / self._step) + 1):
            value = number * self._step
            yield _rule(LEFT, WIDTH - RIGHT, self._y(value), "grid")
            yield _text(LEFT - 8, self._y(value) + 4, f"{value:,g}", anchor="end")
        unit, name = (3600.0, "hours") if self._chart.hours else (60.0, "minutes")
        step = _nice((self._end - self._begin) / unit / 10)
        first, last = (((at - self._chart.zero) / unit / step) for at in (self._begin, self._end))
        for number in range(ceil(first - 0.01), floor(last + 0.01) + 1):
            yield _text(self._x(self._chart.zero + number * step * unit), HEIGHT - BOTTOM + 18, f"{number * step:g}", anchor="middle")
        yield _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, name, anchor="middle")
        yield _text(WIDTH - RIGHT, 24, self._chart.unit, anchor="end")

    def _levels(self) -> Iterator[str]:
        named = float(HEIGHT)
        for value, name in sorted(self._chart.levels):
            yield _rule(LEFT, WIDTH - RIGHT, self._y(value), "level")
            if named - self._y(value) > LEGEND:
                named = self._y(value)
                yield _text(WIDTH - RIGHT - 4, named - 5, name, anchor="end")

    def _lines(self) -> Iterator[str]:
        for number, line in enumerate(self._chart.lines):
            points = " ".join(f"{self._x(at):.1f},{self._y(value):.1f}" for at, value in line.points)
            yield f'<polyline class="line l{number}" points="{points}"/>'
            y = 40 + LEGEND * number
            yield f'<line class="line l{number}" x1="{LEFT}" y1="{y}" x2="{LEFT + 24}" y2="{y}"/>'
            yield _text(LEFT + 32, y + 4, line.name)


def _rule(left: float, right: float, y: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{left}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>'


def _text(x: float, y: float, text: str, kind: str = "", *, anchor: str = "start") -> str:
    kind = f' class="{kind}"' if kind else ""
    return f'<text{kind} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _nice(least: float) -> float:
    """Return the least of 1, 2 and 5 times a power of ten that is no less."""
    power = 10.0 ** floor(log10(least))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least)
