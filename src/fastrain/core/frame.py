"""One radar picture at one time, as every reader returns it and the archive keeps it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from fastrain.core.errors import DamagedFile
from fastrain.core.grid import Grid
from fastrain.core.levels import LevelTable


@dataclass(frozen=True)
class Frame:
    """One picture: levels on a grid at a time.

    Attributes:
        level: (y, x) uint8, rows north to south; 0 dry, 1..254 rising rain rate, 255 not observed.
        valid_time: of the observation, UTC.
        grid: where the pixels lie.
        table: what the levels stand for.
        name: of the file it came from, for messages.
    """

    level: UInt8[ndarray, "y x"]
    valid_time: datetime
    grid: Grid
    table: LevelTable
    name: str

    def __post_init__(self) -> None:
        if self.level.shape != self.grid.shape:
            raise DamagedFile(f"{self.name}: {self.level.shape} pixels, but its grid has {self.grid.shape}.")
        # Plus one, not observed wraps round to 0: one pass at memory speed.
        highest = int((self.level + np.uint8(1)).max()) - 1
        if highest > self.table.count:
            raise DamagedFile(f"{self.name}: level {highest}, but its legend ends at {self.table.count}.")

    @cached_property
    def digest(self) -> bytes:
        """16 bytes that tell whether two frames hold the same levels."""
        # SHA-256, which processors have an instruction for: three times as fast as BLAKE2.
        return hashlib.sha256(np.ascontiguousarray(self.level).data).digest()[:16]
