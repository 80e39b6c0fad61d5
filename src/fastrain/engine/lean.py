"""Training in less memory, to the same weights: what a block's maps hold is computed again on the way back.

Not by torch's `checkpoint`, which loads torch's compiler: 75 MB where there are none to spare.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def compute_again(model: nn.Module, kinds: tuple[type[nn.Module], ...]) -> None:
    """Let some modules of a network forget their maps while it is trained, and compute them again when needed.

    The gradients are the same to the bit; a step takes about twice as long.

    Args:
        model: whose weights and outputs stay as they are.
        kinds: of the modules, which are called with tensors alone, give one, and draw nothing at random.
    """
    for module in model.modules():
        if isinstance(module, kinds):
            module.forward = _Again(module)  # type: ignore[method-assign]


class _Again:
    """A module's forward, without keeping what is inside; a copy of the module gets a copy of it."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.forward = type(module).forward

    def __call__(self, *args: Tensor) -> Any:
        if not (self.module.training and torch.is_grad_enabled()):
            return self.forward(self.module, *args)
        # The weights go in with the maps, so that their gradients come out.
        weights = [weight for weight in self.module.parameters() if weight.requires_grad]
        return _Forgotten.apply(self, len(args), *args, *weights)  # type: ignore[no-untyped-call]


class _Forgotten(torch.autograd.Function):
    """What a module gives, of which only what went in is kept until the way back."""

    @staticmethod
    def forward(ctx: Any, again: _Again, count: int, *tensors: Tensor) -> Any:
        """Return what the module gives."""
        device = tensors[0].device.type
        ctx.again, ctx.count = again, count
        ctx.computing = device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)
        ctx.save_for_backward(*tensors)
        return again.forward(again.module, *tensors[:count])

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """Return the gradients of all that went in."""
        tensors = ctx.saved_tensors
        shown = [one.detach().requires_grad_(one.requires_grad) for one in tensors[: ctx.count]]
        sought = [*shown, *tensors[ctx.count :]]
        wanted = [one for one in sought if one.requires_grad]
        device, number, enabled = ctx.computing
        with _statistics_kept(ctx.again.module):
            with torch.enable_grad(), torch.autocast(device, number, enabled):
                out = ctx.again.forward(ctx.again.module, *shown)
            found = iter(torch.autograd.grad(out, wanted, gradients, allow_unused=True))
        return None, None, *(next(found) if one.requires_grad else None for one in sought)


@contextmanager
def _statistics_kept(module: nn.Module) -> Iterator[None]:
    """Leave the running statistics of batch norms as the first time has made them."""
    norms = [one for one in module.modules() if isinstance(one, nn.BatchNorm2d)]
    kept = [[buffer.clone() for buffer in norm.buffers()] for norm in norms]
    try:
        yield
    finally:
        with torch.no_grad():
            for norm, before in zip(norms, kept, strict=True):
                for buffer, value in zip(norm.buffers(), before, strict=True):
                    buffer.copy_(value)
