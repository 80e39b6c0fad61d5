"""Writing and reading frames.

Each frame lands in its slot of the regular axis, whenever it comes. The same frame twice is no change; of two frames
in one slot the nearer in time stays; a different frame of the same time is refused unless told to replace. Nothing is
seen by readers before `commit`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import zarr
from jaxtyping import Bool, UInt8
from numpy import ndarray

from fastrain.archive.coarsen import average_weights, coarsen
from fastrain.archive.layout import BLOCK_ARRAYS, lay_out
from fastrain.archive.repository import (
    BRANCH,
    create_repository,
    exists,
    open_repository,
    readable_errors,
    write_lock,
)
from fastrain.archive.schema import DIGEST_BYTES, Schema, Status
from fastrain.core.errors import ArchiveError
from fastrain.core.frame import Frame
from fastrain.core.levels import NOT_OBSERVED, WET, wet_from


class Fate(Enum):
    """What became of a frame that was offered to an archive."""

    WRITTEN = "written"
    UNCHANGED = "unchanged"
    REPLACED = "replaced"
    FARTHER = "farther"
    CONFLICT = "conflict"


@dataclass(frozen=True)
class Verdict:
    """What became of one frame, and why where it is worth a line."""

    name: str
    fate: Fate
    reason: str = ""


class Archive:
    """An archive opened for reading: one committed state, whatever is written meanwhile."""

    def __init__(self, path: Path, store: Any) -> None:
        self.path = path
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
        return self._read("1/level", start, stop)

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
        return {name: self._read(f"{coarseness}/{name}", start, stop) for name in BLOCK_ARRAYS}

    def _read(self, name: str, start: int | None = None, stop: int | None = None) -> ndarray:
        with readable_errors(self.path):
            try:
                return np.asarray(self.root[name][start:stop])  # type: ignore[index]
            except (ValueError, RuntimeError, LookupError, TypeError) as error:
                # A chunk whose checksum is wrong, or that its codec cannot unpack.
                said = (str(error).splitlines() or [type(error).__name__])[0]
                raise ArchiveError(f"{self.path}: {name} is damaged ({said}); ingest it anew.") from None


class Writer:
    """An archive opened for writing; `writing` makes one."""

    def __init__(self, path: Path, repository: Any) -> None:
        self.path = path
        self._repository = repository
        self._begin()
        self.schema = Schema.from_attributes(dict(self._root.attrs))
        self._weights = average_weights(self.schema.average, self.schema.table)
        self._wet = self.schema.table.first_level(self.schema.table.nearest_edge(WET))

    def _begin(self) -> None:
        self._session = self._repository.writable_session(BRANCH)
        self._root = zarr.open_group(self._session.store)

    @property
    def changed(self) -> bool:
        """Whether something waits to be committed."""
        return bool(self._session.has_uncommitted_changes)

    def commit(self, message: str) -> None:
        """Make everything written so far seen, in one step.

        Raises:
            ArchiveError: it could not be written; the last commit stands.
        """
        if self.changed:
            with readable_errors(self.path):
                self._session.commit(message)
                self._begin()

    def write(self, frames: Sequence[Frame], *, replace: bool = False) -> list[Verdict]:
        """Put frames into their slots.

        Frames of one chunk of time should come together: a chunk is read, changed and written as a whole.

        Args:
            frames: in any order.
            replace: take a frame in place of a different one that is held for the same time.

        Returns:
            What became of each frame.

        Raises:
            GridMismatch: a frame has another grid or palette; nothing is written.
            ArchiveError: the storage failed; the last commit stands.
        """
        for frame in frames:
            self.schema.check(frame)
        per_chunk = self.schema.frames_per_chunk
        chunks: dict[int, list[int]] = {}
        for i, frame in enumerate(frames):
            chunks.setdefault(self.schema.axis.slot(frame.valid_time)[0] // per_chunk, []).append(i)
        verdicts: dict[int, Verdict] = {}
        with readable_errors(self.path):
            for _, members in sorted(chunks.items()):
                accepted: dict[int, tuple[Frame, timedelta]] = {}
                for i in members:
                    verdicts[i] = self._judge(frames[i], accepted, replace)
                if accepted:
                    self._put(accepted)
        return [verdicts[i] for i in range(len(frames))]

    def _judge(self, frame: Frame, accepted: dict[int, tuple[Frame, timedelta]], replace: bool) -> Verdict:
        slot, offset = self.schema.axis.slot(frame.valid_time)
        if not 0 <= slot < self.schema.axis.size:
            return Verdict(
                frame.name, Fate.CONFLICT, f"{frame.name}: its time {frame.valid_time} is off the time axis."
            )
        held = self._held(slot, accepted)
        if held is None:
            accepted[slot] = (frame, offset)
            return Verdict(frame.name, Fate.WRITTEN)
        held_digest, held_offset = held
        if held_digest == frame.digest and held_offset == offset:
            return Verdict(frame.name, Fate.UNCHANGED)
        slot_time = f"{self.schema.axis.time(slot):%Y-%m-%dT%H:%MZ}"
        if held_offset != offset:
            # Of two equally near the earlier stays, so that the order of arrival does not matter.
            if (abs(offset), offset) > (abs(held_offset), held_offset):
                other = f"a frame nearer to {slot_time} is held already"
                return Verdict(frame.name, Fate.FARTHER, f"{frame.name}: left out, {other}.")
            accepted[slot] = (frame, offset)
            return Verdict(
                frame.name,
                Fate.REPLACED,
                f"{frame.name}: took the slot {slot_time} from a frame farther off.",
            )
        if replace:
            accepted[slot] = (frame, offset)
            return Verdict(frame.name, Fate.REPLACED)
        other = f"another picture is held for {slot_time}"
        return Verdict(frame.name, Fate.CONFLICT, f"{frame.name}: refused, {other}; --replace takes this one instead.")

    def _held(self, slot: int, accepted: dict[int, tuple[Frame, timedelta]]) -> tuple[bytes, timedelta] | None:
        if slot in accepted:
            frame, offset = accepted[slot]
            return frame.digest, offset
        if self._read("status", slot, slot + 1)[0] == Status.MISSING:
            return None
        seconds = int(self._read("time_offset", slot, slot + 1)[0])
        return self._read("digest", slot, slot + 1)[0].tobytes(), timedelta(seconds=seconds)

    def _put(self, accepted: dict[int, tuple[Frame, timedelta]]) -> None:
        slots = sorted(accepted)
        start, stop = slots[0], slots[-1] + 1
        at = np.array(slots) - start
        level = np.stack([accepted[slot][0].level for slot in slots])
        self._change("1/level", start, stop, at, level)
        for coarseness in self.schema.coarseness:
            blocks = coarsen(level, coarseness, weights=self._weights)
            for name, values in zip(BLOCK_ARRAYS, blocks, strict=True):
                self._change(f"{coarseness}/{name}", start, stop, at, values)
        seen = level != NOT_OBSERVED
        digests = b"".join(accepted[slot][0].digest for slot in slots)
        one_a_slot: dict[str, Any] = {
            "status": np.full(len(slots), Status.OBSERVED, np.uint8),
            "time_offset": np.array([accepted[slot][1].total_seconds() for slot in slots], np.int32),
            "wet_pixels": wet_from(level, self._wet).sum(axis=(1, 2)).astype(np.uint32),
            "observed_pixels": seen.sum(axis=(1, 2)).astype(np.uint32),
            "digest": np.frombuffer(digests, np.uint8).reshape(-1, DIGEST_BYTES),
        }
        for name, values in one_a_slot.items():
            self._change(name, start, stop, at, values)
        first, last = (self._root.attrs[name] for name in ("first_slot", "last_slot"))
        bounds: dict[str, Any] = {
            "first_slot": start if first is None else min(start, cast(int, first)),
            "last_slot": stop - 1 if last is None else max(stop - 1, cast(int, last)),
        }
        if (first, last) != tuple(bounds.values()):
            self._root.attrs.update(bounds)

    def _change(self, name: str, start: int, stop: int, at: ndarray, values: ndarray) -> None:
        """Write values at some slots of a span, leaving the others as they are."""
        if len(values) != stop - start:
            held = self._read(name, start, stop)
            held[at] = values
            values = held
        self._root[name][start:stop] = values  # type: ignore[index]

    def _read(self, name: str, start: int, stop: int) -> ndarray:
        return np.array(self._root[name][start:stop])  # type: ignore[index]


@contextmanager
def writing(path: Path, schema: Schema | None = None, hidden: Bool[ndarray, "y x"] | None = None) -> Iterator[Writer]:
    """Open an archive for writing, as its only writer; what is not committed at the end is dropped.

    Args:
        path: of the archive.
        schema: what to create where there is none yet.
        hidden: where the pictures hide the rain; kept when the archive is created.

    Raises:
        ArchiveBusy: another process writes to it.
        ArchiveError: there is none and no schema is given, or it cannot be written.
    """
    with write_lock(path):
        if not exists(path) and schema is not None:
            create_repository(path, lambda store: lay_out(zarr.group(store), schema, hidden))
        yield Writer(path, open_repository(path))


def frame_time(archive: Archive, slot: int) -> datetime:
    """Return the time of the observation held in a slot, UTC."""
    seconds = int(archive.slots("time_offset", slot, slot + 1)[0])
    return archive.schema.axis.time(slot) + timedelta(seconds=seconds)
