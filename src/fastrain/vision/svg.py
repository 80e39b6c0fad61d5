"""Small charts as SVG text: a bare GPU machine has no plotting library, and a page that holds text stays small."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

WIDTH, HEIGHT = 420, 260
LEFT, RIGHT, TOP, BOTTOM = 56, 14, 16, 44
INK, SOFT, LINE = "#1d2429", "#5c6a73", "#dfe4e7"


@dataclass(frozen=True)
class Line:
    """Points that are joined: (x, y), and a colour."""

    points: Sequence[tuple[float, float]]
    colour: str
    dashed: bool = False
    dots: bool = False


@dataclass(frozen=True)
class Row:
    """A row of a chart of rows: its name, a value with half its interval, a colour, and a note at the right."""

    label: str
    value: float
    half: float
    colour: str
    note: str = ""


@dataclass(frozen=True)
class Chart:
    """A chart: what goes along and up, with their ranges, None to fit what is shown.

    Attributes:
        title: read aloud to those who do not see it.
        along: name of the x axis.
        up: name of the y axis.
        lines: see `Line`.
        x_range: from, to.
        y_range: from, to.
        y_least: below which nothing can be.
        y_most: above which nothing can be.
    """

    title: str
    along: str
    up: str
    lines: Sequence[Line] = field(default_factory=tuple)
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    y_least: float = -math.inf
    y_most: float = math.inf


def svg(chart: Chart) -> str:
    """Return the chart as SVG."""
    width, height = WIDTH, HEIGHT
    xs, ys = _values(chart)
    x0, x1 = chart.x_range or _around(xs)
    y0, y1 = chart.y_range or _around(ys)
    y0, y1 = max(y0, chart.y_least), min(y1, chart.y_most)

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + (x - x0) / (x1 - x0) * (width - LEFT - RIGHT),
            height - BOTTOM - (y - y0) / (y1 - y0) * (height - TOP - BOTTOM),
        )

    out = [_head(chart.title, (width, height))]
    for value in ticks(x0, x1):
        x, _ = at(value, y0)
        out.append(_stroke((x, TOP), (x, height - BOTTOM), LINE))
        out.append(_text(x, height - BOTTOM + 16, f"{value:g}", "middle", SOFT))
    for value in ticks(y0, y1):
        _, y = at(x0, value)
        out.append(_stroke((LEFT, y), (width - RIGHT, y), LINE))
        out.append(_text(LEFT - 6, y + 4, f"{value:g}", "end", SOFT))
    out.append(_text((LEFT + width - RIGHT) / 2, height - 8, chart.along, "middle", INK))
    middle = (TOP + height - BOTTOM) / 2
    out.append(
        f"<text x='14' y='{middle:.1f}' transform='rotate(-90 14 {middle:.1f})' text-anchor='middle' "
        f"fill='{INK}'>{_escape(chart.up)}</text>"
    )
    for line in chart.lines:
        points = " ".join("{:.1f},{:.1f}".format(*at(x, y)) for x, y in line.points)
        dashes = " stroke-dasharray='4 4'" if line.dashed else ""
        out.append(f"<polyline points='{points}' fill='none' stroke='{line.colour}' stroke-width='2'{dashes}/>")
        if line.dots:
            out += [_dot(*at(x, y), line.colour, "") for x, y in line.points]
    return "".join(out) + "</svg>"


def rows_svg(title: str, along: str, rows: Sequence[Row], *, note: str = "", width: int = 900) -> str:
    """Return a chart of rows as SVG: a dot each with its interval over a common axis, and a line at nothing.

    Args:
        title: read aloud to those who do not see it.
        along: name of the axis.
        rows: from top to bottom.
        note: what stands over the notes.
        width: of the whole, pixels.
    """
    left, right, high = 250, 110, 24
    height = TOP + high * (len(rows) + 1) + BOTTOM
    low, top = _around([v for row in rows for v in (row.value - row.half, row.value + row.half, 0.0)])

    def at(x: float) -> float:
        return left + (x - low) / (top - low) * (width - left - right)

    out = [_head(title, (width, height))]
    for value in ticks(low, top):
        out.append(_stroke((at(value), TOP + high), (at(value), height - BOTTOM), INK if value == 0 else LINE))
        out.append(_text(at(value), height - BOTTOM + 16, f"{value:g}", "middle", SOFT))
    out.append(_text((left + width - right) / 2, height - 8, along, "middle", INK))
    out.append(_text(width - RIGHT, TOP + 14, note, "end", SOFT))
    for i, row in enumerate(rows):
        y = TOP + high * (i + 1.5)
        out.append(_text(left - 12, y + 4, row.label, "end", INK))
        out.append(_stroke((at(row.value - row.half), y), (at(row.value + row.half), y), row.colour))
        out.append(_dot(at(row.value), y, row.colour, row.label))
        out.append(_text(width - RIGHT, y + 4, row.note, "end", SOFT))
    return "".join(out) + "</svg>"


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return round values within a range."""
    step = 10 ** math.floor(math.log10((high - low) / most))
    step = next(step * m for m in (1, 2, 5, 10) if (high - low) / (step * m) <= most)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 10) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _values(chart: Chart) -> tuple[list[float], list[float]]:
    xs = [x for line in chart.lines for x, _ in line.points]
    ys = [y for line in chart.lines for _, y in line.points]
    return xs, ys


def _around(values: Sequence[float]) -> tuple[float, float]:
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    margin = 0.08 * (high - low) or max(1e-3, abs(high) * 0.1)
    return low - margin, high + margin


def _head(title: str, size: tuple[int, int]) -> str:
    width, height = size
    return (
        f"<svg viewBox='0 0 {width} {height}' width='{width}' height='{height}' role='img' "
        f"xmlns='http://www.w3.org/2000/svg' font-family='system-ui, sans-serif' font-size='12'>"
        f"<title>{_escape(title)}</title><rect width='100%' height='100%' fill='#fff'/>"
    )


def _stroke(a: tuple[float, float], b: tuple[float, float], colour: str) -> str:
    return f"<line x1='{a[0]:.1f}' y1='{a[1]:.1f}' x2='{b[0]:.1f}' y2='{b[1]:.1f}' stroke='{colour}'/>"


def _dot(x: float, y: float, colour: str, label: str) -> str:
    return f"<circle cx='{x:.1f}' cy='{y:.1f}' r='4' fill='{colour}'><title>{_escape(label)}</title></circle>"


def _text(x: float, y: float, text: str, anchor: str, colour: str) -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}' fill='{colour}'>{_escape(text)}</text>"


def _escape(text: str) -> str:
    return html.escape(text, quote=True)
