"""Reading an archive: one committed state, its frames, and what is known of each slot."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import zarr
from jaxtyping import Bool, Int, UInt8
from numpy import ndarray

from fastrain.archive.chunks import BrokenChunk, chunk_keys, decode_chunk, load_chunks
from fastrain.archive.layout import BLOCK_ARRAYS
from fastrain.archive.repository import BRANCH, open_repository, readable_errors
from fastrain.archive.schema import Schema, Status
from fastrain.core.errors import ArchiveError, first_line
from fastrain.core.levels import NOT_OBSERVED

CHUNKS_AT_ONCE = 32  # of one array, fetched together


class Archive:
    """An archive opened for reading: one committed state, whatever is written meanwhile."""

    def __init__(self, path: Path, store: Any) -> None:
        self.path = path
        self._store = store
        self.root = zarr.open_group(store, mode="r")
        try:
            self.schema = Schema.from_attributes(dict(self.root.attrs))
        except ArchiveError as error:
            raise ArchiveError(f"{path}: {error}") from None

    @classmethod
    def open(cls, path: Path | str) -> Archive:
        """Open the last commit.

        Raises:
            ArchiveError: there is no archive, or it cannot be read.
        """
        path = Path(path)
        repository = open_repository(path)
        with readable_errors(path):
            return cls(path, repository.readonly_session(BRANCH).store)

    @property
    def span(self) -> tuple[int, int] | None:
        """First slot that holds a frame, and the slot after the last; None where nothing is held yet."""
        first, last = self.root.attrs["first_slot"], self.root.attrs["last_slot"]
        return None if first is None else (cast(int, first), cast(int, last) + 1)

    @cached_property
    def background(self) -> Bool[ndarray, "y x"] | None:
        """Where the pictures hide the rain, for sources of pictures."""
        if "background" not in self.root:
            return None
        return self._read("background/hidden").astype(bool)

    def slots(self, name: str, start: int, stop: int) -> ndarray:
        """Return one of the arrays that hold a value a slot, from slot `start` to before `stop`."""
        return self._read(name, start, stop)

    def observed(self, start: int, stop: int) -> Bool[ndarray, time]:
        """Tell for each slot whether it holds a frame to be used."""
        return np.isin(self.slots("status", start, stop), (Status.OBSERVED, Status.REPAIRED))

    def level(self, start: int, stop: int) -> UInt8[ndarray, "time y x"]:
        """Return the frames at coarseness 1; a missing one is not observed everywhere."""
        return self._planes(["1/level"], start, stop)["1/level"]

    def array(self, name: str, start: int, stop: int) -> ndarray:
        """Return an array of any group, like `4/max`, from slot `start` to before `stop`."""
        return self._planes([name], start, stop)[name] if "/" in name else self._read(name, start, stop)

    def blocks(self, coarseness: int, start: int, stop: int) -> dict[str, UInt8[ndarray, "time y x"]]:
        """Return maximum, mean ratio and observed pixels of each block, by name.

        Raises:
            ArchiveError: the archive was made without this coarseness.
        """
        if coarseness == 1:
            level = self.level(start, stop)
            full = np.where(level == NOT_OBSERVED, 0, 255).astype(np.uint8)
            return {"max": level, "mean": full * (level > 0), "observed": full // 255}
        if coarseness not in self.schema.coarseness:
            held = ", ".join(map(str, (1, *self.schema.coarseness)))
            raise ArchiveError(f"{self.path}: holds coarseness {held}, not {coarseness}; ingest again with it.")
        planes = self._planes([f"{coarseness}/{name}" for name in BLOCK_ARRAYS], start, stop)
        return {name: planes[f"{coarseness}/{name}"] for name in BLOCK_ARRAYS}

    def _planes(self, names: Sequence[str], start: int, stop: int) -> dict[str, UInt8[ndarray, "time y x"]]:
        """Return slots of arrays of frames, their chunks fetched together: a third of the time through zarr."""
        per_chunk = self.schema.frames_per_chunk
        shapes = {name: self.schema.grid.coarsened(int(name.split("/")[0])).shape for name in names}
        out = {name: np.empty((max(0, stop - start), *shape), np.uint8) for name, shape in shapes.items()}
        if stop <= start:
            return out
        numbers = range(start // per_chunk, (stop - 1) // per_chunk + 1)
        with readable_errors(self.path):
            for at in range(0, len(numbers), CHUNKS_AT_ONCE):
                group = numbers[at : at + CHUNKS_AT_ONCE]
                keys = [k for n, s in shapes.items() for i in group for k in chunk_keys(n, i, s)]
                stored = load_chunks(self._store, keys)
                for name, shape in shapes.items():
                    for number in group:
                        chunk = decode_chunk(stored, name, number, (per_chunk, *shape))
                        first, last = max(start, number * per_chunk), min(stop, (number + 1) * per_chunk)
                        out[name][first - start : last - start] = chunk[
                            first - number * per_chunk : last - number * per_chunk
                        ]
        return out

    def _read(self, name: str, start: int | None = None, stop: int | None = None) -> ndarray:
        with readable_errors(self.path):
            try:
                return np.asarray(self.root[name][start:stop])  # type: ignore[index]
            except (ValueError, RuntimeError, LookupError, TypeError) as error:
                raise BrokenChunk(f"{name} is damaged ({first_line(error)})") from None


def frame_time(archive: Archive, slot: int) -> datetime:
    """Return the time of the observation held in a slot, UTC."""
    return frame_times(archive, np.array([slot]))[0]


def frame_times(archive: Archive, slots: Int[ndarray, n]) -> list[datetime]:
    """Return the times of the observations held in some slots, rising, UTC."""
    first = int(slots[0])
    seconds = archive.slots("time_offset", first, int(slots[-1]) + 1)
    time = archive.schema.axis.time
    return [time(slot) + timedelta(seconds=int(seconds[slot - first])) for slot in slots.tolist()]
