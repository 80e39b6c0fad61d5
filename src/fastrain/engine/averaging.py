"""Averages of a network's weights over steps: they judge better than any one step."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class Averaging:
    """What `fit` keeps beside a network: another one, `model`, into which steps go.

    Args:
        model: of the first step.
        start: step of the first that goes in; until then the network stands for itself.
    """

    def __init__(self, model: nn.Module, start: int = 0) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.start, self.steps = start, 0

    @property
    def started(self) -> bool:
        """Whether anything is in the average yet."""
        return self.steps > self.start

    def update(self, model: nn.Module) -> None:
        """Take one more step into the average."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"model": self.model.state_dict(), "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what a checkpoint kept."""
        self.model.load_state_dict(state["model"])
        self.steps = state["steps"]


class Average(Averaging):
    """The average of a network over about the last `span` steps; early, over all steps so far.

    Source: Polyak and Juditsky (1992); hlb-CIFAR10 for keeping the buffers with it.
    """

    def __init__(self, model: nn.Module, span: int) -> None:
        super().__init__(model)
        self.span = max(1, span)

    def __repr__(self) -> str:
        return f"Average({self.span})"

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take one more step into the average."""
        self.steps += 1
        share = 1 / min(self.steps, self.span)
        _blend(self.model, model, share)


class MovingAverage(Averaging):
    """An exponential moving average that starts late, and may be copied back into the network: lookahead.

    Args:
        model: of the first step.
        decay: share of the average that stays, told by the step.
        every: so many steps one goes into it.
        start: step of the first; until then there is no average.
        copy_back: let the network go on from the average each time.
    Source: hlb-CIFAR10 0.3 (average), 0.4 (copied back); Zhang et al. (2019), arXiv:1907.08610 (lookahead).
    """

    def __init__(
        self,
        model: nn.Module,
        decay: Callable[[int], float],
        *,
        every: int = 1,
        start: int = 0,
        copy_back: bool = False,
    ) -> None:
        super().__init__(model, start)
        self.decay, self.every, self.copy_back = decay, every, copy_back

    def __repr__(self) -> str:
        return f"MovingAverage({self.decay(self.start)}, {self.every}, {self.start}, {self.copy_back})"

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take one more step into the average."""
        step, self.steps = self.steps, self.steps + 1
        if step < self.start:
            return
        if step == self.start:
            _blend(self.model, model, 1.0)
        elif (step - self.start) % self.every == 0:
            _blend(self.model, model, 1 - self.decay(step))
            if self.copy_back:
                _blend(model, self.model, 1.0)


def _blend(into: nn.Module, model: nn.Module, share: float) -> None:
    for own, new in zip(_tensors(into), _tensors(model), strict=True):
        if own.is_floating_point() and share < 1:
            own.lerp_(new.to(own.dtype), share)
        else:
            own.copy_(new)


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]
