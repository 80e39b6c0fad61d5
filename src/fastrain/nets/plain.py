"""What has to be known of maps that loops of ours go over by their address; numba need not be there for it."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from types import ModuleType

import torch
from torch import Tensor, nn

LANES = 16  # numbers that are computed with together
EDGE = LANES  # rows of a tile of the matrix unit, and 32-bit numbers of a row
STEP = 32  # bfloat16 numbers of a row: how much of a sum one product takes
TILE = 1024  # bytes of a tile


def plain(x: Tensor) -> bool:
    """Tell whether maps, (batch, channel, y, x), lie in memory of a CPU, and do not stand for others in a tracing."""
    if x.ndim != 4 or x.device.type != "cpu" or type(x) not in (Tensor, nn.Parameter):
        return False
    return not (torch.compiler.is_compiling() or torch._C._get_tracing_state())


@cache
def loops(name: str) -> ModuleType | None:
    """Return a module of this package that numba compiles, loaded when first asked for, as that takes half a second.

    None where it cannot be had: numba comes with the radar half, and wants a place to keep what it compiles.
    """
    try:
        return import_module(f"fastrain.nets.{name}")
    except (ImportError, RuntimeError):
        return None
