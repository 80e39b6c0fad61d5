"""Readers: one file per format, bytes in, frames out.

Every reader is a `Reader` in the table READERS, visible at a glance; `recognise` finds the one for a file by what the
file holds, not by its name.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fastrain.core.errors import DamagedFile, SourceError, UnknownFormat
from fastrain.core.frame import Frame
from fastrain.sources import eccc, fmi, knmi, rpbin
from fastrain.sources.reader import Background, Reader, ReadOptions

READERS: dict[str, Reader] = {
    "eccc": eccc.READER,
    "fmi": fmi.READER,
    "knmi": knmi.READER,
    "rpbin": rpbin.READER,
}

__all__ = ["READERS", "Background", "ReadOptions", "Reader", "read_frames", "recognise"]

_HEAD = 4096


def recognise(path: Path) -> str:
    """Return the name of the reader for a file.

    Raises:
        DamagedFile: the file is empty.
        UnknownFormat: no reader knows it.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise SourceError(f"{path.name}: {error.strerror or error}.") from None
    if not head:
        raise DamagedFile(f"{path.name}: the file is empty.")
    for name, reader in READERS.items():
        if reader.recognises(head):
            return name
    raise UnknownFormat(f"{path.name}: no reader knows this file; known formats: {', '.join(sorted(READERS))}.")


def read_frames(path: Path, format: str, options: ReadOptions | None = None) -> Iterator[Frame]:
    """Yield the frames of one file of radar data.

    Raises:
        UnknownFormat: there is no such reader.
        SourceError: the file cannot be read; the message says what is wrong with it.
    """
    reader = reader_of(format)
    try:
        if path.stat().st_size == 0:
            raise DamagedFile(f"{path.name}: the file is empty.")
        yield from reader.read(path, options or ReadOptions())
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError) as error:
        # What a library says of a file that claims the impossible: truncated, of no projection, of another layout.
        raise DamagedFile(f"{path.name}: cannot be read: {_first_line(error)}.") from error


def reader_of(format: str) -> Reader:
    """Return the reader of a format.

    Raises:
        UnknownFormat: there is no such reader.
    """
    try:
        return READERS[format]
    except KeyError:
        raise UnknownFormat(f"No reader {format!r}; known: {', '.join(sorted(READERS))}.") from None


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
