"""The frames that windows need, as bytes in memory: only those slots, at one coarseness."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, UInt8
from numpy import ndarray

from fastrain.archive.store import Archive
from fastrain.core.errors import GapError, TooBig
from fastrain.core.memory import available_bytes
from fastrain.core.time import show_times
from fastrain.samples.layout import FrameLayout

SHARE_OF_MEMORY = 0.5
STRETCH = 144  # issue times whose windows are read together, at most


@dataclass(frozen=True)
class Frames:
    """Blocks of some slots.

    Attributes:
        slots: (held,) the slots, rising.
        maximum: (held, y, x) uint8; 255 where nothing was observed.
        ratio: (held, y, x) uint8 mean over maximum.
        observed: (held, y, x) uint8, observed pixels of each block.
        pixels: (y, x) pixels of each block inside the picture.
    """

    slots: Int[ndarray, held]
    maximum: UInt8[ndarray, "held y x"]
    ratio: UInt8[ndarray, "held y x"]
    observed: UInt8[ndarray, "held y x"]
    pixels: Int[ndarray, "y x"]

    def rows(self, slots: Int[ndarray, wanted]) -> Int[ndarray, wanted]:
        """Return where slots stand in the arrays."""
        return np.searchsorted(self.slots, slots)

    def cut(self, box: tuple[slice, slice], rows: slice = slice(None)) -> Frames:
        """Return a part of the map, of some of the frames: copies, which hold on to nothing of the whole."""
        maximum, ratio, observed = (
            np.ascontiguousarray(field[rows, *box]) for field in (self.maximum, self.ratio, self.observed)
        )
        return Frames(self.slots[rows], maximum, ratio, observed, self.pixels[box])


def load_frames(archive: Archive, coarseness: int, slots: Int[ndarray, wanted], memory: int | None = None) -> Frames:
    """Read the frames of some slots.

    Args:
        archive: to read from.
        coarseness: of the blocks.
        slots: rising; a missing frame comes as not observed.
        memory: bytes that may be used; half of what is free if None.

    Raises:
        TooBig: the frames do not fit; the message names a coarseness that does.
    """
    grid = archive.schema.grid.coarsened(coarseness)
    allowed = memory if memory is not None else int(available_bytes() * SHARE_OF_MEMORY)
    need = frames_bytes(archive, coarseness, len(slots))
    if need > allowed:
        raise TooBig(_advice(archive, coarseness, len(slots), need, allowed))
    shape = (len(slots), *grid.shape)
    maximum, ratio, observed = (np.empty(shape, np.uint8) for _ in range(3))
    for a, b in _runs(slots, archive.schema.frames_per_chunk):
        blocks = archive.blocks(coarseness, int(slots[a]), int(slots[b - 1]) + 1)
        maximum[a:b], ratio[a:b] = blocks["max"], blocks["mean"]
        observed[a:b] = blocks["observed"]
    return Frames(np.asarray(slots), maximum, ratio, observed, block_pixels(archive.schema.grid.shape, coarseness))


def frames_bytes(archive: Archive, coarseness: int, frames: int) -> int:
    """Return the memory that frames take at a coarseness."""
    rows, columns = archive.schema.grid.coarsened(coarseness).shape
    return 3 * frames * rows * columns


def frames_within(archive: Archive, coarseness: int, memory: int) -> int:
    """Return how many frames fit into some bytes, at least one."""
    return max(1, memory // frames_bytes(archive, coarseness, 1))


def window_slots(issues: Int[ndarray, issues], layout: FrameLayout, ahead: bool = True) -> Int[ndarray, slots]:
    """Return the slots that the windows of some issue times touch, each once."""
    offsets = np.arange(1 - layout.history, (layout.ahead if ahead else 0) + 1)
    return np.unique(issues[:, None] + offsets[None, :])


def stretch_of(issues: Int[ndarray, issues], layout: FrameLayout, most: int) -> int:
    """Return how many of the next issue times are read together: their windows hold at most so many frames."""
    count = min(len(issues), STRETCH)
    while count > 1 and len(window_slots(issues[:count], layout)) > most:
        count //= 2
    return count


def stretches(
    archive: Archive, coarseness: int, issues: Int[ndarray, issues], layout: FrameLayout, memory: int
) -> Iterator[tuple[Int[ndarray, some], Frames]]:
    """Yield issue times, some at a time, with the frames of their windows: memory does not grow with their number.

    Args:
        archive: to read from.
        coarseness: of the blocks.
        issues: slots, rising.
        layout: of the windows.
        memory: bytes that frames may take; those of one window are read however many they are.
    """
    most = frames_within(archive, coarseness, memory)
    while len(issues):
        part, issues = np.split(issues, [stretch_of(issues, layout, most)])
        yield part, load_frames(archive, coarseness, window_slots(part, layout), memory=2**62)


def require_history(archive: Archive, issue: int, layout: FrameLayout) -> None:
    """Raise GapError, naming the missing frames, if a forecast cannot be issued at a slot."""
    slots = np.arange(issue - layout.history + 1, issue + 1)
    held = archive.observed(int(slots[0]), int(slots[-1]) + 1)
    if not held.all():
        times = [archive.schema.axis.time(int(slot)) for slot in slots]
        missing = [time for time, here in zip(times, held, strict=True) if not here]
        verb = "is" if len(missing) == 1 else "are"
        raise GapError(
            f"Issue time {show_times(times[-1:])} needs {layout.history} frames; {show_times(missing)} {verb} missing."
        )


def block_pixels(shape: tuple[int, int], coarseness: int) -> Int[ndarray, "y x"]:
    """Return how many pixels of the picture each block holds; fewer at the edge."""
    rows, columns = (np.minimum(coarseness, size - coarseness * np.arange(-(-size // coarseness))) for size in shape)
    return np.asarray(rows[:, None] * columns[None, :])


def _runs(slots: ndarray, most: int) -> list[tuple[int, int]]:
    """Return stretches of neighbouring slots, none much longer than a chunk, as index pairs."""
    breaks = np.flatnonzero(np.diff(slots) != 1) + 1
    out = []
    for a, b in zip([0, *breaks], [*breaks, len(slots)], strict=True):
        out += [(int(i), int(min(i + 4 * most, b))) for i in range(a, b, 4 * most)]
    return out


def _advice(archive: Archive, coarseness: int, frames: int, need: int, allowed: int) -> str:
    fits = [c for c in archive.schema.coarseness if frames_bytes(archive, c, frames) <= allowed]
    hint = "No coarseness of this archive fits; ingest again with a larger one."
    if fits:
        hint = f"Coarseness {fits[0]} needs {_size(frames_bytes(archive, fits[0], frames))}: --coarseness {fits[0]}."
    asked = f"The frames at coarseness {coarseness} need about {_size(need)}"
    return f"{asked} and {_size(allowed)} of memory may be used. {hint}"


def _size(count: int) -> str:
    return f"{count / 1e9:.2g} GB" if count >= 1e8 else f"{count / 1e6:.2g} MB"
