"""Which windows networks of the cuts learn from and are judged on: of an archive's own time, or it left out whole."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import combinations
from pathlib import Path

from jaxtyping import Int
from numpy import ndarray

from fastrain.archive.store import Archive
from fastrain.core.errors import SettingError, TooShort, UsageError
from fastrain.samples.layout import LONG, Layout, candidates
from fastrain.samples.split import FEWEST, all_issues, evenly, split_archive


@dataclass(frozen=True)
class Part:
    """Windows of an archive, by the slots they are issued at, in time order."""

    path: Path
    issues: tuple[int, ...]


@dataclass(frozen=True)
class Times:
    """What is learned from, calibrated on and judged.

    Attributes:
        layout: of all windows.
        train, calibrate, test: windows of one archive or several.
        long: whether the time to calibrate on is a day or more.
    """

    layout: Layout
    train: tuple[Part, ...]
    calibrate: tuple[Part, ...]
    test: tuple[Part, ...]
    long: bool = False


def own_time(archive: Archive, counts: dict[str, int]) -> Times:
    """Return an archive's own time, split as a training splits it.

    Args:
        archive: see there.
        counts: windows at most, by the names of the parts.

    Raises:
        TooShort: it is too short for that.
    """
    split = split_archive(archive)
    parts = {name: (_part(archive, split.issues[name], most),) for name, most in counts.items()}
    return Times(split.layout, **parts, long=split.is_long("calibrate", archive.schema.axis.cadence))


def left_out(archive: Archive, others: Sequence[Archive], counts: dict[str, int]) -> Times:
    """Return times by which other radars are learned from, and an archive is judged whole.

    Chances are calibrated on the last of the others, which is not learned from: a spell of weather that is shorter than
    a few windows has no part that is apart from the rest.

    Args:
        archive: that is judged.
        others: two or more, each learned from as much as every other, but for the last.
        counts: windows at most, by the names of the parts.

    Raises:
        TooShort: the archive, or one of the others, holds too few windows.
        SettingError: there is but one other, one holds frames of another, or no windows fit all their cadences.
    """
    if len(others) < 2:
        raise SettingError(
            f"--learn-from {', '.join(str(one.path) for one in others)}: name two archives or more; the last is what "
            "chances are calibrated on."
        )
    held = [(one.path, _digests(one)) for one in (archive, *others)]
    for (one, digests), (other, also) in combinations(held, 2):
        if digests & also:
            raise SettingError(f"--learn-from: {other} holds frames that {one} holds, too; name it without them.")
    *further, nearest = _layouts([archive, *others])
    for layout in further:
        with suppress(TooShort):
            return _left_out(archive, others, layout, counts)
    return _left_out(archive, others, nearest, counts)


def _left_out(archive: Archive, others: Sequence[Archive], layout: Layout, counts: dict[str, int]) -> Times:
    *learned, last = others
    each, more = divmod(counts["train"], len(learned))
    train = tuple(
        _all_of(other, layout, FEWEST["train"], each + (i < more), "or leave it out") for i, other in enumerate(learned)
    )
    calibrate = _all_of(last, layout, FEWEST["calibrate"], counts["calibrate"], "or leave it out")
    test = _all_of(archive, layout, FEWEST["test"], counts["test"], "or judge another")
    start, stop = last.span or (0, 0)
    long = (stop - start) * last.schema.axis.cadence >= LONG
    return Times(layout, train, (calibrate,), (test,), long)


def _part(archive: Archive, issues: Int[ndarray, issues], most: int) -> Part:
    return Part(archive.path, tuple(int(issue) for issue in evenly(issues, most)))


def _digests(archive: Archive) -> set[bytes]:
    start, stop = archive.span or (0, 0)
    held = archive.observed(start, stop)
    # Of dry frames many are the same.
    wet = held & (archive.slots("wet_pixels", start, stop) > 0)
    return {digest.tobytes() for digest in archive.slots("digest", start, stop)[wet]}


def _layouts(archives: Sequence[Archive]) -> list[Layout]:
    """Return the layouts of an hour ahead, or less, that fit the cadences of all, the furthest first."""
    fitting = []
    for layout in candidates(timedelta(0), max(one.schema.axis.cadence for one in archives)):
        try:
            for one in archives:
                layout.frames(one.schema.axis.cadence)
        except UsageError:
            continue
        fitting.append(layout)
    if fitting:
        return fitting
    said = ", ".join(f"{one.path} has frames every {one.schema.axis.cadence}" for one in archives)
    raise SettingError(f"--learn-from: no periods fit all cadences: {said}.")


def _all_of(archive: Archive, layout: Layout, least: int, most: int, otherwise: str) -> Part:
    """Return windows of all the time that an archive holds."""
    issues = all_issues(archive, layout.frames(archive.schema.axis.cadence))
    if len(issues) < least:
        raise TooShort(
            f"{archive.path}: holds {len(issues)} windows of {layout.history} min of frames with "
            f"{layout.periods[-1][1]} min after them, {least} are needed; ingest more pictures of this radar, "
            f"{otherwise}."
        )
    return _part(archive, issues, most)
