"""Readers: one file per format, bytes in, frames out.

Every reader is a `Reader` in the table READERS, visible at a glance; `recognise` finds the one for a file by what the
file holds, not by its name. `pysteps:NAME` stands for any importer that an installed pysteps offers.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fastrain.core.errors import DamagedFile, SourceError, UnknownFormat, first_line
from fastrain.core.frame import Frame
from fastrain.sources import bom, cf, fmi, knmi, mrms, odim, rpbin, synthetic
from fastrain.sources.pictures import own_picture_reader, picture_reader
from fastrain.sources.pysteps_importers import PREFIX, importer_reader
from fastrain.sources.reader import Background, Reader, ReadOptions

READERS: dict[str, Reader] = {
    "mch": picture_reader("mch"),
    "eccc": picture_reader("eccc"),
    "picture": own_picture_reader(),
    "fmi": fmi.READER,
    "knmi": knmi.READER,
    "odim": odim.READER,
    "bom": bom.READER,
    "cf": cf.READER,
    "mrms": mrms.READER,
    "rpbin": rpbin.READER,
    "synthetic": synthetic.READER,
}

__all__ = ["READERS", "Background", "ReadOptions", "Reader", "is_store", "read_frames", "reader_of", "recognise"]

_HEAD = 4096


def recognise(path: Path) -> str:
    """Return the name of the reader for a file, or for a folder that is a Zarr store.

    Raises:
        DamagedFile: the file is empty.
        UnknownFormat: no reader knows it.
    """
    head = b""
    if not is_store(path):
        try:
            with path.open("rb") as file:
                head = file.read(_HEAD)
        except OSError as error:
            raise SourceError(f"{path.name}: {error.strerror or error}.") from None
        if not head:
            raise DamagedFile(f"{path.name}: the file is empty.")
    for name, reader in READERS.items():
        if reader.recognises(path, head):
            return name
    raise UnknownFormat(
        f"{path.name}: no reader knows this file; known formats: {', '.join(sorted(READERS))}, {PREFIX}NAME."
    )


def is_store(path: Path) -> bool:
    """Tell whether a folder is itself a file of radar data: a Zarr store."""
    return cf.is_zarr(path)


# h5netcdf says by an assertion that a variable's chunks make no sense (found by fuzzing).
_OF_LIBRARIES = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    AssertionError,
)


def read_frames(path: Path, format: str, options: ReadOptions | None = None) -> Iterator[Frame]:
    """Yield the frames of one file of radar data.

    Raises:
        UnknownFormat: there is no such reader.
        SourceError: the file cannot be read; the message says what is wrong with it.
    """
    reader = reader_of(format)
    try:
        if path.is_file() and path.stat().st_size == 0:
            raise DamagedFile(f"{path.name}: the file is empty.")
        yield from reader.read(path, options or ReadOptions())
    except MemoryError:
        raise DamagedFile(f"{path.name}: claims more than this machine's memory holds.") from None
    except _OF_LIBRARIES as error:
        # What a library says of a file that claims the impossible: truncated, of no projection, of another layout.
        raise DamagedFile(f"{path.name}: cannot be read: {first_line(error)}.") from error


def reader_of(format: str) -> Reader:
    """Return the reader of a format.

    Raises:
        UnknownFormat: there is no such reader.
        SettingError: pysteps is not installed, or offers no such importer.
    """
    if format.startswith(PREFIX):
        return importer_reader(format.removeprefix(PREFIX))
    try:
        return READERS[format]
    except KeyError:
        raise UnknownFormat(f"No reader {format!r}; known: {', '.join(sorted(READERS))}, {PREFIX}NAME.") from None
