"""Decoding many files, in order, on several processes, with a bounded number of frames in memory."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

from fastrain.core.errors import FastrainError, SourceError
from fastrain.core.frame import Frame
from fastrain.sources import ReadOptions, read_frames

IN_FLIGHT = 8  # files a worker may be ahead of the writer


def decode(
    paths: Sequence[Path], format: str, options: ReadOptions, workers: int
) -> Iterator[tuple[Path, list[Frame] | SourceError]]:
    """Yield each file with its frames, or with what is wrong with it, in the order given.

    Args:
        paths: of the files.
        format: name of their reader.
        options: for the reader.
        workers: processes; 1 decodes in this one.

    Raises:
        FastrainError: a worker process was killed.
    """
    if workers <= 1:
        yield from ((path, _read(path, format, options)) for path in paths)
        return
    # Spawned, not forked: a fork of a process that holds threads (torch, zarr) may hang.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        waiting: deque[tuple[Path, Future[list[Frame] | SourceError]]] = deque()
        ahead: Iterable[Path] = iter(paths)
        for path in itertools.islice(ahead, workers * IN_FLIGHT):
            waiting.append((path, pool.submit(_read, path, format, options)))
        while waiting:
            path, future = waiting.popleft()
            try:
                result = future.result()
                for following in itertools.islice(ahead, 1):
                    waiting.append((following, pool.submit(_read, following, format, options)))
            except BrokenProcessPool:
                raise FastrainError(
                    f"A decoding process was killed near {path.name}, perhaps for lack of memory; what was committed "
                    "stands: run the same command again, with fewer --workers."
                ) from None
            yield path, result


def _read(path: Path, format: str, options: ReadOptions) -> list[Frame] | SourceError:
    try:
        return list(read_frames(path, format, options))
    except SourceError as error:
        return error
