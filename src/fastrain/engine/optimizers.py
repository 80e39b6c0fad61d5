"""Optimisers, and the learning rates that each follows on a schedule of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fastrain.core.shapes import Float
from fastrain.engine.precision import Precision, number_of
from fastrain.engine.schedule import triangle

Schedule = Callable[[int], float]

_QUINTIC = (3.4445, -4.7750, 2.0315)  # steep at zero: three iterations bring singular values into about 0.5 to 1.5


class Steering:
    """Optimisers with a schedule for each of their groups: the share of its peak learning rate at a step."""

    def __init__(self, parts: Sequence[tuple[torch.optim.Optimizer, Sequence[Schedule]]]) -> None:
        self.parts = [(optimiser, list(schedules)) for optimiser, schedules in parts]
        for optimiser, schedules in self.parts:
            for group, _ in zip(optimiser.param_groups, schedules, strict=True):
                group.setdefault("peak", group["lr"])

    def prepare(self, step: int) -> None:
        """Set the rates of a step; what has none is not differentiated, which spares the way back to it."""
        for optimiser, schedules in self.parts:
            for group, schedule in zip(optimiser.param_groups, schedules, strict=True):
                group["lr"] = group["peak"] * schedule(step)
                for weight in group["params"]:
                    weight.requires_grad_(group["lr"] > 0)

    def step(self) -> None:
        """Take a step of every optimiser, and forget the gradients."""
        for optimiser, _ in self.parts:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

    def identity(self, steps: int) -> str:
        """Return what tells these optimisers from others over a run of some steps."""
        at = [steps * i // 16 for i in range(16)]  # a schedule is told by its rates here
        kept = [
            {**{k: v for k, v in group.items() if k not in ("params", "lr")}, "rates": [schedule(step) for step in at]}
            for optimiser, schedules in self.parts
            for group, schedule in zip(optimiser.param_groups, schedules, strict=True)
        ]
        return f"Steering({[type(optimiser).__name__ for optimiser, _ in self.parts]}, {kept})"

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {str(i): optimiser.state_dict() for i, (optimiser, _) in enumerate(self.parts)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what a checkpoint kept."""
        for i, (optimiser, _) in enumerate(self.parts):
            optimiser.load_state_dict(state[str(i)])


def adamw(model: nn.Module, steps: int, *, learning_rate: float = 3e-3, weight_decay: float = 0.02) -> Steering:
    """Return AdamW on a triangle, with decay of weights of two dimensions or more only."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98))
    return Steering([(optimiser, [lambda step: triangle(step, steps)] * 2)])


class Muon(torch.optim.Optimizer):
    """Momentum whose update of each filter bank is turned into a nearly orthogonal matrix; weights keep their norm.

    Args:
        parameters: of two dimensions or more; a convolution's filters are the rows of a matrix.
        lr: of the orthogonal update.
        momentum: Nesterov's.
        precision: that the update is turned in.
    Source: Jordan et al. (2024), "Muon"; cifar10-airbench for the norms and for three iterations.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        momentum: float = 0.6,
        precision: Precision = "float32",
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})
        self.precision: Precision = precision

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take one step."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(weight.grad)
                state["momentum"].mul_(group["momentum"]).add_(weight.grad)
                ahead = weight.grad.add(state["momentum"], alpha=group["momentum"])
                weight.mul_(len(weight) ** 0.5 / weight.norm())
                update = orthogonalised(ahead.reshape(len(ahead), -1), precision=self.precision).view_as(weight)
                weight.add_(update, alpha=-group["lr"])


def orthogonalised(
    matrix: Float[Tensor, "rows columns"], iterations: int = 3, precision: Precision = "float32"
) -> Float[Tensor, "rows columns"]:
    """Return a matrix with the same singular vectors, its singular values brought near to one.

    Source: Jordan et al. (2024), a Newton-Schulz iteration of the fifth order, in bfloat16 where that is fast.
    """
    a, b, c = _QUINTIC
    x = matrix.to(number_of(precision))
    x = x / (x.norm() + 1e-7)  # no singular value is above one
    tall = x.size(0) > x.size(1)
    if tall:
        x = x.T
    for _ in range(iterations):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    out: Tensor = (x.T if tall else x).to(matrix.dtype)
    return out
