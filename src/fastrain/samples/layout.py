"""How a window lies in time: frames of history, and the periods ahead that are spoken for.

An archive of a day or more gets the ancestor's five hours; a shorter one half an hour of history and ten-minute
periods up to an hour, fewer where even that does not fit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta

from fastrain.core.errors import UsageError

GUARD = timedelta(minutes=30)  # between the blocks of a split: rain of one must not be seen from the other
LONG = timedelta(days=1)


@dataclass(frozen=True)
class Layout:
    """History and periods, in minutes, so that they hold for radars of other cadences.

    Attributes:
        history: minutes of past frames, the one at issue included: 30 minutes are 6 frames of 5 minutes.
        periods: (start, end) of each, minutes after issue; start excluded, end included.
        guard: minutes between the blocks of a split.
    """

    history: int
    periods: tuple[tuple[int, int], ...]
    guard: int = int(GUARD.total_seconds() // 60)

    def frames(self, cadence: timedelta) -> FrameLayout:
        """Return the layout in frames of a cadence.

        Raises:
            UsageError: the periods are no whole numbers of frames.
        """
        step = cadence.total_seconds() / 60
        edges = [edge / step for period in self.periods for edge in period]
        if any(abs(edge - round(edge)) > 1e-6 for edge in edges):
            raise UsageError(
                f"Periods of {self.periods[0][1] - self.periods[0][0]} min do not fit frames every {step:g} min; "
                "train a run on this radar."
            )
        periods = tuple((round(a / step), round(b / step)) for a, b in self.periods)
        return FrameLayout(max(2, math.floor(self.history / step + 1e-6)), periods, math.ceil(self.guard / step - 1e-6))


def middle(period: tuple[int, int]) -> float:
    """Return the middle of a period (start, end], in frames after the issue: the mean of its frames."""
    start, end = period
    return (start + end + 1) / 2


@dataclass(frozen=True)
class FrameLayout:
    """A layout in frames: `history` up to and with the issue, periods (start, end] after it, `guard` between blocks."""

    history: int
    periods: tuple[tuple[int, int], ...]
    guard: int

    @property
    def ahead(self) -> int:
        """Frames after the issue that a window needs."""
        return self.periods[-1][1]

    @property
    def length(self) -> int:
        """Frames of a whole window."""
        return self.history + self.ahead


def candidates(span: timedelta, cadence: timedelta) -> list[Layout]:
    """Return the layouts that a span might allow, the most wanted first."""
    step = cadence.total_seconds() / 60
    out = []
    if span >= LONG and (60 / step).is_integer():
        out += [Layout(60, tuple((60 * i, 60 * (i + 1)) for i in range(hours))) for hours in (5, 3, 2, 1)]
    length = step * math.ceil(10 / step - 1e-9)
    most = int(60 // length)
    if length == int(length) and most:
        length = int(length)
        short = [Layout(30, tuple((length * i, length * (i + 1)) for i in range(n))) for n in range(most, 0, -1)]
        out += short
    return out
