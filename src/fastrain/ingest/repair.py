"""Repair of what a check found: marked, made anew from what is intact, taken anew from files; never guessed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from fastrain.archive.schema import Status
from fastrain.archive.store import Archive
from fastrain.archive.writer import Writer, writing
from fastrain.core.errors import GridMismatch, SourceError
from fastrain.core.frame import Frame
from fastrain.ingest.check import SUSPECT, CheckReport, block_arrays, doubt_of, readable, usually_observed
from fastrain.ingest.files import plan_files
from fastrain.ingest.ingest import options_of
from fastrain.sources import ReadOptions, read_frames


def repair(path: Path, report: CheckReport, files: Sequence[Path] = (), reading: ReadOptions | None = None) -> None:
    """Repair an archive; the report of its check then says what was done.

    Frames that are suspect are marked, so that nothing trains on them or is scored on them. Coarse groups are made
    anew from intact frames. Of the files, those whose time is a suspect frame's take its place.

    Args:
        path: of the archive.
        report: of its check.
        files: to take frames from; folders are searched.
        reading: for the reader, beside what the archive keeps.

    Raises:
        UsageError: there is nothing at a path given.
        ArchiveBusy: another process writes to it.
        ArchiveError: it cannot be written; the last commit stands.
    """
    archive = Archive.open(path)
    axis, per_chunk = archive.schema.axis, archive.schema.frames_per_chunk
    kinds: dict[int, set[str]] = {}
    for finding in report.findings:
        kinds.setdefault(axis.slot(finding.time)[0], set()).add(finding.kind)
    wrong = {slot for slot, found in kinds.items() if found & set(SUSPECT)}
    coarse = {slot for slot, found in kinds.items() if "coarse" in found} - wrong
    if archive.span is not None:
        status = archive.slots("status", *archive.span)
        wrong |= {int(slot) + archive.span[0] for slot in np.flatnonzero(status == Status.SUSPECT)}
    usual = usually_observed(archive)
    with writing(path) as writer:
        for number in sorted({slot // per_chunk for slot in coarse}):
            _blank_unreadable(archive, writer, number, block_arrays(archive))
        for slot in sorted(coarse):
            writer.rebuild(slot, archive.level(slot, slot + 1))
        writer.mark(sorted(wrong), Status.SUSPECT)
        done: dict[int, timedelta] = {}
        blanked: set[int] = set()
        for frame in _frames(archive, wrong, files, reading or ReadOptions(), report):
            slot, offset = axis.slot(frame.valid_time)
            reason = _refused(archive, frame, slot, wrong, usual, kinds.get(slot, set()))
            if not reason and slot in done and abs(done[slot]) <= abs(offset):
                reason = "a frame nearer to its time was taken"
            if reason:
                report.notes.append(f"{frame.name}: {reason}; left out.")
                continue
            # Only now is anything overwritten that could not be read: where there is something to put in its place.
            if slot // per_chunk not in blanked:
                _blank_unreadable(archive, writer, slot // per_chunk, ["1/level", *block_arrays(archive)])
                blanked.add(slot // per_chunk)
            try:
                writer.write([frame], repair=True)
            except GridMismatch as error:
                report.notes.append(str(error))
                continue
            done[slot] = offset
        writer.commit("repair")
    report.repaired, report.marked, report.rebuilt = len(done), len(wrong) - len(done), len(coarse)


def _refused(
    archive: Archive, frame: Frame, slot: int, wrong: set[int], usual: Bool[ndarray, "y x"], kinds: set[str]
) -> str:
    """Return why a frame cannot take a slot, or nothing."""
    if slot not in wrong:
        return "its time is not among the suspect ones"
    doubt = doubt_of(frame.level, usual) if frame.level.shape == usual.shape else "it is of another size"
    if doubt:
        return doubt
    held = archive.slots("digest", slot, slot + 1)[0].tobytes()
    if frame.digest == held and "damaged" not in kinds and kinds:
        return "it is the very frame that is suspect"
    return ""


def _frames(
    archive: Archive, wrong: set[int], files: Sequence[Path], reading: ReadOptions, report: CheckReport
) -> Iterator[Frame]:
    """Yield the frames of the files that may be those of suspect slots, as far as the names tell."""
    if not files or not wrong:
        return
    options = options_of(archive, reading)
    format = archive.schema.source
    plan = plan_files(
        files,
        archive=archive.path,
        format=format,
        archive_format=format,
        site=reading.site,
        time_pattern=reading.time_pattern,
    )
    for path, time in zip(plan.paths, plan.path_times, strict=True):
        if time is not None and archive.schema.axis.slot(time)[0] not in wrong:
            continue
        try:
            yield from read_frames(path, format, options)
        except SourceError as error:
            report.notes.append(str(error))


def _blank_unreadable(archive: Archive, writer: Writer, number: int, names: Sequence[str]) -> None:
    """Overwrite what cannot be read of a chunk of time, so that frames can be put into it again."""
    start = number * archive.schema.frames_per_chunk
    stop = start + archive.schema.frames_per_chunk
    bad = [name for name in names if readable(archive, name, start, stop) is None]
    if bad:
        writer.blank(start, stop, bad)
