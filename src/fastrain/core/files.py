"""Files written whole or not at all, and folders that one process has to itself."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO

from fastrain.core.errors import RunError, UsageError


def is_occupied(folder: Path) -> bool:
    """Tell whether a process has a folder to itself at this moment."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def require_folder(path: Path, option: str) -> None:
    """See that a path can be a folder's.

    Raises:
        UsageError: it is a file.
    """
    if path.exists() and not path.is_dir():
        raise UsageError(f"{option} {path}: is a file; name a folder.")


def require_writable(path: Path, option: str) -> None:
    """See that a file can be written at a path, before the work that ends in it.

    Raises:
        UsageError: it is a folder, there is no folder for it, or it may not be written.
    """
    folder = path.absolute().parent
    try:
        kind = "a folder" if path.is_dir() else "no regular file" if path.exists() and not path.is_file() else None
        there, may = folder.is_dir(), os.access(folder, os.W_OK | os.X_OK)
    except PermissionError:  # not even looked at
        kind, there, may = None, True, False
    if kind:
        raise UsageError(f"{option} {path}: is {kind}; name a file.")
    if not there:
        raise UsageError(f"{option} {path}: there is no folder {folder}.")
    if not may:
        raise UsageError(f"{option} {path}: {folder} may not be written into; name another.")


def require_own(folder: Path, finished: str, own: Collection[str]) -> None:
    """See that a folder can be a run's: it is not there, is empty, or holds what an unfinished run holds.

    Args:
        folder: that will be written into.
        finished: name of what a finished run holds.
        own: names of what an unfinished one holds.

    Raises:
        UsageError: it is a file.
        RunError: it holds a finished run or something else.
    """
    if (folder / finished).exists():
        raise RunError(f"{folder}: holds a finished run; name another --run, or remove it.")
    require_folder(folder, "--run")
    held = {one.name for one in folder.iterdir() if not one.name.startswith(".")} if folder.exists() else set()
    if held and held.isdisjoint(own):
        raise RunError(f"{folder}: holds {min(held)}, and is no run; name another --run.")


@contextlib.contextmanager
def occupied(folder: Path) -> Iterator[None]:
    """Make a folder and have it to oneself for as long as this is open; one that is then empty is taken away again.

    The lock is the folder's own, and the system lets go of it whatever ends this process.

    Raises:
        RunError: another process has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise RunError(f"{folder}: another training is at work here; wait for it, or name another --run.") from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()
        os.close(handle)


@contextlib.contextmanager
def unfinished(path: Path) -> Iterator[BinaryIO]:
    """Open a file beside a path, to be put in its place once this is left: all of it is on the disk then.

    Raises:
        OSError: it cannot be written; told of the path, and nothing is left beside it.
    """
    beside = path.with_name(f".{path.name}.unfinished")
    try:
        with beside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink()  # what a full disk cut off must not keep it full
        error.filename = str(path)  # a write that fails does not tell of what
        raise


def write_whole(path: Path, text: str) -> None:
    """Write a text file whole or not at all; what a file's name holds that is no valid text becomes question marks."""
    with unfinished(path) as file:
        file.write(text.encode("utf-8", "replace"))
    Path(file.name).replace(path)
