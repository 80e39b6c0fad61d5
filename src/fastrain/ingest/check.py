"""Check: everything read and compared with what was noted of it, marked where it is not as it should be.

Every chunk is unpacked, its checksum with it; every frame's digest is made anew; the coarse groups are made anew from
coarseness 1 and compared. What no checksum can tell is looked for in the pictures: frames that break off below a row,
blank frames, the same rain under a new clock, clocks that jump. Nothing is changed; `repair` does that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8
from numpy import ndarray

from fastrain.archive.layout import BLOCK_ARRAYS
from fastrain.archive.pack import grouped, noted_frame
from fastrain.archive.repository import shown
from fastrain.archive.schema import Status
from fastrain.archive.store import Archive
from fastrain.core.errors import DamagedChunk, DamagedFile
from fastrain.core.frame import Frame
from fastrain.core.levels import NOT_OBSERVED
from fastrain.ingest.info import gaps_of

FEWEST_ROWS = 8  # that a frame must lack at its foot before it counts as broken off
CLOCK_JUMP = 0.25  # of the cadence, by which the clock moves from one frame to the next
USUALLY = 0.9  # share of frames that must observe a pixel before one that does not is suspicious

Progress = Callable[[int, int, str], None]

KINDS = {
    "damaged": "cannot be read, or is not what was written: take it anew from its file",
    "coarse": "a coarse group does not agree with the frame: made anew from it",
    "broken_off": "the picture breaks off below a row: truncated before it came",
    "blank": "nothing is observed",
    "repeated": "the same rain as in the frame before, under a new clock",
    "clock_jump": "its clock jumps against the frame before",
}
SUSPECT = (
    "damaged",
    "broken_off",
    "blank",
    "repeated",
)  # marked by a repair; the others leave a frame good


@dataclass(frozen=True)
class Finding:
    """One thing wrong with one frame."""

    time: datetime
    kind: str
    said: str


@dataclass
class CheckReport:
    """What a check found, and what a repair did.

    Attributes:
        archive: its path.
        frames: looked at.
        slots: of the span.
        first, last: times of the span, UTC; None where nothing is held.
        missing: slots without a frame, in `gaps` runs.
        gaps: runs of missing slots.
        findings: what is wrong.
        counts: findings by kind.
        marked: frames that the repair marked as suspect.
        rebuilt: frames whose coarse groups the repair made anew.
        repaired: frames that the repair took from files.
        notes: lines about files that the repair could not use.
        picture: where the calendar was drawn.
    """

    archive: str
    frames: int = 0
    slots: int = 0
    first: datetime | None = None
    last: datetime | None = None
    missing: int = 0
    gaps: int = 0
    findings: list[Finding] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    marked: int = 0
    rebuilt: int = 0
    repaired: int = 0
    notes: list[str] = field(default_factory=list)
    picture: str | None = None


def check(path: Path, progress: Progress = lambda *_: None) -> CheckReport:
    """Read everything that an archive holds and report what is not as it should be.

    Raises:
        ArchiveError: there is no archive, or what is known of its slots cannot be read.
    """
    archive = Archive.open(path)
    report = CheckReport(shown(path))
    if archive.span is None:
        return report
    start, stop = archive.span
    status = archive.slots("status", start, stop)
    report.first, report.last = archive.schema.axis.time(start), archive.schema.axis.time(stop - 1)
    report.slots, report.frames = stop - start, int((status != Status.MISSING).sum())
    missing = status == Status.MISSING
    report.missing, report.gaps = int(missing.sum()), len(gaps_of(archive, missing, start))
    report.findings = sorted(_findings(archive, status, start, stop, progress), key=lambda f: (f.time, f.kind))
    report.counts = {kind: sum(f.kind == kind for f in report.findings) for kind in KINDS}
    return report


def _findings(
    archive: Archive, status: UInt8[ndarray, time], start: int, stop: int, progress: Progress
) -> Iterator[Finding]:
    per_chunk = archive.schema.frames_per_chunk
    time = archive.schema.axis.time
    usual = usually_observed(archive)
    before: tuple[int, bytes, timedelta] | None = None  # slot, digest and offset of the frame before
    digests, offsets, wets = (archive.slots(name, start, stop) for name in ("digest", "time_offset", "wet_pixels"))
    anywhere = start + np.flatnonzero(status != Status.MISSING)
    for first in (np.unique(anywhere // per_chunk) * per_chunk).tolist():
        held = anywhere[(anywhere >= first) & (anywhere < first + per_chunk)]
        level = readable(archive, "1/level", first, first + per_chunk)
        for slot in held.tolist():
            if level is None:
                yield Finding(time(slot), "damaged", "its chunk cannot be read")
                continue
            digest, offset = digests[slot - start].tobytes(), timedelta(seconds=int(offsets[slot - start]))
            wet = int(wets[slot - start])
            yield from _of_frame(archive, slot, level[slot - first], digest, wet, usual)
            if before is not None and before[0] == slot - 1:
                yield from _beside(archive, slot, digest, offset, wet, before)
            before = slot, digest, offset
        if level is not None:
            yield from _of_blocks(archive, first, held - first, level)
        progress(min(first + per_chunk, stop) - start, stop - start, f"{time(first):%Y-%m-%d %H:%M}")


def _of_frame(
    archive: Archive, slot: int, level: UInt8[ndarray, "y x"], digest: bytes, wet: int, usual: Bool[ndarray, "y x"]
) -> Iterator[Finding]:
    schema = archive.schema
    try:
        frame = Frame(level, schema.axis.time(slot), schema.grid, schema.table, "")
        intact = frame.digest == digest and noted_frame(frame, schema).wet_pixels == wet
    except DamagedFile:  # a level that the table does not know
        intact = False
    if not intact:
        yield Finding(schema.axis.time(slot), "damaged", "its pixels are not the ones that were written")
        return
    doubt = doubt_of(level, usual)
    if doubt:
        kind = "blank" if doubt == KINDS["blank"] else "broken_off"
        yield Finding(schema.axis.time(slot), kind, doubt)


def doubt_of(level: UInt8[ndarray, "y x"], usual: Bool[ndarray, "y x"]) -> str:
    """Return what is suspicious of a frame by itself, or nothing."""
    seen = level != NOT_OBSERVED
    if not seen.any():
        return KINDS["blank"]
    rows = np.flatnonzero(usual.any(axis=1))
    if not len(rows):
        return ""
    last_usual, last_seen = int(rows[-1]), int(np.flatnonzero((seen & usual).any(axis=1)).max(initial=-1))
    if last_usual - last_seen >= FEWEST_ROWS:
        return f"the picture breaks off below row {last_seen}"
    return ""


def _beside(
    archive: Archive, slot: int, digest: bytes, offset: timedelta, wet: int, before: tuple[int, bytes, timedelta]
) -> Iterator[Finding]:
    _, last_digest, last_offset = before
    time = archive.schema.axis.time
    # Dry frames repeat as a matter of course; rain never does, to the pixel.
    if digest == last_digest and wet > 0:
        yield Finding(time(slot), "repeated", f"the same rain as at {time(slot - 1):%H:%M}Z")
    if abs(offset - last_offset) > CLOCK_JUMP * archive.schema.axis.cadence:
        yield Finding(
            time(slot), "clock_jump", f"{(offset - last_offset).total_seconds():+.0f} s against the one before"
        )


def _of_blocks(archive: Archive, first: int, held: ndarray, level: UInt8[ndarray, "time y x"]) -> Iterator[Finding]:
    expected = grouped(level[held], archive.schema)
    wrong: dict[int, list[str]] = {}
    for name in block_arrays(archive):
        found = readable(archive, name, first, first + len(level))
        for i, slot in enumerate(held.tolist()):
            if found is None or not np.array_equal(found[slot], expected[name][i]):
                wrong.setdefault(first + slot, []).append(f"{name}{' (unreadable)' if found is None else ''}")
    for slot, names in wrong.items():
        yield Finding(archive.schema.axis.time(slot), "coarse", ", ".join(names))


def block_arrays(archive: Archive) -> list[str]:
    """Return the names of the arrays of the coarse groups."""
    return [f"{coarseness}/{name}" for coarseness in archive.schema.coarseness for name in BLOCK_ARRAYS]


def readable(archive: Archive, name: str, start: int, stop: int) -> UInt8[ndarray, "time y x"] | None:
    """Return slots of an array, or None where they are damaged; that the storage cannot be reached is no damage."""
    try:
        return archive.array(name, start, stop)
    except DamagedChunk:
        return None


def usually_observed(archive: Archive) -> Bool[ndarray, "y x"]:
    """Return where the radar usually observes: in most of some frames spread over the span."""
    assert archive.span is not None
    start, stop = archive.span
    held = start + np.flatnonzero(archive.slots("status", start, stop) != Status.MISSING)
    seen, count = np.zeros(archive.schema.grid.shape, np.int32), 0
    for slot in held[np.linspace(0, len(held) - 1, min(24, len(held))).astype(int)].tolist():
        level = readable(archive, "1/level", slot, slot + 1)
        if level is not None and (level != NOT_OBSERVED).any():
            seen += level[0] != NOT_OBSERVED
            count += 1
    return np.asarray(seen >= max(1, USUALLY * count))
