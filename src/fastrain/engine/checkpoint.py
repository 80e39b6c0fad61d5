"""Checkpoints: written whole or not at all, so that a kill at any moment leaves the last one, and known to be whole.

The one before is kept, for a disk that loses what was written: a checkpoint whose digest does not agree is passed over.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from fastrain.core.files import unfinished

# What `load` and taking over what it gives can throw where a file is not whole, or of something else.
UNREADABLE = (OSError, RuntimeError, LookupError, EOFError, ValueError, TypeError, UnpicklingError)
HEAD, DIGEST = b"fastrain checkpoint\n", 16


def save(path: Path, state: dict[str, Any], *, keep_before: bool = False) -> None:
    """Write a state; what stood there before stays until all of the new one is on the disk.

    Args:
        path: of the file.
        state: of tensors and plain values.
        keep_before: leave what stood there beside it; see `latest`.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    data = buffer.getbuffer()
    with unfinished(path) as file:
        file.write(HEAD + hashlib.blake2b(data, digest_size=DIGEST).digest())
        file.write(data)
    if keep_before and path.exists():
        path.replace(before(path))
    Path(file.name).replace(path)


def load(path: Path) -> dict[str, Any]:
    """Return a state that `save` wrote; only tensors and plain values are read, no code.

    Raises:
        ValueError: its digest does not agree, or any other of UNREADABLE.
    """
    data = path.read_bytes()
    if data.startswith(HEAD):
        digest, data = data[len(HEAD) : len(HEAD) + DIGEST], data[len(HEAD) + DIGEST :]
        if hashlib.blake2b(data, digest_size=DIGEST).digest() != digest:
            raise ValueError("its digest does not agree with what it holds")
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)  # type: ignore[no-any-return]


def latest(path: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """Return the last state that can be read, of a file and the one before it, and what is wrong with a later one.

    None where there is none, or none can be read.
    """
    wrong: list[str] = []
    for one in (path, before(path)):
        if one.exists():
            try:
                return load(one), wrong
            except UNREADABLE as error:
                said = next(iter(str(error).splitlines()), repr(error))
                wrong.append(f"{one}: the checkpoint cannot be read ({said})")
    return None, wrong


def before(path: Path) -> Path:
    """Return where `save` leaves what stood at a path."""
    return path.with_name(f"{path.stem}.before{path.suffix}")


def remove(path: Path) -> None:
    """Take a checkpoint and the one before it off the disk."""
    for one in (path, before(path)):
        one.unlink(missing_ok=True)
