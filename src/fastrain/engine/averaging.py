"""Exponential moving average of a network's weights: the average judges better than any one step."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class Average:
    """The average of a network over about the last `span` steps; early, over all steps so far.

    Source: Polyak and Juditsky (1992); hlb-CIFAR10 for keeping the buffers with it.
    """

    def __init__(self, model: nn.Module, span: int) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.span = max(1, span)
        self.steps = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take one more step into the average."""
        self.steps += 1
        share = 1 / min(self.steps, self.span)
        for own, new in zip(self._tensors(self.model), self._tensors(model), strict=True):
            if own.is_floating_point():
                own.lerp_(new.to(own.dtype), share)
            else:
                own.copy_(new)

    @staticmethod
    def _tensors(model: nn.Module) -> list[Tensor]:
        return [*model.parameters(), *model.buffers()]
