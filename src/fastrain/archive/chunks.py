"""Chunks as they lie in the storage, compressed here.

zarr's way to an array's chunk costs four times what the compression does; a bulk ingest writes hundreds of thousands.
What is stored is the same to the byte (`tests/archive/test_chunks.py`), and reading goes through zarr.
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

LEVEL = 1  # of zstd; chosen by benchmarks/codec.py


class BrokenChunk(Exception):
    """A chunk's checksum or size is wrong; `repository.readable_errors` makes a `DamagedChunk` of it."""


def encode_chunk(
    values: UInt8[ndarray, "t y x"], name: str, number: int, plane: tuple[int, int], fill: int
) -> dict[str, bytes]:
    """Return one chunk of time of an array as the storage keeps it, by key; more than one where the plane is cut.

    Args:
        values: as many frames as a chunk holds.
        name: of the array.
        number: of the chunk along time.
        plane: rows and columns of a chunk.
        fill: the array's fill value, for what reaches beyond the picture.
    """
    rows, columns = plane
    encoded = {}
    for i in range(0, values.shape[1], rows):
        for j in range(0, values.shape[2], columns):
            part = values[:, i : i + rows, j : j + columns]
            if part.shape[1:] != plane:
                whole = np.full((len(values), rows, columns), fill, np.uint8)
                whole[:, : part.shape[1], : part.shape[2]] = part
                part = whole
            encoded[f"{name}/c/{number}/{i // rows}/{j // columns}"] = encode(part)
    return encoded


def decode_chunk(
    stored: Mapping[str, bytes], name: str, number: int, shape: tuple[int, int, int], plane: tuple[int, int], fill: int
) -> UInt8[ndarray, "t y x"]:
    """Return one chunk of time of an array from what `load_chunks` fetched; the fill value where nothing is stored.

    Raises:
        BrokenChunk: a chunk is damaged.
    """
    values = np.full(shape, fill, np.uint8)
    for key in chunk_keys(name, number, shape[1:], plane):
        if key in stored:
            i, j = (int(part) for part in key.split("/")[-2:])
            part = decode(stored[key], name, np.uint8, (shape[0], *plane))
            here = values[:, i * plane[0] : (i + 1) * plane[0], j * plane[1] : (j + 1) * plane[1]]
            here[:] = part[:, : here.shape[1], : here.shape[2]]
    return values


def chunk_keys(name: str, number: int, shape: tuple[int, int], plane: tuple[int, int]) -> list[str]:
    """Return the keys of one chunk of time of an array."""
    rows, columns = (-(-size // step) for size, step in zip(shape, plane, strict=True))
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
        raise BrokenChunk(f"{name} is damaged ({str(error).splitlines()[0]})") from None


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
