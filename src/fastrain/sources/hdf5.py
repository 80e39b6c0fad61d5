"""HDF5 files: which layout one has, and a data set as levels without ever holding it whole as numbers.

Three services' files open with the same eight bytes: KNMI's own layout, ODIM_H5, and NetCDF-4.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from fastrain.core.errors import DamagedFile, first_line
from fastrain.sources.reader import MOST_PIXELS

MAGIC = b"\x89HDF\r\n\x1a\n"
ROWS_AT_ONCE = 256
POINTER = struct.calcsize("P")
PIECE, LARGEST_HEAP = 2**20, 2**24  # bytes that are looked at together
_HEAP = b"GCOL\x01\x00\x00\x00"  # and version, of a heap of objects


def layout(path: Path, head: bytes) -> str | None:
    """Return `knmi`, `odim`, `bom` or `netcdf`, or None where a file is no HDF5 or of another layout.

    Raises:
        DamagedFile: it opens as HDF5 but cannot be read.
    """
    if not head.startswith(MAGIC):
        return None
    stat = path.stat()
    return _layout(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=16)
def _layout(path: Path, _changed: int, _size: int) -> str | None:
    import h5py

    try:
        _require_heaps(path)
        with h5py.File(path, "r") as file:
            _require_texts(file)
            conventions = text(file.attrs.get("Conventions", ""))
            if conventions.upper().startswith("ODIM"):
                return "odim"
            if "image1" in file and "overview" in file:
                return "knmi"
            if "rainfields" in text(file.attrs.get("source", "")):
                return "bom"
            if conventions.upper().startswith("CF") or "_NCProperties" in file.attrs or _has_scales(file):
                return "netcdf"
            return "odim" if {"what", "where", "dataset1"} <= set(file) else None
    except (OSError, RuntimeError, ValueError, TypeError, KeyError, AttributeError, AssertionError) as error:
        raise DamagedFile(f"{path.name}: truncated or damaged HDF5 ({first_line(error)}).") from None


@contextmanager
def opened(path: Path, institute: str) -> Iterator[Any]:
    """Open a file whose layout is known, and say in one line what is wrong with it.

    Raises:
        DamagedFile: it is truncated, or lacks what the institute's layout has.
    """
    import h5py

    try:
        layout(path, MAGIC)  # of a file that is not recognised but told to be one, too
        with h5py.File(path, "r") as file:
            yield file
    except KeyError as error:
        raise DamagedFile(f"{path.name}: HDF5, but not in {institute}'s layout ({first_line(error)}).") from None
    except (OSError, RuntimeError, ValueError, TypeError, AttributeError, AssertionError) as error:
        raise DamagedFile(f"{path.name}: truncated or damaged HDF5 ({first_line(error)}).") from None


def levels_of(data: Any, convert: Callable[[ndarray], UInt8[ndarray, "rows x"]], name: str) -> UInt8[ndarray, "y x"]:
    """Return a data set of two dimensions as levels, some rows at a time.

    Args:
        data: the data set, (y, x) of any number type.
        convert: stored numbers to levels.
        name: of the file, for messages.

    Raises:
        DamagedFile: it is not two-dimensional, no number, or claims more pixels than any radar has.
    """
    if data.ndim != 2 or data.dtype.kind not in "iuf" or not 0 < data.size <= MOST_PIXELS:
        raise DamagedFile(f"{name}: its picture is {data.dtype} {data.shape}, expected numbers of two dimensions.")
    chunks = getattr(data, "chunks", None)
    if chunks and np.prod([int(c) for c in chunks]) > 2 * MOST_PIXELS:
        raise DamagedFile(f"{name}: its picture is stored in pieces of {chunks}; too large to be true.")
    step = max(ROWS_AT_ONCE, chunks[0] if chunks else 0)
    level = np.empty(data.shape, dtype=np.uint8)
    for row in range(0, data.shape[0], step):
        level[row : row + step] = convert(np.asarray(data[row : row + step]))
    return level


def text(value: Any) -> str:
    """Return an attribute as text, however it was stored."""
    value = first(value)
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def number(value: Any) -> float:
    """Return an attribute as a number, however it was stored."""
    return float(first(value))


def first(value: Any) -> Any:
    """Return the one value of an array of one, or the value itself."""
    return value.flat[0] if isinstance(value, np.ndarray) else value


def _require_heaps(path: Path) -> None:
    """Raise where a heap of a file's texts and references has an object of no size: HDF5 would look at it for ever.

    A heap is `GCOL`, a version, its size, and objects: number, references, size, and bytes filled up to eights; number
    0 is what is free of it. (HDF5 file format specification 3.0, III.E.)
    """
    with path.open("rb") as file:
        start, piece = 0, file.read(PIECE)
        while len(piece) >= len(_HEAP):
            found = piece.find(_HEAP)
            if found < 0:
                start += max(1, len(piece) - len(_HEAP) + 1)
            else:
                file.seek(start + found)
                heap = file.read(16)
                heap += file.read(max(0, min(int.from_bytes(heap[8:], "little"), LARGEST_HEAP) - 16))
                start += found + _heap_end(heap, start + found)
            file.seek(start)
            piece = file.read(PIECE)


def _heap_end(heap: bytes, start: int) -> int:
    """Return how far the objects of a heap reach; raise ValueError where one of them has no size."""
    at = 16
    while at + 16 <= len(heap):
        number, size = (int.from_bytes(heap[at + a : at + b], "little") for a, b in ((0, 2), (8, 16)))
        # As HDF5 counts: in 64 bits, beyond which it begins anew.
        step = (size if number == 0 else 16 + (size + 7) // 8 * 8) % 2**64
        if step == 0:
            raise ValueError(f"an object without end in the heap at byte {start}")
        at += step
    return min(at, len(heap))


def _require_texts(file: Any) -> None:
    """Raise where reading an attribute may crash HDF5: texts of another size than a pointer's, and lists of any length.

    Of the latter only NetCDF's list of dimensions is known here; both are what a damaged text becomes.
    """
    import h5py

    def look(_: str, item: Any) -> None:
        for i in range(h5py.h5a.get_num_attrs(item.id)):
            attribute = h5py.h5a.open(item.id, index=i)
            kind = attribute.get_type()
            listed = kind.get_class() == h5py.h5t.VLEN and attribute.name != b"DIMENSION_LIST"
            text = kind.get_class() == h5py.h5t.STRING and kind.is_variable_str()
            if listed or (text and kind.get_size() != POINTER):
                raise ValueError(f"its attribute {attribute.name.decode('ascii', 'replace')} is no text")

    look("/", file)
    file.visititems(look)


def _has_scales(file: Any) -> bool:
    return any(getattr(item, "attrs", {}).get("CLASS") == b"DIMENSION_SCALE" for item in file.values())
