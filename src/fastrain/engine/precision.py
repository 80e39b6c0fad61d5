"""In which numbers a network computes: bfloat16 where the device has units for it, or else float16, or float32.

Where there are none, bfloat16 is converted there and back at every turn: a training step of the rain network takes 8
times as long as in float32 on an AVX2 processor (LOG.md), where AMX takes a fraction. Graphics cards before 2020 have
units for float16 alone, in which small gradients vanish; see `scaling`. Weights are always float32.
"""

from __future__ import annotations

import platform
from functools import cache
from typing import Literal

import torch

Precision = Literal["bfloat16", "float16", "float32"]

NUMBERS: dict[Precision, torch.dtype] = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float32": torch.float32,
}
TENSOR_CORES = (7, 0)  # compute capability of the first cards that multiply float16 faster than float32


@cache
def fast_precision(kind: str) -> Precision:
    """Return what a kind of device, `cpu` or `cuda`, computes fastest in; the same one whenever a machine is asked."""
    if kind == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bfloat16"
        return "float16" if torch.cuda.get_device_capability() >= TENSOR_CORES else "float32"
    return "bfloat16" if kind == "cpu" and _processor_has_bfloat16() else "float32"


def computing(device: torch.device | str, precision: Precision | None = None) -> torch.autocast:
    """Return the context in which a network computes on a device; in what is fastest there if not told otherwise."""
    kind = torch.device(device).type
    precision = precision or fast_precision(kind)
    half = precision != "float32"
    return torch.autocast(kind, dtype=NUMBERS[precision] if half else torch.bfloat16, enabled=half)


def number_of(precision: Precision) -> torch.dtype:
    """Return the numbers of a precision."""
    return NUMBERS[precision]


def _processor_has_bfloat16() -> bool:
    """Tell whether the processor multiplies bfloat16; where torch does not tell, it does not."""
    if platform.machine().lower() in ("x86_64", "amd64"):
        # Not what oneDNN calls supported: that is any AVX-512, most of which converts.
        asked = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(bool(getattr(torch.cpu, name)()) for name in asked if hasattr(torch.cpu, name))
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):
        return False
