"""Networks by loops of ours, or by torch alone: what benchmarks take in turns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from fastrain.nets.plain import by_torch

Way = Literal["torch", "ours"]
WAYS: tuple[Way, ...] = ("torch", "ours")


@contextmanager
def going(way: Way) -> Iterator[None]:
    """Compute by loops of ours where the processor has what they need, or by torch alone."""
    if way == "ours":
        yield
    else:
        with by_torch():
            yield
