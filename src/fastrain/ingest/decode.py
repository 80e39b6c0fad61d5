"""Decoding and packing many files, in order, on several processes or a Dask cluster, with bounded memory."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from fastrain.archive.pack import Packed, pack
from fastrain.archive.schema import Schema
from fastrain.core.errors import FastrainError, GridMismatch, SourceError, first_line
from fastrain.core.frame import Frame
from fastrain.core.memory import keep_freed_memory
from fastrain.sources import ReadOptions, read_frames

IN_FLIGHT = 3  # jobs a worker may be ahead of the writer

Result = tuple[Path, list[Frame], SourceError | None]
Submit = Callable[[list[Path]], Callable[[], "Done"]]


@dataclass(frozen=True)
class Task:
    """What a worker needs to know once: the reader's name, what it is told, and what the archive is of."""

    format: str
    options: ReadOptions
    schema: Schema


@dataclass(frozen=True)
class Done:
    """What became of a job's files.

    Attributes:
        paths: of the files.
        packed: their frames, ready to be stored; None where they must be read again and judged one by one.
        errors: what is wrong with files that could not be read.
    """

    paths: list[Path]
    packed: Packed | None
    errors: list[tuple[Path, SourceError]]


def decode(paths: Sequence[Path], format: str, options: ReadOptions) -> Iterator[Result]:
    """Yield each file's frames one by one, and what is wrong with it, in the order given, decoded in this process."""
    for path in paths:
        try:
            for frame in read_frames(path, format, options):
                yield path, [frame], None
        except SourceError as error:
            yield path, [], error


def pack_all(
    jobs: Sequence[list[Path]], task: Task, workers: int, scheduler: str | None, latest: datetime
) -> Iterator[Done]:
    """Yield what became of each job's files, in order.

    Args:
        jobs: files, each list of one chunk of time as far as their names tell.
        task: what they are and what for.
        workers: processes.
        scheduler: address of a Dask scheduler, whose workers do it instead.
        latest: frames of later than this are not packed.

    Raises:
        FastrainError: a worker process was killed, or the cluster cannot be reached or failed.
    """
    with _cluster(scheduler, task, latest) if scheduler else _processes(workers, task, latest) as (submit, ahead):
        waiting: deque[Callable[[], Done]] = deque()
        coming = iter(jobs)
        for job in itertools.islice(coming, ahead):
            waiting.append(submit(job))
        while waiting:
            done = waiting.popleft()()
            for job in itertools.islice(coming, 1):
                waiting.append(submit(job))
            yield done


@contextmanager
def _processes(workers: int, task: Task, latest: datetime) -> Iterator[tuple[Submit, int]]:
    # Spawned, not forked: a fork of a process that holds threads (torch, zarr) may hang. What the reader is told, a
    # background of some megabytes, goes to each process once, not with every file.
    context = get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_remember, initargs=(task, latest)) as pool:

        def submit(job: list[Path]) -> Callable[[], Done]:
            def killed() -> Done:
                raise FastrainError(
                    f"A decoding process was killed near {job[0].name}, perhaps for lack of memory; what was committed "
                    "stands: run the same command again, with fewer --workers."
                ) from None

            try:
                future = pool.submit(_pack_remembered, job)
            except BrokenProcessPool:
                return killed

            def result() -> Done:
                try:
                    return future.result()
                except BrokenProcessPool:
                    return killed()

            return result

        yield submit, workers * IN_FLIGHT


@contextmanager
def _cluster(scheduler: str, task: Task, latest: datetime) -> Iterator[tuple[Submit, int]]:
    try:
        from distributed import Client
    except ImportError:
        raise FastrainError("--scheduler needs Dask: pip install 'fastrain[dask]'.") from None
    make: Any = Client
    try:
        client = make(scheduler, timeout="10s", set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise FastrainError(f"--scheduler {scheduler}: no Dask scheduler answers ({first_line(error)}).") from None
    with client:
        threads = sum(client.nthreads().values()) or 1

        def submit(job: list[Path]) -> Callable[[], Done]:
            # Not pure: the same file may have changed since it was last read on this cluster.
            # The task goes with each job: what is scattered over the workers is lost with the one that held it.
            future = client.submit(_pack, job, task, latest, pure=False, retries=3)

            def result() -> Done:
                try:
                    done: Done = future.result()
                except Exception as error:  # noqa: BLE001 - whatever the cluster says; nothing stored is lost
                    raise FastrainError(
                        f"The cluster failed near {job[0].name} ({first_line(error)}); what was committed stands: run "
                        "the same command again. Its workers must see the files at the same paths."
                    ) from None
                return done

            return result

        yield submit, threads * IN_FLIGHT


_known: list[Any] = []


def _remember(task: Task, latest: datetime) -> None:
    keep_freed_memory()
    _known[:] = [task, latest]


def _pack_remembered(job: list[Path]) -> Done:
    return _pack(job, *_known)


def _pack(job: list[Path], task: Task, latest: datetime) -> Done:
    frames, errors = [], []
    for path in job:
        try:
            frames += list(read_frames(path, task.format, task.options))
        except SourceError as error:
            errors.append((path, error))
    packed = None
    if frames and all(frame.valid_time <= latest for frame in frames):
        try:
            packed = pack(frames, task.schema)
        except GridMismatch:
            packed = None  # read again, one by one, they are told apart
    if packed is None and frames:
        errors = []
    return Done(job, packed, errors)
