"""Checkpoints: written whole or not at all, so that a kill at any moment leaves the last one."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

# What `load` and taking over what it gives can throw where a file is not whole, or of something else.
UNREADABLE = (OSError, RuntimeError, LookupError, EOFError, ValueError, TypeError, UnpicklingError)


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a state; what stood there before stays until all of the new one is on the disk."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    with unfinished.open("wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:
            # The library's word for a disk that is full, among other things that can befall a write.
            raise OSError(errno.ENOSPC, "cannot be written, is the disk full?", str(path)) from error
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def load(path: Path) -> dict[str, Any]:
    """Return a state that `save` wrote; only tensors and plain values are read, no code."""
    return torch.load(path, map_location="cpu", weights_only=True)  # type: ignore[no-any-return]
