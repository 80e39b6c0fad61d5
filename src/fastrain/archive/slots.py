"""The arrays that hold one value a slot, for a writer: read in pieces, changed in memory, stored at a commit.

Through the storage each of them would be read for every frame that comes and rewritten for every hour.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import zarr
from jaxtyping import Int, Shaped
from numpy import ndarray

from fastrain.archive.schema import DIGEST_BYTES, SLOTS_PER_CHUNK

NAMES = ("status", "time_offset", "wet_pixels", "observed_pixels", "digest")


class Slots:
    """What is known of each slot, as a writer sees it: what is stored, and what it changed since."""

    def __init__(self, root: zarr.Group) -> None:
        self._root = root
        self._pieces: dict[int, dict[str, ndarray]] = {}
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
        size = self._root["status"].shape[0]  # type: ignore[union-attr]
        for piece in sorted(self._changed):
            start, stop = piece * SLOTS_PER_CHUNK, min((piece + 1) * SLOTS_PER_CHUNK, size)
            for name in NAMES:
                self._root[name][start:stop] = self._pieces[piece][name]  # type: ignore[index]
        self._changed.clear()

    def _piece(self, piece: int) -> dict[str, ndarray]:
        if piece not in self._pieces:
            start = piece * SLOTS_PER_CHUNK
            read = {name: np.array(self._root[name][start : start + SLOTS_PER_CHUNK]) for name in NAMES}  # type: ignore[index]
            read["digest"] = read["digest"].reshape(-1, DIGEST_BYTES)
            self._pieces[piece] = read
        return self._pieces[piece]
