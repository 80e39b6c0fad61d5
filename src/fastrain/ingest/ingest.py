"""Files into an archive: incremental, idempotent, and whole after any kill.

Frames are written in batches of some hours and committed every few seconds. A run that was killed leaves its last
commit; run again, it finds what is held unchanged and adds the rest.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fastrain.archive.coarsen import Average
from fastrain.archive.repository import exists, shown
from fastrain.archive.schema import Schema
from fastrain.archive.store import Archive
from fastrain.archive.writer import Fate, Verdict, Writer, writing
from fastrain.core.errors import ArchiveBusy, ArchiveError, GridMismatch, SourceError, UsageError
from fastrain.core.frame import Frame
from fastrain.core.memory import keep_freed_memory
from fastrain.core.time import TimeAxis, cadence_of, show_time
from fastrain.ingest.decode import Task, decode, pack_all
from fastrain.ingest.files import Plan, Problem, plan_files
from fastrain.sources import Background, ReadOptions, reader_of
from fastrain.sources.palette import palette_of

FILES_FOR_WORKERS = 400  # fewer are decoded before a second process would have started
BATCH_BYTES = 16 * 2**20  # of frames that are written at once
COMMIT_SECONDS = 5.0  # between commits: what a kill can cost
AHEAD_OF_CLOCK = timedelta(days=1)

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class IngestSettings:
    """What a user may choose.

    Attributes:
        format: a reader's name, or auto.
        coarseness: of the coarse groups; 2, 3, 4 if None.
        average: of what the blocks' means are taken; the reader's own if None.
        cadence: step of the time axis; the commonest step of the frames if None.
        workers: decoding processes; chosen by the number of files if None.
        scheduler: address of a Dask scheduler whose workers decode instead.
        replace: take a frame in place of a different one held for the same time.
        background: a picture without rain, instead of the consensus.
        reading: for the reader.
    """

    format: str = "auto"
    coarseness: tuple[int, ...] | None = None
    average: Average | None = None
    cadence: timedelta | None = None
    workers: int | None = None
    scheduler: str | None = None
    replace: bool = False
    background: Path | None = None
    reading: ReadOptions = field(default_factory=ReadOptions)


@dataclass
class IngestReport:
    """What became of the files.

    Attributes:
        archive: its path.
        files: that were given and looked at.
        counts: frames by fate.
        problems: a line for each file or frame that did not go in.
        notes: lines worth knowing that are no failure.
        seconds: that it took.
    """

    archive: str
    files: int = 0
    counts: dict[str, int] = field(default_factory=lambda: {fate.value: 0 for fate in Fate})
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0


def ingest(
    paths: Sequence[Path], archive: Path, settings: IngestSettings, progress: Progress = lambda *_: None
) -> IngestReport:
    """Put the frames of files into an archive, which is created if there is none.

    Args:
        paths: files and folders.
        archive: where it lies or shall lie.
        settings: see there.
        progress: called with files done, files in all, and what is being done.

    Returns:
        What became of each; files that could not be read are in its `problems`, and the rest went in.

    Raises:
        UsageError: nothing to read, or several radars mixed.
        ArchiveError: the archive cannot be written, or was made otherwise than the settings ask.
        SourceError: the background that was given cannot be read.
    """
    began = time.monotonic()
    keep_freed_memory()
    archive = archive.resolve() if archive.name in ("", "..") else archive
    held = Archive.open(archive) if exists(archive) else None
    archive_format = held.schema.source if held else None
    reading = settings.reading
    plan = plan_files(
        paths,
        archive=archive,
        format=settings.format,
        archive_format=archive_format,
        site=reading.site,
        time_pattern=reading.time_pattern,
    )
    report = IngestReport(shown(archive), files=len(plan.paths) + len(plan.problems), problems=list(plan.problems))
    if not plan.paths:
        report.seconds = time.monotonic() - began
        return report
    if held:
        _same_choices(held.schema, settings, plan.format)
    reading = options_of(held, reading) if held else _with_background(reading, plan, settings, progress)
    workers = settings.workers or (min(8, (os.cpu_count() or 1) + 1) if len(plan.paths) >= FILES_FOR_WORKERS else 1)
    schema = None
    if not held:
        looked = IngestReport("")
        first = _first(_frames(plan.paths, plan.format, reading, looked, progress), plan)
        if not first:  # not one can be read: each says why
            report.problems += looked.problems
            report.seconds = time.monotonic() - began
            return report
        schema = _schema(first, plan, settings, reading)
    hidden = reading.background.hidden if reading.background else None
    with writing(archive, schema, hidden) as writer:
        if schema is not None and writer.schema != schema:
            raise ArchiveBusy(f"{archive}: another process made this archive meanwhile; give the same command again.")
        if (workers > 1 or settings.scheduler) and not reader_of(plan.format).many:
            _write_packed(writer, plan, reading, settings, workers, report, progress)
        else:
            _write(writer, _frames(plan.paths, plan.format, reading, report, progress), settings.replace, report)
        writer.commit("ingest")
        writer.tidy()
        if report.notes:  # of frames between two times of the archive only the one nearer to a time is held
            cadence = writer.schema.axis.cadence / timedelta(minutes=1)
            count = f"{len(report.notes)} frame{'s were' if len(report.notes) > 1 else ' was'}"
            report.notes.insert(
                0,
                f"{count} for a time that another frame was for, too: this archive holds one every {cadence:g} min, of "
                "two the nearer. To hold all, ingest into another archive with a shorter --cadence.",
            )
    report.seconds = time.monotonic() - began
    return report


def options_of(archive: Archive, reading: ReadOptions) -> ReadOptions:
    """Return what the reader must be told so that the same picture gives the same frame as when the archive was made.

    Raises:
        ArchiveError: a palette is given that is not the archive's.
    """
    reading = _with_palette(reading, archive)
    if archive.background is not None and archive.schema.ground is not None:
        return replace(reading, background=Background(archive.schema.ground, archive.background))
    return reading


def _same_choices(schema: Schema, settings: IngestSettings, format: str) -> None:
    asked = {
        "format": (format, schema.source),
        "coarseness": (settings.coarseness, schema.coarseness),
        "average": (settings.average, schema.average),
        "cadence": (settings.cadence, schema.axis.cadence),
    }
    for option, given in (("background", settings.background), ("mask", settings.reading.mask)):
        if given is not None:
            raise ArchiveError(f"The background was fixed when this archive was made; leave --{option} out.")
    for name, (wanted, kept) in asked.items():
        if wanted is not None and wanted != kept:
            raise ArchiveError(
                f"This archive was made with {name} {kept}, not {wanted}; leave --{name} out, or ingest into another."
            )


def _with_palette(reading: ReadOptions, held: Archive) -> ReadOptions:
    """Return the options with the palette that the archive was made with."""
    if held.schema.palette is None:
        return reading
    kept = palette_of(held.schema.palette, f"the palette of {held.path.name}")
    if reading.palette is not None and reading.palette.kept != kept.data:
        raise ArchiveError("The palette was fixed when this archive was made; leave --palette and --crop out.")
    return replace(reading, palette=kept)


def _with_background(reading: ReadOptions, plan: Plan, settings: IngestSettings, progress: Progress) -> ReadOptions:
    learn = reader_of(plan.format).learn
    if learn is None:
        return reading
    progress(0, len(plan.paths), "learning the background")
    try:
        return replace(reading, background=learn(plan.paths, settings.background, reading))
    except SourceError:
        if settings.background:
            raise
        return reading  # not one picture can be read: each will say why


def _frames(
    paths: Sequence[Path],
    format: str,
    reading: ReadOptions,
    report: IngestReport,
    progress: Progress = lambda *_: None,
) -> Iterator[Frame]:
    latest = datetime.now(UTC) + AHEAD_OF_CLOCK
    done, last = 0, None
    for path, frames, error in decode(paths, format, reading):
        done += path != last
        last = path
        if error is not None:
            report.problems.append(Problem(path.name, str(error)))
        for frame in frames:
            if frame.valid_time > latest:
                reason = f"{frame.name}: its time {show_time(frame.valid_time)} lies in the future; left out."
                report.problems.append(Problem(frame.name, reason))
            else:
                yield frame
        progress(done, len(paths), frames[-1].name if frames else path.name)


def _first(frames: Iterator[Frame], plan: Plan) -> list[Frame]:
    """Return the frames that must be seen before an archive can be made: one, or some where names tell no times."""
    first: list[Frame] = []
    for frame in frames:
        first.append(frame)
        if len(plan.times) > 1 or len(first) >= 24:
            break
    return first


def _schema(first: list[Frame], plan: Plan, settings: IngestSettings, reading: ReadOptions) -> Schema:
    cadence = settings.cadence
    if cadence is None:
        cadence = cadence_of(plan.times if len(plan.times) > 1 else [f.valid_time for f in first])
    if cadence is None:
        raise UsageError(f"{first[0].name}: one frame tells no cadence; give --cadence MINUTES.")
    reader = reader_of(plan.format)
    background = reading.background
    return Schema(
        grid=first[0].grid,
        table=first[0].table,
        axis=TimeAxis.through(first[0].valid_time, cadence),
        coarseness=(2, 3, 4) if settings.coarseness is None else settings.coarseness,
        average=settings.average or reader.average,
        source=plan.format,
        credit=(reader.credit_of and reader.credit_of(plan.paths[0])) or reader.credit,
        ground=background.ground if background else None,
        palette=_palette_kept(reading, plan),
    )


def _palette_kept(reading: ReadOptions, plan: Plan) -> dict[str, Any] | None:
    """Return the pictures' palette as the archive keeps it, so that later pictures are read in the same way."""
    packaged = reader_of(plan.format).palette
    palette = reading.palette or (packaged() if packaged else None)
    return palette.kept if palette else None


def _write(writer: Writer, frames: Iterable[Frame], replace: bool, report: IngestReport) -> None:
    """Write frames in batches of some hours."""
    batch: list[Frame] = []
    held, committed = 0, time.monotonic()
    for frame in frames:
        try:
            writer.schema.check(frame)
        except GridMismatch as error:
            report.problems.append(Problem(frame.name, str(error)))
            continue
        # Cut between chunks of time, so that none is written twice.
        if held >= BATCH_BYTES and _chunk(writer, frame.valid_time) != _chunk(writer, batch[-1].valid_time):
            _note(writer.write(batch, replace=replace), report)
            batch, held = [], 0
            if time.monotonic() - committed >= COMMIT_SECONDS:
                writer.commit(f"ingest up to {show_time(frame.valid_time)}")
                committed = time.monotonic()
        batch.append(frame)
        held += frame.level.size
    _note(writer.write(batch, replace=replace), report)


def _write_packed(
    writer: Writer,
    plan: Plan,
    reading: ReadOptions,
    settings: IngestSettings,
    workers: int,
    report: IngestReport,
    progress: Progress,
) -> None:
    """Write chunks of time that workers packed; what does not fit as a whole is read again and judged one by one."""
    task = Task(plan.format, reading, writer.schema)
    latest = datetime.now(UTC) + AHEAD_OF_CLOCK
    count, committed = 0, time.monotonic()
    for done in pack_all(_jobs(writer, plan), task, workers, settings.scheduler, latest):
        count += len(done.paths)
        report.problems += [Problem(path.name, str(error)) for path, error in done.errors]
        verdicts = writer.write_packed(done.packed, replace=settings.replace) if done.packed else None
        if verdicts is not None:
            _note(verdicts, report)
        elif len(done.errors) < len(done.paths):
            broken = {path for path, _ in done.errors}
            again = [path for path in done.paths if path not in broken]
            _write(writer, _frames(again, plan.format, reading, report), settings.replace, report)
        if time.monotonic() - committed >= COMMIT_SECONDS:
            writer.commit(f"ingest up to {done.paths[-1].name}")
            committed = time.monotonic()
        progress(count, len(plan.paths), done.paths[-1].name)


def _jobs(writer: Writer, plan: Plan) -> list[list[Path]]:
    """Return the files by chunk of time, as far as their names tell it; others by the dozen."""
    jobs: list[list[Path]] = []
    last = None
    for path, time_ in zip(plan.paths, plan.path_times, strict=True):
        chunk = _chunk(writer, time_) if time_ else None
        if not jobs or chunk != last or (len(jobs[-1]) >= writer.schema.frames_per_chunk):
            jobs.append([])
        jobs[-1].append(path)
        last = chunk
    return jobs


def _chunk(writer: Writer, time_: datetime) -> int:
    return writer.schema.axis.slot(time_)[0] // writer.schema.frames_per_chunk


def _note(verdicts: Sequence[Verdict], report: IngestReport) -> None:
    for verdict in verdicts:
        report.counts[verdict.fate.value] += 1
        if verdict.fate is Fate.CONFLICT:
            report.problems.append(Problem(verdict.name, verdict.reason))
        elif verdict.reason:
            report.notes.append(verdict.reason)
