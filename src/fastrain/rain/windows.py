"""Windows of an archive, made when asked for: their frames are read for them alone and let go of again.

So memory does not grow with the years of an archive; what is left of it keeps the inputs of windows that come again.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Int8
from numpy import ndarray

from fastrain.archive.store import Archive
from fastrain.rain.inputs import Inputs, Moved, make_inputs
from fastrain.rain.radar import Radar, happened
from fastrain.rain.variety import Varied, vary
from fastrain.samples.frames import Frames, load_frames, window_slots


@dataclass(frozen=True)
class Window:
    """What a network sees of a window, and what came.

    Attributes:
        inputs: see there.
        truth: (period, y, x) thresholds reached, −1 without truth.
    """

    inputs: Inputs
    truth: Int8[ndarray, "period y x"]

    @property
    def bytes(self) -> int:
        """Memory it takes."""
        return self.inputs.bytes + self.truth.nbytes


class Windows:
    """Gives windows by their issue slot; safe to be asked from several threads.

    Args:
        archive: to read from.
        coarseness: of the cells.
        radar: of the archive.
        memory: bytes that kept windows may take.
        others: of a control that must not learn: for each issue the slot of the one whose truth it is given, shuffled.
    """

    def __init__(
        self,
        archive: Archive,
        coarseness: int,
        radar: Radar,
        memory: int = 0,
        *,
        others: dict[int, int] | None = None,
    ) -> None:
        self.archive, self.coarseness, self.radar, self.memory = archive, coarseness, radar, memory
        self.others = others
        self._kept: dict[int, Window] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def __getitem__(self, issue: int) -> Window:
        """Return the window issued at a slot."""
        found = self._kept.get(issue)
        if found is None:
            found, _ = self.made(issue)
            with self._lock:
                # What does not fit is made anew each time; dropping another for it would only make that one anew.
                if issue not in self._kept and self._bytes + found.bytes <= self.memory:
                    self._kept[issue] = found
                    self._bytes += found.bytes
        return found

    def varied(self, issue: int, draw: np.random.Generator) -> Window:
        """Return the window issued at a slot as it might have been, made anew; see `fastrain.rain.variety`."""
        frames = self._frames(issue)
        one = vary(Varied(frames, issue, self.radar), draw)
        inputs, _ = make_inputs(one.frames, one.issue, one.radar)
        return Window(inputs, happened(one.frames, one.issue, one.radar))

    def forget(self) -> None:
        """Let go of what is kept, and keep no more."""
        with self._lock:
            self._kept.clear()
            self._bytes = self.memory = 0

    def made(self, issue: int) -> tuple[Window, Moved]:
        """Return the window issued at a slot, made anew, and the last frame carried along."""
        frames = self._frames(issue)
        inputs, moved = make_inputs(frames, issue, self.radar)
        truth = happened(frames, issue, self.radar) if self.others is None else self._of_another(issue)
        return Window(inputs, truth), moved

    def _frames(self, issue: int) -> Frames:
        """Return the frames of the window issued at a slot."""
        slots = window_slots(np.array([issue]), self.radar.layout)
        return load_frames(self.archive, self.coarseness, slots, memory=2**62)

    def _of_another(self, issue: int) -> Int8[ndarray, "period y x"]:
        """Return the truth of another window, its cells shuffled: a control from which nothing can be learned."""
        other = (self.others or {})[issue]
        values = happened(self._frames(other), other, self.radar)
        draw = np.random.default_rng([issue, 7])
        for period in values:
            seen = period >= 0
            period[seen] = draw.permutation(period[seen])
        return values


def other_truth(seed: int, *blocks: Int[ndarray, issues]) -> dict[int, int]:
    """Return for each issue time another one of the same block of time, whose truth a control is given."""
    draw = np.random.default_rng([seed, 7])
    return {int(i): int(j) for block in blocks for i, j in zip(block, draw.permutation(block), strict=True)}
