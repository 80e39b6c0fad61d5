"""Rain as another day, or another radar, might have shown it: weaker and stronger, seen less often, time running back.

Flips and turns of a map cost nothing and are made of crops, see `fastrain.rain.batches`; these are made of frames.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

import numpy as np

from fastrain.core.levels import NOT_OBSERVED
from fastrain.rain.radar import Radar
from fastrain.samples.frames import Frames
from fastrain.samples.layout import FrameLayout

SCALES = (0.5, 2.0)  # rain is made weaker and stronger between these
SCALED, SLOWER, BACKWARDS = 0.5, 0.3, 0.5  # shares of what is varied
SLOWEST = timedelta(minutes=15)  # between frames
CLEAR = 0.06  # natural logarithm of how far off a threshold of scaled rain may be: broad levels of pictures lie farther


def backwards(frames: Frames) -> Frames:
    """Return frames as if time ran the other way: rain that decayed grows."""
    f = frames
    return Frames(f.slots, f.maximum[::-1], f.ratio[::-1], f.observed[::-1], f.pixels)


def seldom(frames: Frames, times: int, phase: int = 0) -> Frames:
    """Return every so manieth of successive frames, in slots of their own from 0 on."""
    f, part = frames, slice(phase, None, times)
    return Frames(np.arange(len(f.slots[part])), f.maximum[part], f.ratio[part], f.observed[part], f.pixels)


def scaled(radar: Radar, factor: float) -> Radar:
    """Return a radar as if it had rained `factor` times as much; thresholds move to the nearest edges."""
    table = radar.table.scaled(factor)
    return replace(radar, table=table, thresholds=tuple(table.nearest_edge(t) for t in radar.thresholds))


@dataclass(frozen=True)
class Varied:
    """A window as it might have been.

    Attributes:
        frames: of it.
        issue: its slot among those.
        radar: that would have seen them.
    """

    frames: Frames
    issue: int
    radar: Radar

    def backwards(self) -> Varied | None:
        """Return it as if time ran the other way; None where a frame is missing of what becomes its history.

        The frames must be those of the window alone.
        """
        turned = backwards(self.frames)
        history = turned.maximum[: self.radar.layout.history]
        return None if (history == NOT_OBSERVED).all(axis=(1, 2)).any() else replace(self, frames=turned)

    def slower(self, times: int) -> Varied | None:
        """Return it of every so manieth frame, the one at issue among them; None where the periods do not allow it."""
        layout, before = self.radar.layout, int(self.frames.rows(np.array([self.issue]))[0])
        cadence, history = self.radar.cadence * times, max(2, layout.history // times)
        divided = all(edge % times == 0 for period in layout.periods for edge in period)
        if cadence > SLOWEST or not divided or before // times + 1 < history:
            return None
        periods = tuple((a // times, b // times) for a, b in layout.periods)
        radar = replace(self.radar, cadence=cadence, layout=FrameLayout(history, periods, layout.guard))
        return Varied(seldom(self.frames, times, before % times), before // times, radar)

    def scaled(self, factor: float) -> Varied | None:
        """Return it with `factor` times as much rain; None where the levels are too few to tell the thresholds then."""
        radar = scaled(self.radar, factor)
        # The lowest level stands for all that is above the lowest edge: a threshold below that cannot be told, either.
        told = np.maximum(radar.thresholds, radar.table.lower[0])
        off = np.log(told / np.array(self.radar.thresholds))
        return None if np.abs(off).max() > CLEAR else replace(self, radar=radar)


def vary(window: Varied, draw: np.random.Generator) -> Varied:
    """Return a window varied as a draw has it, as far as its radar allows."""
    times, back = int(draw.integers(2, 4)), draw.random() < BACKWARDS
    slower, stronger = draw.random() < SLOWER, draw.random() < SCALED
    factor = float(np.exp(draw.uniform(*np.log(SCALES))))
    if back:
        window = window.backwards() or window
    if slower:
        window = window.slower(times) or window
    if stronger:
        window = window.scaled(factor) or window
    return window
