"""The Icechunk repository under an archive: opened quietly, its manifests split along time, its one writer locked.

Icechunk shows a reader whole commits only, and a killed writer leaves the last one. Its local storage is not safe for
two writers, so a lock of our own guards it: an advisory lock on a file beside it, which the kernel lets go when its
holder dies. An object store (`s3://`) refuses the second of two commits by itself.
"""

from __future__ import annotations

import atexit
import fcntl
import itertools
import os
import re
import shutil
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from traceback import walk_stack
from typing import Any

import icechunk

from fastrain.archive.chunks import BrokenChunk
from fastrain.core.errors import ArchiveBusy, ArchiveError, DamagedChunk

BRANCH = "main"
MANIFEST_CHUNKS = 720  # time chunks a manifest holds, a month of hours: what a commit rewrites, whatever the age
KEEP_STATES = timedelta(days=1)  # how long a state can still be read after it was overtaken
TIDY_EVERY = 128  # commits, on the average

icechunk.set_logs_filter("off")  # it warns at every opening of what our lock guards; its errors reach us as errors

_ADDRESS = re.compile(r"(s3):/{1,2}([^/]+)(?:/(.*))?")


@atexit.register
def _wait_for_answers() -> None:
    """Let Icechunk's threads out of Python before Python is taken apart.

    Each hands what it read to the event loop (`call_soon_threadsafe`), gives up the interpreter's lock while it wakes
    the loop, and wants it back. If the answer was the program's last, Python may be ending by then, ends the thread,
    and the thread, Rust's, aborts the process: one export in 50 on a busy machine, all its work done, with status 134.
    (PyO3/pyo3-async-runtimes #40; Python 3.14 lets such threads hang instead.)
    """
    until, quiet = time.monotonic() + 5, 0
    while quiet < 2 and time.monotonic() < until:
        time.sleep(0.002)  # one that only waits for the lock has nothing to be told by, and comes in now
        quiet = 0 if _answering() else quiet + 1


def _answering() -> bool:
    """Tell whether a thread that Python did not start is about to hand an answer to an event loop."""
    own = {thread.ident for thread in threading.enumerate() if not isinstance(thread, threading._DummyThread)}
    frames = [frame for ident, frame in sys._current_frames().items() if ident not in own]
    return any(f.f_code.co_name == "call_soon_threadsafe" for frame in frames for f, _ in walk_stack(frame))


def remote(path: Path) -> tuple[str, str] | None:
    """Return bucket and prefix of an address like `s3://bucket/prefix`; None for a folder.

    Raises:
        ArchiveError: the address names no bucket, or another kind of store.
    """
    text = str(path)  # a Path has made one slash of two
    if not re.match(r"[a-z][a-z0-9]+:/", text):
        return None
    match = _ADDRESS.fullmatch(text)
    if not match or not match.group(3):
        raise ArchiveError(f"{shown(path)}: expected a folder, or an address like s3://bucket/name.")
    return match.group(2), match.group(3).strip("/")


def shown(path: Path) -> str:
    """Return a path as people write it: an address with both its slashes."""
    return re.sub(r"^([a-z][a-z0-9]+):/(?!/)", r"\1://", str(path))


def exists(path: Path) -> bool:
    """Tell whether an archive lies at a path; asking Icechunk would create the folder."""
    if remote(path):
        with readable_errors(path):
            if not icechunk.Repository.exists(_storage(path)):
                return False
            repository = icechunk.Repository.open(_storage(path))
            # A creation that was killed leaves a repository with its own first state only.
            return len(list(itertools.islice(repository.ancestry(branch=BRANCH), 2))) > 1
    return (path / "refs").is_dir()


def bytes_stored(path: Path) -> int:
    """Return the bytes an archive takes: on disk all of it, in an object store its chunks."""
    if remote(path):
        return int(open_repository(path).chunk_storage_stats().native_bytes)
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())


def create_repository(path: Path, fill: Callable[[Any], None]) -> None:
    """Create a repository whose first commit holds what `fill` puts into its store; all of it or nothing.

    It is made beside its place and moved there, so that no kill leaves half of one.

    Raises:
        ArchiveError: the path is taken by something else, or cannot be written.
    """
    away = remote(path)
    if not away and path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ArchiveError(f"{path} exists and is no archive; name another --archive.")
    config = icechunk.RepositoryConfig.default()
    along_time = {icechunk.ManifestSplitDimCondition.DimensionName("time"): MANIFEST_CHUNKS}
    splitting = icechunk.ManifestSplittingConfig.from_dict({icechunk.ManifestSplitCondition.AnyArray(): along_time})
    config.manifest = icechunk.ManifestConfig(splitting=splitting)
    # A killed creation leaves an unfinished folder, or in an object store a repository without our root group.
    unfinished = path if away else path.with_name(f".{path.name}.unfinished")
    with readable_errors(path):
        if not away:
            shutil.rmtree(unfinished, ignore_errors=True)
        repository = icechunk.Repository.open_or_create(_storage(unfinished), config)
        repository.save_config()
        session = repository.writable_session(BRANCH)
        fill(session.store)
        commit_session(session, path, "create")
        if away:
            return
        if path.exists():
            path.rmdir()
        unfinished.rename(path)


def open_repository(path: Path) -> icechunk.Repository:
    """Open a repository.

    Raises:
        ArchiveError: there is none at the path.
    """
    if not exists(path):
        raise ArchiveError(
            f"{shown(path)}: no archive is here; make one with `fastrain ingest PATH... --archive {shown(path)}`."
        )
    with readable_errors(path):
        return icechunk.Repository.open(_storage(path))


def commit_session(session: Any, path: Path, message: str) -> str:
    """Commit a session and return the new state's identity.

    Raises:
        ArchiveBusy: another writer committed since it began.
    """
    try:
        return str(session.commit(message))
    except icechunk.ConflictError:
        raise ArchiveBusy(
            f"{shown(path)}: another process wrote to it meanwhile; give the same command again."
        ) from None


def tidy_repository(path: Path, repository: Any, state: str, keep: timedelta = KEEP_STATES) -> int:
    """Drop states that were overtaken longer than `keep` ago, and collect what only they held.

    Every commit leaves the state before it. A live radar's year would be 50,000 of them, each with its own copy of the
    hour that was being filled. Looking through the storage costs more than a commit, so it is done after one commit in
    TIDY_EVERY: which, the new state's identity tells, so that nothing need be remembered between runs.

    Args:
        path: of the archive.
        repository: opened.
        state: identity of the state just committed; empty if nothing was.
        keep: how long an overtaken state can still be read.

    Returns:
        Bytes freed.
    """
    if not state or zlib.crc32(state.encode()) % TIDY_EVERY:
        return 0
    limit = datetime.now(UTC) - keep
    with readable_errors(path):
        repository.expire_snapshots(limit)
        return int(repository.garbage_collect(limit).bytes_deleted)


@contextmanager
def write_lock(path: Path, wait_seconds: float = 10.0) -> Iterator[None]:
    """Hold the archive's one place for a writer.

    Raises:
        ArchiveBusy: another process holds it for longer than `wait_seconds`.
    """
    if remote(path):
        yield
        return
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
    mend = f"mend it: fastrain check {shown(path)} --repair FILES."
    try:
        yield
    except BrokenChunk as error:
        raise DamagedChunk(f"{shown(path)}: {error}; {mend}") from None
    except icechunk.IcechunkError as error:
        if re.search(r"object not found|not found in storage|No such file", str(error)):
            raise DamagedChunk(f"{shown(path)}: a piece of it is missing; {mend}") from error
        lines = [line.strip(" x|`->\t") for line in str(error).splitlines()]
        said = [line for line in lines if line and not line.startswith(("context:", "0:", "at ")) and line[0].isalpha()]
        message = re.search(r'message: "([^"]+)"', str(error))  # what an object store answered
        line = message.group(1) if message else said[-1] if said else "the storage failed"
        raise ArchiveError(f"{shown(path)}: {line.rstrip('.')}.") from error
    except OSError as error:
        raise ArchiveError(f"{path}: {error.strerror or error}.") from error


def _storage(path: Path) -> Any:
    away = remote(path)
    if away is None:
        return icechunk.local_filesystem_storage(str(path))
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return icechunk.s3_storage(
        bucket=away[0],
        prefix=away[1],
        region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1",
        endpoint_url=endpoint,
        allow_http=bool(endpoint and endpoint.startswith("http://")),
        # Servers other than Amazon's know a bucket by the path, not by the host's name.
        force_path_style=endpoint is not None,
        from_env=True,
    )
