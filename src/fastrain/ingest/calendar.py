"""The calendar of an archive as a picture: a row a day, a column a slot, coloured by what is held."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from fastrain.archive.schema import Status
from fastrain.archive.store import Archive
from fastrain.ingest.check import SUSPECT, CheckReport

MISSING, WRONG, MENDED = (0.55, 0.55, 0.55), (0.84, 0.15, 0.16), (0.17, 0.63, 0.17)
DRY, DAMP, WET = (0.97, 0.94, 0.84), (0.78, 0.88, 0.96), (0.03, 0.19, 0.42)
MOST_ROWS = 3660  # days drawn singly; ten years


def draw_calendar(archive: Archive, report: CheckReport, to: Path) -> None:
    """Write the calendar as a PNG.

    Wetter frames are darker blue; suspect ones, found now or marked before, are red; repaired ones green; slots without
    a frame grey; what lies outside the span white.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    colours, first_day = _colours(archive, report)
    days = len(colours)
    figure = Figure(figsize=(9, min(40, 2.0 + 0.14 * days)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.imshow(colours, aspect="auto", interpolation="nearest", extent=(0, 24, days, 0))
    axes.set_xticks(range(0, 25, 3), [f"{hour:02d}" for hour in range(0, 25, 3)])
    axes.set_xlabel("hour, UTC")
    step = max(1, days // 30)
    shown = range(0, days, step)
    axes.set_yticks([day + 0.5 for day in shown], [f"{first_day + timedelta(days=day):%Y-%m-%d}" for day in shown])
    axes.set_title(f"{archive.path.name}: {report.frames} frames of {report.slots} slots", loc="left")
    kinds = {"dry": DRY, "wet": WET, "missing": MISSING, "suspect": WRONG, "repaired": MENDED}
    handles = [Patch(facecolor=colour, edgecolor="0.6", label=name) for name, colour in kinds.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=5, frameon=False)
    figure.savefig(to, dpi=110, format="png")


def _colours(archive: Archive, report: CheckReport) -> tuple[Float[ndarray, "day column rgb"], datetime]:
    """Return the colour of each slot of each day, and the first day."""
    assert archive.span is not None
    start, stop = archive.span
    axis = archive.schema.axis
    first_day = axis.time(start).replace(hour=0, minute=0, second=0)
    per_day = max(1, round(timedelta(days=1) / axis.cadence))
    days = min(MOST_ROWS, (axis.time(stop - 1) - first_day).days + 1)
    picture = np.ones((days, per_day, 3))
    status = archive.slots("status", start, stop)
    share = archive.slots("wet_pixels", start, stop) / np.maximum(1, archive.slots("observed_pixels", start, stop))
    wrong = {axis.slot(finding.time)[0] for finding in report.findings if finding.kind in SUSPECT}
    if report.repaired or report.marked:
        wrong = set()  # what the repair left is in the status
    for i in range(stop - start):
        day, seconds = divmod((axis.time(start + i) - first_day).total_seconds(), 86400)
        if day < days:
            column = min(per_day - 1, int(seconds / 86400 * per_day))
            picture[int(day), column] = _colour(int(status[i]), float(share[i]), start + i in wrong)
    return picture, first_day.astimezone(UTC)


def _colour(status: int, share: float, wrong: bool) -> tuple[float, ...]:
    if status == Status.MISSING:
        return MISSING
    if wrong or status == Status.SUSPECT:
        return WRONG
    if status == Status.REPAIRED:
        return MENDED
    if share < 0.001:
        return DRY
    depth = min(1.0, (share / 0.4) ** 0.5)  # four tenths of the picture wet is as wet as weather gets
    return tuple(d + depth * (w - d) for d, w in zip(DAMP, WET, strict=True))
