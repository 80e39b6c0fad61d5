"""Networks by loops of ours, or by torch alone: what benchmarks take in turns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from fastrain.nets import convolution, filtering, norm_gelu

Way = Literal["torch", "ours"]
WAYS: tuple[Way, ...] = ("torch", "ours")
_LOOPS = ((convolution, "tiles"), (filtering, "winograd"), (norm_gelu, "passes"))


@contextmanager
def going(way: Way) -> Iterator[None]:
    """Compute by loops of ours where the processor has what they need, or by torch alone."""
    ours = [getattr(module, name) for module, name in _LOOPS]
    if way == "torch":
        for module, name in _LOOPS:
            setattr(module, name, lambda: None)
    try:
        yield
    finally:
        for (module, name), loops in zip(_LOOPS, ours, strict=True):
            setattr(module, name, loops)
