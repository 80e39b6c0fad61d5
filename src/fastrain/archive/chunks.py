"""Chunks as they lie in the storage, compressed here.

zarr's way to an array's chunk costs four times what the compression does; a bulk ingest writes hundreds of thousands.
What is stored is the same to the byte (`tests/archive/test_chunks.py`), and reading goes through zarr.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numcodecs.zstd import Zstd
from numpy import ndarray
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

LEVEL = 1  # of zstd; chosen by benchmarks/codec.py


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
    codec = Zstd(level=LEVEL, checksum=True)
    rows, columns = plane
    encoded = {}
    for i in range(0, values.shape[1], rows):
        for j in range(0, values.shape[2], columns):
            part = values[:, i : i + rows, j : j + columns]
            if part.shape[1:] != plane:
                whole = np.full((len(values), rows, columns), fill, np.uint8)
                whole[:, : part.shape[1], : part.shape[2]] = part
                part = whole
            encoded[f"{name}/c/{number}/{i // rows}/{j // columns}"] = codec.encode(np.ascontiguousarray(part))
    return encoded


def store_chunks(store: Any, encoded: Mapping[str, bytes]) -> None:
    """Put encoded chunks into a session's store."""
    sync(_set_all(store, encoded))


async def _set_all(store: Any, encoded: Mapping[str, bytes]) -> None:
    buffer = default_buffer_prototype().buffer
    await asyncio.gather(*(store.set(key, buffer.from_bytes(value)) for key, value in encoded.items()))
