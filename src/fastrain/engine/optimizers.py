"""Optimisers, and the learning rates that each follows on a schedule of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fastrain.core.shapes import Float
from fastrain.engine.precision import Precision, number_of
from fastrain.engine.schedule import triangle

Schedule = Callable[[int], float]

EPSILON = 1e-8  # of Adam: added to what is divided by
_QUINTIC = (3.4445, -4.7750, 2.0315)  # steep at zero: three iterations bring singular values into about 0.5 to 1.5


class Optimiser(ABC):
    """Groups of weights with their options, and what is kept of each weight from step to step.

    None of torch's own: the first of those imports torch's compiler, two seconds of processor time and 72 MB of every
    training, to tell it to leave optimisers alone.

    Attributes:
        param_groups: weights (`params`) and options of each group; `lr` is set anew at every step.
        state: by the number of the weight, over all groups.

    Args:
        parameters: weights, or groups of them with options of their own.
        options: of the groups that do not say otherwise.
    """

    def __init__(self, parameters: Iterable[nn.Parameter] | Iterable[dict[str, Any]], options: dict[str, Any]) -> None:
        given = list(parameters)
        groups = [one for one in given if isinstance(one, dict)] or [{"params": given}]
        self.param_groups = [{**options, **group, "params": list(group["params"])} for group in groups]
        self.state: dict[int, dict[str, Any]] = {}

    @torch.no_grad()
    def step(self) -> None:
        """Take one step; weights without a gradient stay."""
        first = 0
        for group in self.param_groups:
            learning = [(i, weight, weight.grad) for i, weight in enumerate(group["params"], first)]
            learning = [(i, weight, gradient) for i, weight, gradient in learning if gradient is not None]
            first += len(group["params"])
            if learning:
                numbers, weights, gradients = zip(*learning, strict=True)
                states = [self.state.setdefault(number, {}) for number in numbers]
                self.update(group, list(weights), list(gradients), states)

    @abstractmethod
    def update(
        self, group: dict[str, Any], weights: list[Tensor], gradients: list[Tensor], states: list[dict[str, Any]]
    ) -> None:
        """Change some weights of a group by their gradients; each one's state is empty at first."""

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for group in self.param_groups:
            for weight in group["params"]:
                weight.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps; options are the caller's to know."""
        return {str(number): dict(state) for number, state in self.state.items()}

    def load_state_dict(self, kept: dict[str, Any]) -> None:
        """Go on from what a checkpoint kept."""
        weights = [weight for group in self.param_groups for weight in group["params"]]
        self.state = {
            int(number): {
                name: value.to(weights[int(number)].device).clone() if isinstance(value, Tensor) else value
                for name, value in state.items()
            }
            for number, state in kept.items()
        }


class Steering:
    """Optimisers with a schedule for each of their groups: the share of its peak learning rate at a step.

    Args:
        parts: optimisers and the schedules of their groups.
        settled: weights that are not trained any more from a step on, whatever their group does.
    """

    def __init__(
        self,
        parts: Sequence[tuple[Optimiser, Sequence[Schedule]]],
        settled: tuple[Sequence[nn.Parameter], int] | None = None,
    ) -> None:
        self.parts = [(optimiser, list(schedules)) for optimiser, schedules in parts]
        self.settled = settled
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
        if self.settled is not None and step >= self.settled[1]:
            for weight in self.settled[0]:
                weight.requires_grad_(False)

    def step(self) -> None:
        """Take a step of every optimiser, and forget the gradients."""
        for optimiser, _ in self.parts:
            optimiser.step()
        self.forget()

    def forget(self) -> None:
        """Forget the gradients."""
        for optimiser, _ in self.parts:
            optimiser.zero_grad()

    def identity(self, steps: int) -> str:
        """Return what tells these optimisers from others over a run of some steps."""
        at = [steps * i // 16 for i in range(16)]  # a schedule is told by its rates here
        kept = [
            {**{k: v for k, v in group.items() if k not in ("params", "lr")}, "rates": [schedule(step) for step in at]}
            for optimiser, schedules in self.parts
            for group, schedule in zip(optimiser.param_groups, schedules, strict=True)
        ]
        settled = f", {len(self.settled[0])} settled from {self.settled[1]}" if self.settled is not None else ""
        return f"Steering({[type(optimiser).__name__ for optimiser, _ in self.parts]}, {kept}{settled})"

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
    optimiser = AdamW(groups, lr=learning_rate, betas=(0.9, 0.98))
    return Steering([(optimiser, [lambda step: triangle(step, steps)] * 2)])


class AdamW(Optimiser):
    """Adam, with decay of the weights apart from the gradient.

    Args:
        parameters: weights, or groups of them.
        lr: of the update.
        betas: share of the mean of the gradient, and of its square, that is kept at each step.
        weight_decay: of the weights, times the rate.
    Source: Loshchilov and Hutter (2019), arXiv:1711.05101, algorithm 2.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    def update(
        self, group: dict[str, Any], weights: list[Tensor], gradients: list[Tensor], states: list[dict[str, Any]]
    ) -> None:
        """Take one step."""
        first, second = group["betas"]
        for weight, state in zip(weights, states, strict=True):
            if not state:
                state |= {"steps": 0, "mean": torch.zeros_like(weight), "square": torch.zeros_like(weight)}
            state["steps"] += 1
        means, squares = [state["mean"] for state in states], [state["square"] for state in states]
        torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_lerp_(means, gradients, 1 - first)
        torch._foreach_mul_(squares, second)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - second)
        # Both means begin at nothing, which the first steps make good.
        scale = torch._foreach_sqrt(squares)
        torch._foreach_div_(scale, [(1 - second ** state["steps"]) ** 0.5 for state in states])
        torch._foreach_add_(scale, EPSILON)
        rates = [-group["lr"] / (1 - first ** state["steps"]) for state in states]
        torch._foreach_addcdiv_(weights, means, scale, rates)


class SGD(Optimiser):
    """Stochastic gradient descent, with momentum if told.

    Args:
        parameters: weights, or groups of them.
        lr: of the update.
        momentum: share of the last update that is kept.
        nesterov: whether the gradient's own share is added again.
        weight_decay: added to the gradient, times the weights.
    Source: Sutskever et al. (2013) for Nesterov's momentum, in the form of torch's.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.0,
        *,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        options = {"lr": lr, "momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
        super().__init__(parameters, options)

    def update(
        self, group: dict[str, Any], weights: list[Tensor], gradients: list[Tensor], states: list[dict[str, Any]]
    ) -> None:
        """Take one step."""
        if group["weight_decay"]:
            gradients = list(torch._foreach_add(gradients, weights, alpha=group["weight_decay"]))
        if group["momentum"]:
            for weight, state in zip(weights, states, strict=True):
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
            kept = [state["momentum"] for state in states]
            torch._foreach_mul_(kept, group["momentum"])
            torch._foreach_add_(kept, gradients)
            nesterov = group["nesterov"]
            gradients = list(torch._foreach_add(gradients, kept, alpha=group["momentum"])) if nesterov else kept
        torch._foreach_add_(weights, gradients, alpha=-group["lr"])


class Muon(Optimiser):
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

    def update(
        self, group: dict[str, Any], weights: list[Tensor], gradients: list[Tensor], states: list[dict[str, Any]]
    ) -> None:
        """Take one step."""
        for weight, gradient, state in zip(weights, gradients, states, strict=True):
            if not state:
                state["momentum"] = torch.zeros_like(weight)
            kept = state["momentum"]
            kept.mul_(group["momentum"]).add_(gradient)
            ahead = gradient.add(kept, alpha=group["momentum"])
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
    # No singular value is above one; in float32, as float16 would not hold every gradient.
    x = (matrix / (matrix.norm() + 1e-7)).to(number_of(precision))
    tall = x.size(0) > x.size(1)
    if tall:
        x = x.T
    for _ in range(iterations):
        square = x @ x.T
        by = torch.addmm(square, square, square, beta=b, alpha=c)
        x = torch.addmm(x, by, x, beta=a)
    out: Tensor = (x.T if tall else x).to(matrix.dtype)
    return out
