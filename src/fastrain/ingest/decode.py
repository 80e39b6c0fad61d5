"""Decoding many files, in order, on several processes or a Dask cluster, with a bounded number of frames in memory."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from fastrain.core.errors import FastrainError, SourceError
from fastrain.core.frame import Frame
from fastrain.sources import ReadOptions, read_frames, reader_of

IN_FLIGHT = 4  # batches a worker may be ahead of the writer
BATCH = 8  # files handed to a worker at once; one by one, handing over costs as much as decoding
BATCH_BYTES = 2**20  # of files; a continent's, a MiB or so each, are handed over one by one

Result = tuple[Path, list[Frame], SourceError | None]


def decode(
    paths: Sequence[Path], format: str, options: ReadOptions, workers: int, scheduler: str | None = None
) -> Iterator[Result]:
    """Yield each file with its frames and with what is wrong with it, in the order given.

    A file of many frames comes in many parts, each with the same path.

    Args:
        paths: of the files.
        format: name of their reader.
        options: for the reader.
        workers: processes; 1 decodes in this one.
        scheduler: address of a Dask scheduler, whose workers decode instead.

    Raises:
        FastrainError: a worker process was killed, or the cluster cannot be reached.
    """
    if reader_of(format).many or (workers <= 1 and scheduler is None):
        for path in paths:
            yield from _streamed(path, format, options)
        return
    batches = list(_batches(paths))
    with _cluster(scheduler) if scheduler else _pool(workers, format, options) as (submit, ahead):
        waiting: deque[tuple[list[Path], Callable[[], list[Result]]]] = deque()
        coming = iter(batches)
        for batch in itertools.islice(coming, ahead):
            waiting.append((batch, submit(batch, format, options)))
        while waiting:
            batch, result = waiting.popleft()
            results = result()
            for following in itertools.islice(coming, 1):
                waiting.append((following, submit(following, format, options)))
            yield from results


@contextmanager
def _pool(workers: int, format: str, options: ReadOptions) -> Iterator[tuple[Callable[..., Any], int]]:
    # Spawned, not forked: a fork of a process that holds threads (torch, zarr) may hang. What the reader is told, a
    # background of some megabytes, goes to each process once, not with every file.
    with ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_remember, initargs=(options,)
    ) as pool:

        def submit(batch: list[Path], format: str, _: ReadOptions) -> Callable[[], list[Result]]:
            try:
                future = pool.submit(_read_batch, batch, format)
            except BrokenProcessPool:
                return lambda: _killed(batch)

            def result() -> list[Result]:
                try:
                    return future.result()
                except BrokenProcessPool:
                    return _killed(batch)

            return result

        yield submit, workers * IN_FLIGHT


@contextmanager
def _cluster(scheduler: str) -> Iterator[tuple[Callable[..., Any], int]]:
    try:
        from distributed import Client
    except ImportError:
        raise FastrainError("--scheduler needs Dask: pip install 'fastrain[dask]'.") from None
    try:
        client = Client(scheduler, timeout="10s", set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FastrainError(f"--scheduler {scheduler}: no Dask scheduler answers ({said}).") from None
    with client:
        threads = sum(client.nthreads().values()) or 1
        shared: list[Any] = []

        def submit(batch: list[Path], format: str, options: ReadOptions) -> Callable[[], list[Result]]:
            if not shared:
                shared.append(client.scatter(options, broadcast=True, hash=False))
            # Not pure: the same file may have changed since it was last read on this cluster.
            future = client.submit(_read_all, batch, format, shared[0], pure=False, retries=3)

            def result() -> list[Result]:
                try:
                    return list(future.result())
                except SourceError:
                    raise
                except Exception as error:  # noqa: BLE001 - whatever the cluster says; nothing is lost
                    said = str(error).splitlines()[0] if str(error) else type(error).__name__
                    raise FastrainError(
                        f"The cluster failed near {batch[0].name} ({said[:200]}); what was committed stands: run the "
                        "same command again. Its workers must see the files at the same paths."
                    ) from None

            return result

        yield submit, threads * IN_FLIGHT


def _batches(paths: Sequence[Path]) -> Iterator[list[Path]]:
    batch: list[Path] = []
    held = 0
    for path in paths:
        size = path.stat().st_size if path.is_file() else 0
        if batch and (len(batch) >= BATCH or held + size > BATCH_BYTES):
            yield batch
            batch, held = [], 0
        batch.append(path)
        held += size
    if batch:
        yield batch


_options = ReadOptions()


def _remember(options: ReadOptions) -> None:
    global _options
    _options = options


def _read_batch(paths: list[Path], format: str) -> list[Result]:
    return _read_all(paths, format, _options)


def _read_all(paths: list[Path], format: str, options: ReadOptions) -> list[Result]:
    results: list[Result] = []
    for path in paths:
        try:
            frames = list(read_frames(path, format, options))
            for frame in frames:
                _ = frame.digest  # made here, where there are many of us
            results.append((path, frames, None))
        except SourceError as error:
            results.append((path, [], error))
    return results


def _streamed(path: Path, format: str, options: ReadOptions) -> Iterator[Result]:
    try:
        for frame in read_frames(path, format, options):
            yield path, [frame], None
    except SourceError as error:
        yield path, [], error


def _killed(batch: list[Path]) -> list[Result]:
    raise FastrainError(
        f"A decoding process was killed near {batch[0].name}, perhaps for lack of memory; what was committed "
        "stands: run the same command again, with fewer --workers."
    )
