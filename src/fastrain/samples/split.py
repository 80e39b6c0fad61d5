"""Splitting time: blocks in time order (train, calibrate, test), each window whole inside one, a guard between them.

The ancestor's author found that overlapping samples had leaked between training and validation; here no frame is in
two blocks, and half an hour lies between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import numpy as np
from jaxtyping import Bool, Int
from numpy import ndarray

from fastrain.archive.store import Archive
from fastrain.core.errors import TooShort
from fastrain.core.time import show_time
from fastrain.samples.layout import LONG, FrameLayout, Layout, candidates

SHARES = {"train": 0.57, "calibrate": 0.15, "test": 0.28}
FEWEST = {"train": 8, "calibrate": 2, "test": 4}


@dataclass(frozen=True)
class Split:
    """Which slots each block spans, and which of them are issue times.

    Attributes:
        layout: of the windows.
        blocks: name to first slot and the slot after the last.
        issues: name to the issue slots whose whole window lies in the block.
    """

    layout: Layout
    blocks: dict[str, tuple[int, int]]
    issues: dict[str, Int[ndarray, issues]]

    def is_long(self, block: str, cadence: timedelta) -> bool:
        """Tell whether a block spans a day or more."""
        start, stop = self.blocks[block]
        return (stop - start) * cadence >= LONG


def split_archive(archive: Archive) -> Split:
    """Return the split of an archive with the most wanted layout that its length and gaps allow.

    Raises:
        TooShort: no layout leaves enough issue times; the message says what is held and what is needed.
    """
    start, stop = archive.span or (0, 0)
    cadence = archive.schema.axis.cadence
    if stop == start:
        raise TooShort(f"{archive.path}: the archive is empty; ingest into it first.")
    observed = archive.observed(start, stop)
    span = (stop - start) * cadence
    for layout in candidates(span, cadence):
        found = split_slots(observed, layout.frames(cadence))
        if found is not None:
            blocks = {name: (start + a, start + b) for name, (a, b) in found.items()}
            issues = {name: start + issue_slots(observed, layout.frames(cadence), *found[name]) for name in found}
            return Split(layout, blocks, issues)
    raise TooShort(_too_short(archive, int(observed.sum()), span))


def issue_slots(observed: Bool[ndarray, time], layout: FrameLayout, start: int, stop: int) -> Int[ndarray, issues]:
    """Return the slots from which a forecast can be issued and judged inside a block.

    All of the history must be held, and three quarters of the frames of each period.

    Args:
        observed: for each slot, whether a frame is held.
        layout: of the windows, in frames.
        start: first slot of the block.
        stop: slot after its last.
    """
    first, last = start + layout.history - 1, stop - layout.ahead - 1
    if last < first:
        return np.empty(0, dtype=np.int64)
    issue = np.arange(first, last + 1)
    held = np.concatenate([[0], np.cumsum(observed)])
    good = held[issue + 1] - held[issue + 1 - layout.history] == layout.history
    for a, b in layout.periods:
        good &= held[issue + b + 1] - held[issue + a + 1] >= 0.75 * (b - a)
    return np.asarray(issue[good])


def all_issues(archive: Archive, layout: FrameLayout) -> Int[ndarray, issues]:
    """Return the slots from which a forecast can be issued and judged, of all the time that an archive holds."""
    start, stop = archive.span or (0, 0)
    return start + issue_slots(archive.observed(start, stop), layout, 0, stop - start)


def evenly(issues: Int[ndarray, issues], most: int) -> Int[ndarray, chosen]:
    """Return at most so many issue times, evenly spaced."""
    return np.asarray(issues[np.linspace(0, len(issues) - 1, min(len(issues), most)).astype(int)])


def sharing(issues: Int[ndarray, issues], length: int) -> int:
    """Return how many neighbouring windows share frames."""
    return max(1, round(length / float(np.median(np.diff(issues))))) if len(issues) > 1 else 1


def split_slots(observed: Bool[ndarray, time], layout: FrameLayout) -> dict[str, tuple[int, int]] | None:
    """Return the blocks whose issue times come nearest to the wanted shares, or None where too few remain."""
    everywhere = issue_slots(observed, layout, 0, len(observed))
    if len(everywhere) < sum(FEWEST.values()):
        return None
    reach = layout.length - 1
    # before[i]: issue times whose window ends before slot i; after[i]: whose window begins at slot i or later.
    before = np.searchsorted(everywhere + layout.ahead, np.arange(len(observed) + 1), side="left")
    begin = np.searchsorted(everywhere - layout.history + 1, np.arange(len(observed) + 1), side="left")
    usable = len(everywhere) - 2 * (reach + layout.guard)
    usable = max(usable, sum(FEWEST.values()))
    end_train = int(np.searchsorted(before, round(SHARES["train"] * usable)))
    for shift in range(len(observed)):  # one step at a time towards what still fits, almost always at once
        stop_train = end_train - shift
        start_calibrate = stop_train + layout.guard
        if stop_train <= 0 or start_calibrate > len(observed):
            break
        wanted = begin[start_calibrate] + max(FEWEST["calibrate"], round(SHARES["calibrate"] * usable))
        stop_calibrate = int(np.searchsorted(before, wanted))
        start_test = stop_calibrate + layout.guard
        if start_test > len(observed):
            continue
        counts = {
            "train": int(before[stop_train]),
            "calibrate": int(before[stop_calibrate] - begin[start_calibrate]),
            "test": len(everywhere) - int(begin[start_test]),
        }
        if all(counts[name] >= FEWEST[name] for name in FEWEST):
            return {
                "train": (0, stop_train),
                "calibrate": (start_calibrate, stop_calibrate),
                "test": (start_test, len(observed)),
            }
    return None


def _too_short(archive: Archive, frames: int, span: timedelta) -> str:
    cadence = archive.schema.axis.cadence
    fits = candidates(timedelta(0), cadence)
    first, last = archive.span or (0, 1)
    times = f"{show_time(archive.schema.axis.time(first))} to {show_time(archive.schema.axis.time(last - 1))}"
    held = f"{archive.path} holds {frames} frame{'s' if frames != 1 else ''} ({times})"
    if not fits:
        every = f"{cadence.total_seconds() / 60:g} min"
        fitting = "a cadence of whole minutes, at most 60, or one that divides 10 minutes"
        return f"{held} every {every}; training needs {fitting}."
    least = fits[-1].frames(cadence)
    needed = sum(FEWEST.values()) + 3 * (least.length - 1) + 2 * least.guard
    hours = needed * cadence / timedelta(hours=1)
    return (
        f"{held}; training needs about {needed} frames without gaps ({hours:.1f} hours), so that time can be split "
        "into train, calibrate and test. Ingest more pictures of this radar."
    )
