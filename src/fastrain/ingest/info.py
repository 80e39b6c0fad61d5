"""What an archive holds: span, gaps, sizes, wet share; from what is kept per slot, so that years answer at once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from fastrain.archive.repository import bytes_stored, shown
from fastrain.archive.schema import Status
from fastrain.archive.store import Archive


@dataclass(frozen=True)
class Gap:
    """A run of missing slots: first and last missing time, UTC, and how many."""

    start: datetime
    end: datetime
    frames: int


@dataclass(frozen=True)
class Info:
    """What an archive holds.

    Attributes:
        path: of the archive.
        source: name of the reader.
        credit: whom to thank for the data.
        identity: digest of what the archive is of.
        rows, columns: of the picture.
        cell_km: edge of a pixel, km.
        cadence_minutes: step of the time axis.
        coarseness: groups held, 1 included.
        first, last: times of the first and last frame, UTC; None where nothing is held.
        frames: held; `slots` of the span.
        status: slots of the span by status.
        gaps: the runs of missing slots, longest first.
        wet_share: share of observed pixels of at least 0.1 mm/h (or of the nearest edge of the levels).
        observed_share: share of all pixels that are observed.
        bytes_on_disk: of the whole archive, older states included.
        bytes_raw: that the frames would take uncompressed at coarseness 1.
    """

    path: str
    source: str
    credit: str
    identity: str
    rows: int
    columns: int
    cell_km: float
    cadence_minutes: float
    coarseness: tuple[int, ...]
    first: datetime | None
    last: datetime | None
    frames: int
    slots: int
    status: dict[str, int]
    gaps: tuple[Gap, ...]
    wet_share: float | None
    observed_share: float | None
    bytes_on_disk: int
    bytes_raw: int


def describe(path: Path) -> Info:
    """Return what an archive holds.

    Raises:
        ArchiveError: there is no archive at the path.
    """
    archive = Archive.open(path)
    schema = archive.schema
    start, stop = archive.span or (0, 0)
    status = archive.slots("status", start, stop)
    held = status != Status.MISSING
    wet = int(archive.slots("wet_pixels", start, stop)[held].sum(dtype=np.int64))
    observed = int(archive.slots("observed_pixels", start, stop)[held].sum(dtype=np.int64))
    pixels = schema.grid.shape[0] * schema.grid.shape[1]
    frames = int(held.sum())
    return Info(
        path=shown(path),
        source=schema.source,
        credit=schema.credit,
        identity=schema.identity,
        rows=schema.grid.shape[0],
        columns=schema.grid.shape[1],
        cell_km=schema.grid.cell_km,
        cadence_minutes=schema.axis.cadence.total_seconds() / 60,
        coarseness=(1, *schema.coarseness),
        first=schema.axis.time(start) if frames else None,
        last=schema.axis.time(stop - 1) if frames else None,
        frames=frames,
        slots=stop - start,
        status={s.name.lower(): int((status == s).sum()) for s in Status},
        gaps=tuple(gaps_of(archive, ~held, start)),
        wet_share=wet / observed if observed else None,
        observed_share=observed / (frames * pixels) if frames else None,
        bytes_on_disk=bytes_stored(path),
        bytes_raw=frames * pixels,
    )


def gaps_of(archive: Archive, missing: Bool[ndarray, time], start: int) -> list[Gap]:
    """Return the runs of missing slots, longest first, of a span that begins at slot `start`."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], missing.astype(np.int8), [0]])))
    time = archive.schema.axis.time
    runs = [Gap(time(start + int(a)), time(start + int(b) - 1), int(b - a)) for a, b in edges.reshape(-1, 2)]
    return sorted(runs, key=lambda gap: (-gap.frames, gap.start))
