"""Frames made ready for an archive where many of us are: coarse-grained, compressed, and what is known of each noted.

What comes back from a worker is a tenth of the frames it read, so handing it over costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from fastrain.archive.chunks import encode_chunk, fill_of
from fastrain.archive.coarsen import Average, average_weights, coarsen
from fastrain.archive.layout import BLOCK_ARRAYS
from fastrain.archive.schema import Schema
from fastrain.core.frame import Frame
from fastrain.core.levels import NOT_OBSERVED, WET, LevelTable


@dataclass(frozen=True)
class NotedFrame:
    """What an archive keeps of a frame beside its levels; `offset` is its time after its slot's."""

    name: str
    valid_time: datetime
    slot: int
    offset: timedelta
    digest: bytes
    wet_pixels: int
    observed_pixels: int


@dataclass(frozen=True)
class Packed:
    """A chunk of time: its number, what is noted of its frames, and its chunks as the storage keeps them, by key."""

    number: int
    frames: tuple[NotedFrame, ...]
    encoded: Mapping[str, bytes]


def pack(frames: Sequence[Frame], schema: Schema) -> Packed | None:
    """Return the frames of one chunk of time, packed; None where they are not of one, or two share a slot.

    Raises:
        GridMismatch: a frame has another grid or palette.
    """
    for frame in frames:
        schema.check(frame)
    slots = [schema.axis.slot(frame.valid_time)[0] for frame in frames]
    numbers = {slot // schema.frames_per_chunk for slot in slots}
    if len(numbers) != 1 or len(set(slots)) != len(slots) or not 0 <= min(slots) <= max(slots) < schema.axis.size:
        return None
    number = numbers.pop()
    at = np.array(slots) - number * schema.frames_per_chunk
    encoded: dict[str, bytes] = {}
    for name, values in grouped(np.stack([frame.level for frame in frames]), schema).items():
        chunk = np.full((schema.frames_per_chunk, *values.shape[1:]), fill_of(name), np.uint8)
        chunk[at] = values
        encoded |= encode_chunk(chunk, name, number)
    return Packed(number, tuple(noted_frame(frame, schema) for frame in frames), encoded)


def grouped(level: UInt8[ndarray, "n y x"], schema: Schema) -> dict[str, UInt8[ndarray, "n rows columns"]]:
    """Return frames as the archive's groups hold them, by name of the array."""
    weights = _weights(schema.average, schema.table)
    arrays = {"1/level": level}
    for coarseness in schema.coarseness:
        blocks = coarsen(level, coarseness, weights=weights)
        arrays |= {f"{coarseness}/{name}": values for name, values in zip(BLOCK_ARRAYS, blocks, strict=True)}
    return arrays


def noted_frame(frame: Frame, schema: Schema) -> NotedFrame:
    """Return what an archive keeps of a frame beside its levels."""
    unseen = int(np.count_nonzero(frame.level == NOT_OBSERVED))
    wet = int(np.count_nonzero(frame.level >= _first_wet(schema.table))) - unseen
    slot, offset = schema.axis.slot(frame.valid_time)
    return NotedFrame(frame.name, frame.valid_time, slot, offset, frame.digest, wet, frame.level.size - unseen)


@lru_cache(maxsize=4)
def _weights(average: Average, table: LevelTable) -> Float[ndarray, 256]:
    return average_weights(average, table)


@lru_cache(maxsize=4)
def _first_wet(table: LevelTable) -> int:
    return table.first_level(table.nearest_edge(WET))
