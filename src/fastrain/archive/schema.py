"""What lies where in an archive.

    /            status, time_offset, digest, wet_pixels, observed_pixels (time);
                 level_lower, level_upper, level_rate (level); attributes: everything below
    /1           level (time, y, x), y, x, crs
    /c           max, mean, observed (time, y, x), y, x, crs      for each coarseness c
    /background  hidden (y, x)                                    for sources of pictures

All on one regular time axis from near 1970 to 2100: index = (valid_time − origin) / cadence. Chunks that hold nothing
are not stored, so the length of the axis costs nothing.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum
from typing import Any

from fastrain.archive.coarsen import MOST_COARSE, Average
from fastrain.core.errors import ArchiveError, GridMismatch, SettingError
from fastrain.core.frame import Frame
from fastrain.core.grid import Grid
from fastrain.core.levels import LevelTable
from fastrain.core.time import TimeAxis, parse_time, show_time

FORMAT_VERSION = 2
CONVENTIONS = "CF-1.11"
SLOTS_PER_CHUNK = 2048  # of the arrays that hold one value a slot; a live radar rewrites one of each with every frame
CHUNK_PIXELS = 2**27  # of all frames of a chunk's time, which a writer holds at once
FEWEST = 12  # frames of a chunk, however slow the radar: a file costs as much as compressing six frames
CHUNK_SPAN = timedelta(hours=1)  # what a forecast reads; a chunk a frame would be millions of files
DIGEST_BYTES = 16


class Status(IntEnum):
    """What is known of a slot."""

    MISSING = 0
    OBSERVED = 1
    SUSPECT = 2
    REPAIRED = 3


@dataclass(frozen=True)
class Schema:
    """What an archive is of, fixed when it is created.

    Attributes:
        grid: of the pictures, at coarseness 1.
        table: what the levels stand for.
        axis: of time.
        coarseness: the coarse groups, each 2 or more, rising.
        average: of what the blocks' means are taken.
        source: name of the reader.
        credit: whom to thank for the data.
        ground: colours that mean dry, for sources of pictures.
        palette: of the pictures, as its TOML has it, for sources of pictures.
    """

    grid: Grid
    table: LevelTable
    axis: TimeAxis
    coarseness: tuple[int, ...]
    average: Average
    source: str
    credit: str
    ground: tuple[int, ...] | None = None
    palette: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        wrong = [c for c in self.coarseness if not 2 <= c <= MOST_COARSE]
        if wrong or list(self.coarseness) != sorted(set(self.coarseness)):
            said = ",".join(map(str, self.coarseness))
            raise SettingError(f"--coarseness {said}: expected different numbers from 2 to {MOST_COARSE}.")

    @property
    def frames_per_chunk(self) -> int:
        """Frames that one chunk holds: an hour of them, a dozen at least, fewer where they are a continent's."""
        pixels = self.grid.shape[0] * self.grid.shape[1]
        return max(1, min(max(FEWEST, round(CHUNK_SPAN / self.axis.cadence)), CHUNK_PIXELS // pixels))

    @property
    def identity(self) -> str:
        """A digest that tells two archives apart by what they are of."""
        kept = {k: v for k, v in self.as_attributes().items() if k not in ("ground", "credit", "palette")}
        return hashlib.blake2b(json.dumps(kept, sort_keys=True).encode(), digest_size=8).hexdigest()

    def check(self, frame: Frame) -> None:
        """Raise GridMismatch, saying what differs, if a frame cannot belong to this archive."""
        if frame.grid.shape != self.grid.shape:
            found, held = (f"{s[1]}×{s[0]}" for s in (frame.grid.shape, self.grid.shape))
            raise GridMismatch(
                f"{frame.name}: {found} pixels, but this archive holds {held}; ingest it into an archive of its own."
            )
        if frame.grid.identity != self.grid.identity:
            place, held_place = (
                "{:.3f},{:.3f}".format(*g.place(g.shape[0] / 2, g.shape[1] / 2)) for g in (frame.grid, self.grid)
            )
            raise GridMismatch(
                f"{frame.name}: its grid is centred at {place}, this archive's at {held_place}, or its projection or "
                "pixel size differs; ingest it into an archive of its own."
            )
        if frame.table.identity != self.table.identity:
            raise GridMismatch(
                f"{frame.name}: {frame.table.count} levels from {frame.table.lower[0]:g} mm/h, but this archive holds "
                f"{self.table.count} from {self.table.lower[0]:g}; ingest it into an archive of its own."
            )

    def as_attributes(self) -> dict[str, Any]:
        """Return the schema as plain values, as the root group keeps it."""
        return {
            "fastrain_format": FORMAT_VERSION,
            "origin": show_time(self.axis.origin),
            "cadence_seconds": int(self.axis.cadence.total_seconds()),
            "coarseness": list(self.coarseness),
            "average": self.average,
            "source": self.source,
            "credit": self.credit,
            "grid": self.grid.as_attributes(),
            "levels": self.table.as_attributes(),
            "ground": None if self.ground is None else list(self.ground),
            "palette": self.palette,
        }

    @classmethod
    def from_attributes(cls, kept: dict[str, Any]) -> Schema:
        """Return the schema that `as_attributes` wrote.

        Raises:
            ArchiveError: it is no Fastrain archive, or a newer one.
        """
        version = kept.get("fastrain_format")
        if version != FORMAT_VERSION:
            advice = "ingest its files into a new one" if version in range(FORMAT_VERSION) else "update fastrain"
            raise ArchiveError(f"its format is {version}, this program reads {FORMAT_VERSION}; {advice}.")
        cadence = timedelta(seconds=kept["cadence_seconds"])
        return cls(
            grid=Grid.from_attributes(kept["grid"]),
            table=LevelTable.from_attributes(kept["levels"]),
            axis=TimeAxis(parse_time(kept["origin"]), cadence),
            coarseness=tuple(kept["coarseness"]),
            average=kept["average"],
            source=kept["source"],
            credit=kept["credit"],
            ground=None if kept["ground"] is None else tuple(kept["ground"]),
            palette=kept.get("palette"),
        )
