"""The Icechunk repository under an archive: opened quietly, its manifests split along time, its one writer locked.

Icechunk shows a reader whole commits only, and a killed writer leaves the last one. Its local storage is not safe for
two writers, so a lock of our own guards it: an advisory lock on a file beside it, which the kernel lets go when its
holder dies.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import icechunk

from fastrain.core.errors import ArchiveBusy, ArchiveError

BRANCH = "main"
MANIFEST_SLOTS = 8192  # time chunks a manifest holds: what a commit rewrites, whatever the archive's age

icechunk.set_logs_filter("error")  # it warns at every opening of what our lock guards


def exists(path: Path) -> bool:
    """Tell whether an archive lies at a path; asking Icechunk would create the folder."""
    return (path / "refs").is_dir()


def create_repository(path: Path, fill: Callable[[Any], None]) -> None:
    """Create a repository whose first commit holds what `fill` puts into its store; all of it or nothing.

    It is made beside its place and moved there, so that no kill leaves half of one.

    Raises:
        ArchiveError: the path is taken by something else, or cannot be written.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ArchiveError(f"{path} exists and is no archive; name another --archive.")
    config = icechunk.RepositoryConfig.default()
    along_time = {icechunk.ManifestSplitDimCondition.DimensionName("time"): MANIFEST_SLOTS}
    splitting = icechunk.ManifestSplittingConfig.from_dict({icechunk.ManifestSplitCondition.AnyArray(): along_time})
    config.manifest = icechunk.ManifestConfig(splitting=splitting)
    unfinished = path.with_name(f".{path.name}.unfinished")
    with readable_errors(path):
        shutil.rmtree(unfinished, ignore_errors=True)
        repository = icechunk.Repository.create(_storage(unfinished), config)
        repository.save_config()
        session = repository.writable_session(BRANCH)
        fill(session.store)
        session.commit("create")
        if path.exists():
            path.rmdir()
        unfinished.rename(path)


def open_repository(path: Path) -> icechunk.Repository:
    """Open a repository.

    Raises:
        ArchiveError: there is none at the path.
    """
    if not exists(path):
        raise ArchiveError(f"{path}: no archive is here; make one with `fastrain ingest PATH... --archive {path}`.")
    with readable_errors(path):
        return icechunk.Repository.open(_storage(path))


@contextmanager
def write_lock(path: Path, wait_seconds: float = 10.0) -> Iterator[None]:
    """Hold the archive's one place for a writer.

    Raises:
        ArchiveBusy: another process holds it for longer than `wait_seconds`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.with_name(f".{path.name}.lock").open("a+")
    except OSError as error:
        raise ArchiveError(f"{path}: cannot be written: {error.strerror}.") from None
    with file:
        deadline = time.monotonic() + wait_seconds
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    file.seek(0)
                    holder = file.read().strip() or "unknown"
                    raise ArchiveBusy(f"{path}: process {holder} is writing to it; wait until it is done.") from None
                time.sleep(0.2)
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


@contextmanager
def readable_errors(path: Path) -> Iterator[None]:
    """Turn what the storage below says into one line of ours."""
    try:
        yield
    except icechunk.IcechunkError as error:
        lines = [line.strip(" x|`->\t") for line in str(error).splitlines()]
        said = [line for line in lines if line and not line.startswith(("context:", "0:", "at ")) and line[0].isalpha()]
        raise ArchiveError(f"{path}: {said[-1] if said else 'the storage failed'}.") from error
    except OSError as error:
        raise ArchiveError(f"{path}: {error.strerror or error}.") from error


def _storage(path: Path) -> Any:
    return icechunk.local_filesystem_storage(str(path))
