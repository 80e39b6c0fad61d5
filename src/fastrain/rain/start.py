"""What a training starts from: nothing, or the network in the package, which has seen other radars.

A short archive teaches little; there the network in the package is the better start. It must not have learned from the
same weather, or what is held out to judge the run would not be held out.
"""

from __future__ import annotations

from datetime import timedelta
from math import ceil
from typing import Literal

from fastrain.archive.store import Archive
from fastrain.core.errors import RunError, SettingError
from fastrain.core.time import parse_time
from fastrain.rain.run import BASE, Run, base_path, open_run
from fastrain.samples.layout import LONG
from fastrain.samples.split import Split

Start = Literal["auto", "base", "nothing"]
STARTS: tuple[Start, ...] = ("auto", "base", "nothing")
LEARNING_RATE = 1e-3  # of what has learned already; a third of what a fresh network takes


def start_of(archive: Archive, split: Split, asked: Start, *, thresholds: int, width: int) -> tuple[Run | None, str]:
    """Return the run to start from, if any, and why.

    Args:
        archive: to train on.
        split: of its time.
        asked: by the user; auto takes the network in the package for an archive of less than a day.
        thresholds: how many the run is to speak of.
        width: of its network.

    Raises:
        RunError: `base` is asked for and has learned from this very weather.
        SettingError: `base` is asked for and its network is of another shape.
    """
    if asked == "nothing":
        return None, "The network starts from nothing, as asked."
    first, last = split.blocks["train"][0], split.blocks["test"][1]
    span = (last - first) * archive.schema.axis.cadence
    if asked == "auto" and span >= LONG:
        return None, "The archive is long enough to start from nothing."
    base = open_run(base_path())
    if overlaps(base, archive, first, last):
        why = f"The run {BASE} has learned from this very weather"
        if asked == BASE:
            raise RunError(f"{archive.path}: {why[0].lower()}{why[1:]}; start from nothing (--from nothing).")
        return None, f"{why}: the network starts from nothing."
    shape = len(base.thresholds), int(base.facts["network"]["width"])
    if shape != (thresholds, width):
        why = f"the run {BASE} is of {shape[0]} thresholds and width {shape[1]}, not {thresholds} and {width}"
        if asked == BASE:
            raise SettingError(f"--from {BASE}: {why}.")
        return None, f"The network starts from nothing: {why}."
    return base, f"The network starts from the run {BASE} ({base.identity})."


def overlaps(run: Run, archive: Archive, first: int, last: int) -> bool:
    """Tell whether a run learned from the ground and time of some slots of an archive, half an hour around included."""
    axis = archive.schema.axis
    # Not by way of the layout in frames: the run's half hours need not fit this radar's cadence.
    guard = ceil(timedelta(minutes=run.layout.guard) / axis.cadence)
    for grid, times in run.learned:
        began, ended = ((parse_time(time) - axis.time(0)) / axis.cadence for time in times)
        if began - guard < last and first < ended + guard and grid.overlaps(archive.schema.grid):
            return True
    return False
