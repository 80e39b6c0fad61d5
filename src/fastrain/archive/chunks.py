"""Chunks as they lie in the storage, compressed here.

zarr's way to an array's chunk costs four times what the compression does; a bulk ingest writes hundreds of thousands.
What is stored is the same to the byte (`tests/archive/test_chunks.py`): zarr reads it, as we read what zarr wrote.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numcodecs.zstd import Zstd
from numpy import ndarray
from numpy.typing import DTypeLike
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from fastrain.core.errors import first_line
from fastrain.core.levels import NOT_OBSERVED

LEVEL = 1  # of zstd; chosen by benchmarks/codec.py
FILL = {"level": NOT_OBSERVED, "max": NOT_OBSERVED, "mean": 0, "observed": 0}  # of a group's arrays of frames
MOST_IN_CHUNK = 2048 * 2048  # pixels of a frame that are one chunk
PART = 1024  # edge of a chunk, in pixels, where a frame is more


class BrokenChunk(Exception):
    """A chunk's checksum or size is wrong; `repository.readable_errors` makes a `DamagedChunk` of it."""


def fill_of(name: str) -> int:
    """Return the fill value of a group's array of frames, like `4/max`."""
    return FILL[name.split("/")[1]]


def plane_of(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the chunk of a frame of some rows and columns: all of it, or a part of a continent's."""
    rows, columns = shape
    return (rows, columns) if rows * columns <= MOST_IN_CHUNK else (min(rows, PART), min(columns, PART))


def encode_chunk(values: UInt8[ndarray, "t y x"], name: str, number: int) -> dict[str, bytes]:
    """Return one chunk of time of an array as the storage keeps it, by key; more than one where the plane is cut.

    Args:
        values: as many frames as a chunk holds.
        name: of the array.
        number: of the chunk along time.
    """
    rows, columns = plane = plane_of(values.shape[1:])
    encoded = {}
    for i in range(0, values.shape[1], rows):
        for j in range(0, values.shape[2], columns):
            part = values[:, i : i + rows, j : j + columns]
            if part.shape[1:] != plane:
                whole = np.full((len(values), *plane), fill_of(name), np.uint8)
                whole[:, : part.shape[1], : part.shape[2]] = part
                part = whole
            encoded[f"{name}/c/{number}/{i // rows}/{j // columns}"] = encode(part)
    return encoded


def decode_chunk(
    stored: Mapping[str, bytes], name: str, number: int, shape: tuple[int, ...]
) -> UInt8[ndarray, "t y x"]:
    """Return one chunk of time of an array from what `load_chunks` fetched; the fill value where nothing is stored.

    Raises:
        BrokenChunk: a chunk is damaged.
    """
    values = np.full(shape, fill_of(name), np.uint8)
    plane = plane_of(shape[1:])
    for key in chunk_keys(name, number, shape[1:]):
        if key in stored:
            i, j = (int(part) for part in key.split("/")[-2:])
            part = decode(stored[key], name, np.uint8, (shape[0], *plane))
            here = values[:, i * plane[0] : (i + 1) * plane[0], j * plane[1] : (j + 1) * plane[1]]
            here[:] = part[:, : here.shape[1], : here.shape[2]]
    return values


def chunk_keys(name: str, number: int, shape: tuple[int, ...]) -> list[str]:
    """Return the keys of one chunk of time of an array whose frames have some rows and columns."""
    rows, columns = (-(-size // step) for size, step in zip(shape, plane_of(shape), strict=True))
    return [f"{name}/c/{number}/{i}/{j}" for i in range(rows) for j in range(columns)]


def encode(values: ndarray) -> bytes:
    """Return an array's bytes compressed, with a checksum of its content."""
    return bytes(Zstd(level=LEVEL, checksum=True).encode(np.ascontiguousarray(values)))


def decode(stored: bytes, name: str, dtype: DTypeLike, shape: tuple[int, ...]) -> ndarray:
    """Return what `encode` compressed.

    Raises:
        BrokenChunk: it is damaged, or of another size; the message names the array.
    """
    try:
        return np.frombuffer(Zstd(level=LEVEL, checksum=True).decode(stored), dtype).reshape(shape)
    except (RuntimeError, ValueError) as error:
        raise BrokenChunk(f"{name} is damaged ({first_line(error)})") from None


def load_chunks(store: Any, keys: Sequence[str]) -> dict[str, bytes]:
    """Return what is stored of some keys, all fetched at once; keys that hold nothing are left out."""
    found = sync(_get_all(store, keys))
    return {key: value for key, value in zip(keys, found, strict=True) if value is not None}


async def _get_all(store: Any, keys: Sequence[str]) -> list[bytes | None]:
    prototype = default_buffer_prototype()
    found = await asyncio.gather(*(store.get(key, prototype) for key in keys))
    return [None if value is None else value.to_bytes() for value in found]


def store_chunks(store: Any, encoded: Mapping[str, bytes]) -> None:
    """Put encoded chunks into a session's store."""
    sync(_set_all(store, encoded))


async def _set_all(store: Any, encoded: Mapping[str, bytes]) -> None:
    buffer = default_buffer_prototype().buffer
    await asyncio.gather(*(store.set(key, buffer.from_bytes(value)) for key, value in encoded.items()))
