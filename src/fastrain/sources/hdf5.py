"""HDF5 files: which layout one has, and a data set as levels without ever holding it whole as numbers.

Three services' files open with the same eight bytes: KNMI's own layout, ODIM_H5, and NetCDF-4.
"""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from fastrain.core.errors import DamagedFile, first_line
from fastrain.sources.reader import MOST_PIXELS, levels_by_pieces

MAGIC = b"\x89HDF\r\n\x1a\n"
ROWS_AT_ONCE = 256
POINTER = struct.calcsize("P")
PIECE, LARGEST_HEAP = 2**20, 2**24  # bytes that are looked at together
LARGEST_CHUNK, LONGEST_LIST = 2**30, 2**24  # bytes of a data set, and values along one dimension; more are not held
VARIABLE = 9  # class of a type that is a text or a list of any length
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
        _require_end(path)
        _require_heaps(path)
        with h5py.File(path, "r") as file:
            _require_claims(file, path)
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


def levels_of(data: Any, convert: Callable[[ndarray], UInt8[ndarray, " values"]], name: str) -> UInt8[ndarray, "y x"]:
    """Return a data set of two dimensions as levels, some rows at a time.

    Args:
        data: the data set, (y, x) of any number type.
        convert: stored numbers to levels, some of them at a time.
        name: of the file, for messages.

    Raises:
        DamagedFile: it is not two-dimensional, no number, or claims more pixels than any radar has.
    """
    if data.ndim != 2 or data.dtype.kind not in "iuf" or not 0 < data.size <= MOST_PIXELS:
        raise DamagedFile(f"{name}: its picture is {data.dtype} {data.shape}, expected numbers of two dimensions.")
    chunks = getattr(data, "chunks", None)
    step = max(ROWS_AT_ONCE, chunks[0] if chunks else 0)
    level = np.empty(data.shape, dtype=np.uint8)
    for row in range(0, data.shape[0], step):
        level[row : row + step] = levels_by_pieces(np.asarray(data[row : row + step]), convert)
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


def _require_end(path: Path) -> None:
    """Raise where a file's first block puts its end beyond its last byte: HDF5 reads by sizes up to that end.

    A file whose addresses have other than the usual eight bytes, or that begins with something else, is left to HDF5.
    (HDF5 file format specification 3.0, II.A to C.)
    """
    with path.open("rb") as file:
        head = file.read(64).ljust(64, b"\0")
    size_at, base_at, end_at = {0: (13, 24, 40), 1: (13, 28, 44)}.get(head[8], (9, 12, 28))
    if not head.startswith(MAGIC) or head[size_at] != 8:
        return
    base, end = (int.from_bytes(head[at : at + 8], "little") for at in (base_at, end_at))
    size = path.stat().st_size
    if base > size or not base <= end <= base + size:
        raise ValueError(f"it says that it ends at byte {end}; the file has {size}")


def _require_heaps(path: Path) -> None:
    """Raise where HDF5 would look for ever at a heap of texts and references, or take the gigabytes that it claims.

    The one is an object of no size; the other a heap that reaches beyond the file's end: HDF5 takes the memory first. A
    heap is `GCOL`, a version, its size, and objects: number, references, size, and bytes filled up to eights; number
    0 is what is free of it. (HDF5 file format specification 3.0, III.E.)
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start, piece = 0, file.read(PIECE)
        while len(piece) >= len(_HEAP):
            found = piece.find(_HEAP)
            if found < 0:
                start += max(1, len(piece) - len(_HEAP) + 1)
            else:
                file.seek(start + found)
                heap = file.read(16)
                if start + found + int.from_bytes(heap[8:], "little") > size:
                    raise ValueError(f"the heap at byte {start + found} claims more than the file has")
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


def _require_claims(file: Any, path: Path) -> None:
    """Raise where reading an attribute may crash HDF5, or where it or a data set claims more memory than is true.

    A crash: texts of another size than a pointer's, and lists of any length, of which only NetCDF's list of dimensions
    is known here; both are what a damaged text becomes. Memory: HDF5 takes what a text or list is said to be long,
    before it looks for it in the heap.
    """
    import h5py

    size = path.stat().st_size
    kept: dict[bytes, int] = {}  # names of attributes whose values stand in a heap: bytes that tell where

    def look(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.shape is not None:
            together = prod(item.chunks or (1,)) * item.id.get_type().get_size()
            # Coordinates are read as a whole by whoever opens the file.
            long = item.ndim == 1 and item.size > LONGEST_LIST and "CLASS" in item.attrs
            if together > LARGEST_CHUNK or long:
                raise ValueError(f"{name} claims {item.shape} values in pieces of {item.chunks}")
        for i in range(h5py.h5a.get_num_attrs(item.id)):
            attribute = h5py.h5a.open(item.id, index=i)
            of, kind = attribute.name, attribute.get_type()
            values = attribute.get_space().get_simple_extent_npoints()
            stored = attribute.get_storage_size() if values else 0  # HDF5 takes none for a failure
            listed = kind.get_class() == h5py.h5t.VLEN
            text = kind.get_class() == h5py.h5t.STRING and kind.is_variable_str()
            if (listed and of != b"DIMENSION_LIST") or (text and kind.get_size() != POINTER):
                raise ValueError(f"{_told(of)} is no text")
            if stored > size:
                raise ValueError(f"{_told(of)} claims more than the file has")
            if values and (listed or text):
                kept[of] = stored // values

    look("/", file)
    file.visititems(look)
    if kept:
        with path.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as whole:
            for name, bytes_claimed in claimed(whole, kept):
                if bytes_claimed > size:
                    raise ValueError(f"{_told(name)} claims more than the file has")


def _told(name: bytes) -> str:
    return f"its attribute {name.decode('ascii', 'replace')}"


def claimed(whole: bytes | mmap.mmap, kept: Mapping[bytes, int]) -> Iterator[tuple[bytes, int]]:
    """Yield how many bytes the texts or lists of attributes are said to have, by the file's own bytes, and their names.

    HDF5 tells of it only when it has taken the memory. A message has its version, flags and the sizes of name, type and
    space (two bytes each), in version 3 the name's encoding; then these three, in version 1 filled up to eights; then
    the values: of each its length in four bytes, and where it stands. A type has its class in its first byte, its size
    in its fifth and on, and that of what it is a list of in its thirteenth and on. (HDF5 file format specification 3.0,
    IV.A.2.b, d and m.)

    Args:
        whole: the file.
        kept: names of attributes whose values stand in a heap, and how many bytes tell of one value where.
    """
    for found in re.finditer(b"(?=(" + b"|".join(re.escape(name) for name in kept) + b")\0)", whole):
        name, at = found.group(1), found.start()
        for versions, head in (((1, 2), 8), ((3,), 9)):
            if at < head:
                continue
            version, shared, *sizes = struct.unpack("<BBHHH", whole[at - head : at - head + 8])
            if version not in versions or (version > 1 and shared) or sizes[0] <= len(name):
                continue
            if version == 1:
                sizes = [(one + 7) // 8 * 8 for one in sizes]
            kind, space, data = at + sizes[0], at + sizes[0] + sizes[1], at + sum(sizes)
            if data >= len(whole) or whole[space] not in (1, 2) or whole[kind] & 15 != VARIABLE:
                continue
            value, element = (int.from_bytes(whole[kind + i : kind + i + 4], "little") for i in (4, 12))
            if value != kept[name]:
                continue
            dimensions, sides = whole[space + 1], space + (8 if whole[space] == 1 else 4)
            count = prod(int.from_bytes(whole[sides + 8 * i : sides + 8 * i + 8], "little") for i in range(dimensions))
            for start in range(data, min(data + count * value, len(whole) - 3), value):
                yield name, element * int.from_bytes(whole[start : start + 4], "little")


def _has_scales(file: Any) -> bool:
    return any(getattr(item, "attrs", {}).get("CLASS") == b"DIMENSION_SCALE" for item in file.values())
