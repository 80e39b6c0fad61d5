"""Pooling whose way back is quick on a CPU."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from fastrain.core.shapes import Float


def largest_of_four(x: Float[Tensor, "batch channel y x"]) -> Float[Tensor, "batch channel rows columns"]:
    """Return the largest of each 2×2; an odd last row or column is dropped."""
    return F.max_pool2d(x, 2)
