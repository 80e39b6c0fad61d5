"""What has to be known of maps that loops of ours go over by their address; numba need not be there for it."""

from __future__ import annotations

import os
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

LANES = 16  # numbers that are computed with together
EDGE = LANES  # rows of a tile of the matrix unit, and 32-bit numbers of a row
STEP = 32  # bfloat16 numbers of a row: how much of a sum one product takes
TILE = 1024  # bytes of a tile
# Cells of a forecast for which loading numba is worth it: half a second; some twenty maps, as `base` makes when looking
# back, win it back (LOG.md).
LARGE = {torch.float32: 48_000, torch.bfloat16: 100_000}
# What tells loops in which numbers maps are: how many bytes each has.
LIKE: dict[torch.dtype, Any] = {torch.bfloat16: np.uint16(2), torch.float32: np.uint32(4)}
NEAR, FAR = 0.5**0.5, 2.0**0.5  # the points of minimal filtering beside 0 and infinity, on both sides; see `winograd`
_own = threading.local()


def plain(x: Tensor) -> bool:
    """Tell whether loops may go over maps, (batch, channel, y, x): in memory of a CPU, and not in a tracing."""
    if x.ndim != 4 or x.device.type != "cpu" or type(x) not in (Tensor, nn.Parameter):
        return False
    if torch.compiler.is_compiling() or torch._C._get_tracing_state():
        return False
    return not getattr(_own, "torch", False)


@contextmanager
def by_torch() -> Iterator[None]:
    """Let maps be gone through by torch alone, on this thread."""
    before = getattr(_own, "torch", False)
    _own.torch = True
    try:
        yield
    finally:
        _own.torch = before


def numbers_of(x: Tensor, weight: Tensor) -> torch.dtype | None:
    """Return the numbers that maps and weights are multiplied in, if loops of ours know them."""
    if not torch.is_autocast_enabled("cpu"):
        return x.dtype if x.dtype == weight.dtype and x.dtype in LIKE else None
    known = torch.get_autocast_dtype("cpu") == torch.bfloat16 and x.dtype in LIKE and weight.dtype in LIKE
    return torch.bfloat16 if known else None


def times(count: int, of: int) -> int:
    """Return how many times something is needed to hold a number."""
    return -(-count // of)


def filled(count: int, of: int) -> int:
    """Return a number filled up to a multiple of another."""
    return times(count, of) * of


@contextmanager
def forecasting(cells: int) -> Iterator[None]:
    """Let forecasts of so many cells go by what training goes by, if that is worth loading numba."""
    before = _cells()
    _own.cells = max(before, cells)
    try:
        yield
    finally:
        _own.cells = before


def _cells() -> int:
    """Return within `forecasting` of how many cells it is."""
    return int(getattr(_own, "cells", 0))


def worth_it(training: bool, kind: torch.dtype) -> bool:
    """Tell whether numba is worth loading: in training, and within `forecasting` of many cells.

    Not whether there will be a gradient: maps that are computed again on the way back have to be the same ones. Of
    bfloat16, forecasts gain only where convolutions do.

    Args:
        training: whether it is one.
        kind: of the numbers that are computed in.
    """
    if training:
        return True
    return kind in LARGE and _cells() >= LARGE[kind] and (kind == torch.float32 or multiplies_pairs())


@cache
def multiplies_and_adds() -> bool:
    """Tell whether the processor multiplies and adds in one instruction; LLVM would call a function for it else."""
    return not _intels() or _feature("fma")


@cache
def multiplies_pairs() -> bool:
    """Tell whether the processor multiplies pairs of bfloat16, and has no matrix unit, by which torch is faster."""
    return _intels() and _feature("avx512bf16") and _feature("avx512vl") and not _feature("amx-bf16")


def _intels() -> bool:
    return platform.machine().lower() in ("x86_64", "amd64")


def _feature(name: str) -> bool:
    """Tell whether the processor has a feature, by LLVM's name for it, and numba may use it."""
    if os.environ.get("NUMBA_CPU_NAME") or os.environ.get("NUMBA_CPU_FEATURES"):
        return False
    try:
        from llvmlite import binding
    except ImportError:
        return False
    return bool(binding.get_host_cpu_features().get(name, False))


@cache
def loops(name: str) -> ModuleType | None:
    """Return a module of this package that numba compiles, loaded when first asked for, as that takes half a second.

    None where it cannot be had: numba comes with the radar half, and wants a place to keep what it compiles.
    """
    try:
        return import_module(f"fastrain.nets.{name}")
    except (ImportError, RuntimeError):
        return None
