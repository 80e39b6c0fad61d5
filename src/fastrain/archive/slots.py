"""The arrays that hold one value a slot, for a writer: read in pieces, changed in memory, stored at a commit.

Through zarr each of them would be read for every frame that comes and rewritten for every hour.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Int, Shaped
from numpy import ndarray

from fastrain.archive.chunks import decode, encode, load_chunks, store_chunks
from fastrain.archive.schema import DIGEST_BYTES, SLOTS_PER_CHUNK

# Type of each array's values; all begin as zeros.
TYPES = {
    "status": np.uint8,
    "time_offset": np.int32,
    "wet_pixels": np.uint32,
    "observed_pixels": np.uint32,
    "digest": np.uint8,
}


class Slots:
    """What is known of each slot, as a writer sees it: what is stored, and what it changed since."""

    def __init__(self, store: Any, before: Slots | None = None) -> None:
        self._store = store
        # What was read or written before the last commit holds on: an archive has one writer.
        self._pieces: dict[int, dict[str, ndarray]] = before._pieces if before else {}
        self._changed: set[int] = set()

    def get(self, name: str, slot: int) -> Any:
        """Return one value of a slot; of `digest`, its bytes."""
        value = self._piece(slot // SLOTS_PER_CHUNK)[name][slot % SLOTS_PER_CHUNK]
        return value.tobytes() if name == "digest" else value

    def put(self, slots: Int[ndarray, n], **values: Shaped[ndarray, "n ..."]) -> None:
        """Set values of some slots."""
        pieces = slots // SLOTS_PER_CHUNK
        for piece in np.unique(pieces):
            here = pieces == piece
            held = self._piece(int(piece))
            for name, value in values.items():
                held[name][slots[here] % SLOTS_PER_CHUNK] = value[here]
            self._changed.add(int(piece))

    def store(self) -> None:
        """Hand everything that changed to the storage."""
        changed = {_key(name, piece): self._pieces[piece][name] for piece in sorted(self._changed) for name in TYPES}
        store_chunks(self._store, {key: encode(values) for key, values in changed.items()})
        self._changed.clear()

    def _piece(self, piece: int) -> dict[str, ndarray]:
        if piece not in self._pieces:
            stored = load_chunks(self._store, [_key(name, piece) for name in TYPES])
            self._pieces[piece] = {name: _values(name, stored.get(_key(name, piece))) for name in TYPES}
        return self._pieces[piece]


def _key(name: str, piece: int) -> str:
    return f"{name}/c/{piece}" + ("/0" if name == "digest" else "")


def _values(name: str, stored: bytes | None) -> ndarray:
    shape = (SLOTS_PER_CHUNK, DIGEST_BYTES) if name == "digest" else (SLOTS_PER_CHUNK,)
    if stored is None:
        return np.zeros(shape, TYPES[name])
    return decode(stored, name, np.dtype(TYPES[name]).newbyteorder("<"), shape).astype(TYPES[name])
