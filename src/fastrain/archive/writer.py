"""Writing an archive.

Each frame lands in its slot of the regular axis, whenever it comes. The same frame twice is no change; of two frames
in one slot the nearer in time stays; a different frame of the same time is refused unless told to replace. Nothing is
seen by readers before `commit`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Any, cast

import numpy as np
import zarr
from jaxtyping import Bool, Int, UInt8
from numpy import ndarray

from fastrain.archive.chunks import chunk_keys, decode_chunk, encode_chunk, load_chunks, store_chunks
from fastrain.archive.layout import BLOCK_ARRAYS, lay_out
from fastrain.archive.pack import NotedFrame, Packed, grouped, noted_frame
from fastrain.archive.repository import (
    BRANCH,
    KEEP_STATES,
    commit_session,
    create_repository,
    exists,
    open_repository,
    readable_errors,
    tidy_repository,
    write_lock,
)
from fastrain.archive.schema import DIGEST_BYTES, Schema, Status
from fastrain.archive.slots import Slots
from fastrain.core.frame import Frame

_ROOT = "zarr.json"  # the root group's own description


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


class _Uncommitted:
    """What a writer has changed since the last commit."""

    def __init__(self, session: Any, before: Slots | None) -> None:
        self.session = session
        self.slots = Slots(session.store, before)
        # Read and written as what it is, JSON: through zarr an append of one frame takes a third longer.
        self._root = json.loads(load_chunks(session.store, [_ROOT]).get(_ROOT, b"{}"))
        first, last = (self.attributes.get(name) for name in ("first_slot", "last_slot"))
        self.span = None if first is None else (cast(int, first), cast(int, last))
        self._stored_span = self.span

    @property
    def attributes(self) -> dict[str, Any]:
        """The attributes of the root group."""
        return cast(dict[str, Any], self._root.get("attributes", {}))

    def finish(self) -> None:
        """Hand what is known of the slots, and the span, to the storage."""
        self.slots.store()
        if self.span is not None and self.span != self._stored_span:
            self.attributes.update({"first_slot": self.span[0], "last_slot": self.span[1]})
            store_chunks(self.session.store, {_ROOT: json.dumps(self._root).encode()})


class Writer:
    """An archive opened for writing; `writing` makes one."""

    def __init__(self, path: Path, repository: Any) -> None:
        self.path = path
        self._repository = repository
        self._snapshot = ""
        self._now: _Uncommitted | None = None
        self._slots: Slots | None = None
        self._filling: tuple[int, dict[str, ndarray]] | None = None  # the chunk of time that was last left unfilled
        self.schema = Schema.from_attributes(self._state.attributes)

    @property
    def _state(self) -> _Uncommitted:
        """What is being written; begun anew after each commit, when it is needed."""
        if self._now is None:
            with readable_errors(self.path):
                self._now = _Uncommitted(self._repository.writable_session(BRANCH), self._slots)
        return self._now

    def commit(self, message: str) -> None:
        """Make everything written so far seen, in one step.

        Raises:
            ArchiveBusy: another writer committed meanwhile.
            ArchiveError: it could not be written; the last commit stands.
        """
        if self._now is None:
            return
        with readable_errors(self.path):
            self._now.finish()
            if self._now.session.has_uncommitted_changes:
                self._snapshot = commit_session(self._now.session, self.path, message)
        self._slots, self._now = self._now.slots, None

    def tidy(self, keep: timedelta = KEEP_STATES) -> None:
        """Drop states older than `keep`, and what only they held, now and then; see `tidy_repository`."""
        tidy_repository(self.path, self._repository, self._snapshot, keep)

    def write(self, frames: Sequence[Frame], *, replace: bool = False, repair: bool = False) -> list[Verdict]:
        """Put frames into their slots.

        Frames of one chunk of time should come together: a chunk is read, changed and written as a whole.

        Args:
            frames: in any order.
            replace: take a frame in place of a different one that is held for the same time.
            repair: take a frame in place of whatever is held for its slot, and remember that it was repaired.

        Returns:
            What became of each frame.

        Raises:
            GridMismatch: a frame has another grid or palette; nothing is written.
            ArchiveError: the storage failed; the last commit stands.
        """
        for frame in frames:
            self.schema.check(frame)
        verdicts = []
        accepted: dict[int, tuple[Frame, timedelta]] = {}
        with readable_errors(self.path):
            for frame in frames:
                verdicts.append(self._judge(frame, accepted, replace or repair, repair))
            for run in _runs(sorted(accepted), self.schema.frames_per_chunk):
                self._put({slot: accepted[slot] for slot in run}, Status.REPAIRED if repair else Status.OBSERVED)
        return verdicts

    def mark(self, slots: Sequence[int], status: Status) -> None:
        """Set the status of slots, leaving their frames as they are."""
        with readable_errors(self.path):
            self._state.slots.put(np.array(slots, np.int64), status=np.full(len(slots), status, np.uint8))

    def blank(self, start: int, stop: int, damaged: Sequence[str]) -> None:
        """Overwrite a chunk's time in arrays that can no longer be read: not observed, until its frames come anew."""
        self._filling = None
        with readable_errors(self.path):
            for name in damaged:
                array: Any = zarr.open_array(self._state.session.store, path=name)
                array[start:stop] = np.full((stop - start, *array.shape[1:]), array.fill_value, np.uint8)

    def rebuild(self, start: int, level: UInt8[ndarray, "time y x"]) -> None:
        """Write the coarse groups anew from the frames of some slots."""
        with readable_errors(self.path):
            changes = {k: v for k, v in grouped(level, self.schema).items() if k != "1/level"}
            self._change(changes, start + np.arange(len(level)))

    def _judge(
        self, frame: Frame | NotedFrame, accepted: dict[int, tuple[Any, timedelta]], replace: bool, repair: bool = False
    ) -> Verdict:
        slot, offset = self.schema.axis.slot(frame.valid_time)
        if not 0 <= slot < self.schema.axis.size:
            return Verdict(
                frame.name, Fate.CONFLICT, f"{frame.name}: its time {frame.valid_time} is off the time axis."
            )
        held = self._held(slot, accepted)
        if held is None:
            accepted[slot] = (frame, offset)
            return Verdict(frame.name, Fate.WRITTEN)
        held_digest, held_offset, status = held
        if held_digest == frame.digest and held_offset == offset and not (repair and status == Status.SUSPECT):
            return Verdict(frame.name, Fate.UNCHANGED)
        slot_time = f"{self.schema.axis.time(slot):%Y-%m-%dT%H:%MZ}"
        if held_offset != offset and status != Status.SUSPECT:
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
        if status == Status.SUSPECT:
            other = (
                f"the frame held for {slot_time} is marked suspect; `fastrain check --repair` takes this one instead"
            )
            return Verdict(frame.name, Fate.CONFLICT, f"{frame.name}: left out, {other}.")
        other = f"another picture is held for {slot_time}"
        return Verdict(frame.name, Fate.CONFLICT, f"{frame.name}: refused, {other}; --replace takes this one instead.")

    def _held(self, slot: int, accepted: dict[int, tuple[Any, timedelta]]) -> tuple[bytes, timedelta, int] | None:
        if slot in accepted:
            frame, offset = accepted[slot]
            return frame.digest, offset, Status.OBSERVED
        status = int(self._state.slots.get("status", slot))
        if status == Status.MISSING:
            return None
        offset = timedelta(seconds=int(self._state.slots.get("time_offset", slot)))
        return self._state.slots.get("digest", slot), offset, status

    def write_packed(self, packed: Packed, *, replace: bool = False) -> list[Verdict] | None:
        """Put a chunk of time that `pack` made elsewhere into the archive.

        Returns:
            What became of each frame; None, and nothing done, where the chunk holds other frames already, so that the
            frames themselves are needed: `write` takes them.

        Raises:
            ArchiveError: the storage failed; the last commit stands.
        """
        with readable_errors(self.path):
            accepted: dict[int, tuple[Any, timedelta]] = {}
            verdicts = [self._judge(frame, accepted, replace) for frame in packed.frames]
            if not accepted:
                return verdicts
            if len(accepted) != len(packed.frames) or not self._fresh(packed.number):
                return None
            store_chunks(self._state.session.store, packed.encoded)
            self._record(packed.frames, Status.OBSERVED)
        return verdicts

    def _put(self, accepted: dict[int, tuple[Frame, timedelta]], status: Status) -> None:
        slots = np.array(sorted(accepted))
        level = np.stack([accepted[slot][0].level for slot in slots])
        self._change(grouped(level, self.schema), slots)
        self._record([noted_frame(accepted[slot][0], self.schema) for slot in slots.tolist()], status)

    def _record(self, frames: Sequence[NotedFrame], status: Status) -> None:
        """Write what is known of each frame's slot."""
        frames = sorted(frames, key=lambda frame: frame.slot)
        first, last = frames[0].slot, frames[-1].slot
        self._state.slots.put(
            np.array([frame.slot for frame in frames]),
            status=np.full(len(frames), status, np.uint8),
            time_offset=np.array([frame.offset.total_seconds() for frame in frames], np.int32),
            wet_pixels=np.array([frame.wet_pixels for frame in frames], np.uint32),
            observed_pixels=np.array([frame.observed_pixels for frame in frames], np.uint32),
            digest=np.frombuffer(b"".join(frame.digest for frame in frames), np.uint8).reshape(-1, DIGEST_BYTES),
        )
        span = self._state.span or (first, last)
        self._state.span = min(first, span[0]), max(last, span[1])

    def _fresh(self, number: int) -> bool:
        """Tell whether a chunk of time holds nothing yet."""
        per_chunk = self.schema.frames_per_chunk
        span = range(number * per_chunk, (number + 1) * per_chunk)
        return all(self._state.slots.get("status", slot) == Status.MISSING for slot in span)

    def _change(self, changes: Mapping[str, UInt8[ndarray, "n y x"]], slots: Int[ndarray, n]) -> None:
        """Write values at some slots, leaving the others of their chunks as they are."""
        per_chunk = self.schema.frames_per_chunk
        encoded: dict[str, bytes] = {}
        for number in np.unique(slots // per_chunk).tolist():
            here = slots // per_chunk == number
            stored: dict[str, bytes] = {}
            filling = self._filling[1] if self._filling and self._filling[0] == number else {}
            if here.sum() < per_chunk and not filling.keys() >= changes.keys() and not self._fresh(number):
                keys = [key for name, of in changes.items() for key in chunk_keys(name, number, of.shape[1:])]
                stored = load_chunks(self._state.session.store, keys)
            left: dict[str, ndarray] = {}
            for name, values in changes.items():
                chunk = filling.get(name)
                if chunk is None:
                    chunk = decode_chunk(stored, name, number, (per_chunk, *values.shape[1:]))
                chunk[slots[here] - number * per_chunk] = values[here]
                encoded |= encode_chunk(chunk, name, number)
                left[name] = chunk
        self._filling = None
        store_chunks(self._state.session.store, encoded)
        # A live radar's next frame goes into the same chunk: kept, it need not be read again.
        if len(left) == len(BLOCK_ARRAYS) * len(self.schema.coarseness) + 1:
            self._filling = number, left


def _runs(slots: list[int], per_chunk: int) -> Iterator[list[int]]:
    """Yield slots in runs of neighbouring chunks, so that a gap of years between two frames is never read."""
    run: list[int] = []
    for slot in slots:
        if run and slot // per_chunk > run[-1] // per_chunk + 1:
            yield run
            run = []
        run.append(slot)
    if run:
        yield run


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
