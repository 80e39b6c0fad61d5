"""Rows of one size in a file: written one after another, read by number, without holding them in memory."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from jaxtyping import Int
from numpy import ndarray


class Rows:
    """A file of rows.

    A memory-mapped file would count as this process's memory wherever a limit is on it; reads by number do not.

    Args:
        path: of the file; an empty one is made where there is none.
        dtype: of a row's values, or of the whole row if it is of several fields.
        shape: of a row.
    """

    def __init__(self, path: Path, dtype: np.dtype, shape: tuple[int, ...] = ()) -> None:
        self.path, self.dtype, self.shape = path, dtype, shape
        self.row_bytes = int(np.prod(shape, dtype=int)) * dtype.itemsize
        self._file = path.open("r+b" if path.exists() else "w+b", buffering=0)

    def __len__(self) -> int:
        return os.fstat(self._file.fileno()).st_size // self.row_bytes

    def cut(self, rows: int) -> None:
        """Forget all rows from a number on: those of a write that was not finished.

        Raises:
            ValueError: fewer are there.
        """
        if len(self) < rows:
            raise ValueError(f"{self.path}: holds {len(self)} rows, {rows} were expected")
        self._file.truncate(rows * self.row_bytes)

    def add(self, rows: ndarray) -> None:
        """Write rows after the last."""
        self._file.seek(len(self) * self.row_bytes)
        data = memoryview(np.ascontiguousarray(rows, self.dtype).tobytes())
        while data:
            data = data[self._file.write(data) :]

    def flush(self) -> None:
        """See that what was written is on the disk."""
        os.fsync(self._file.fileno())

    def read(self, numbers: Int[ndarray, "*wanted"]) -> ndarray:
        """Return the rows of some numbers, (*wanted, *shape)."""
        out = bytearray(numbers.size * self.row_bytes)
        into = memoryview(out)
        for i, number in enumerate(numbers.ravel()):
            row = into[i * self.row_bytes : (i + 1) * self.row_bytes]
            if os.preadv(self._file.fileno(), [row], int(number) * self.row_bytes) != self.row_bytes:
                raise OSError(f"{self.path}: row {number} is not whole; remove the run's folder and train again.")
        return np.frombuffer(out, self.dtype).reshape(*numbers.shape, *self.shape)

    def all(self) -> ndarray:
        """Return all rows, read at once."""
        values = int(np.prod(self.shape, dtype=int)) * len(self)
        return np.fromfile(self.path, self.dtype, values).reshape(-1, *self.shape)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
