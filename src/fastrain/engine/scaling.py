"""Scaled losses: what lets a network learn in float16, whose smallest number is 6e-8.

Gradients smaller than that would be nothing. So the loss is multiplied by a large number and the gradients are divided
by it, in float32; where that was too large and a gradient is no number, the step is left out and the number halved.

Source: Micikevicius et al. (2018), "Mixed precision training", arXiv:1710.03740.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fastrain.engine.precision import Precision

FIRST, LARGEST = 2.0**12, 2.0**24
PATIENCE = 500  # steps without a fault after which the scale is doubled


class Scaling:
    """The scale of a fit's losses; in anything but float16 it does nothing.

    Attributes:
        scale: that the loss is multiplied by.
        steps: since it was changed.
    """

    def __init__(self, precision: Precision) -> None:
        self.on = precision == "float16"
        self.scale, self.steps = FIRST if self.on else 1.0, 0

    def scaled(self, loss: Tensor) -> Tensor:
        """Return the loss as gradients are to be taken of it."""
        return loss * self.scale if self.on else loss

    def sound(self, model: nn.Module) -> bool:
        """Bring a model's gradients to their own size; tell whether all are numbers, else the step is to be left out.

        Waits for the device.
        """
        if not self.on:
            return True
        gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
        torch._foreach_mul_(gradients, 1 / self.scale)
        finite = all(torch.stack([gradient.isfinite().all() for gradient in gradients]).tolist())
        self.steps += 1
        if not finite:
            self.scale, self.steps = self.scale / 2, 0
        elif self.steps >= PATIENCE and self.scale < LARGEST:
            self.scale, self.steps = self.scale * 2, 0
        return finite

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"scale": self.scale, "steps": self.steps} if self.on else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what a checkpoint kept."""
        if self.on and state:
            self.scale, self.steps = float(state["scale"]), int(state["steps"])
