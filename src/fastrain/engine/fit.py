"""Fitting a network: a number of steps, each of whose batches is told by its number alone.

So a run that was killed goes on from its last checkpoint to the same weights as one that was not.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastrain.engine import checkpoint
from fastrain.engine.averaging import Average
from fastrain.engine.schedule import triangle


@dataclass(frozen=True)
class FitSettings:
    """How a network is fitted.

    Attributes:
        steps: of the optimiser.
        learning_rate: at its peak.
        weight_decay: of weights of two dimensions or more.
        average_span: steps that the average of the weights reaches back.
        clip: largest norm of a step's gradient.
        bf16: compute in bfloat16 where the device is fast at it; weights stay float32.
        checkpoint_seconds: at least between two checkpoints.
    """

    steps: int
    learning_rate: float = 3e-3
    weight_decay: float = 0.02
    average_span: int = 100
    clip: float = 1.0
    bf16: bool = True
    checkpoint_seconds: float = 20.0


Batch = Any
Draw = Callable[[int], Batch]
Loss = Callable[[nn.Module, Batch], Tensor]
Progress = Callable[[int, int, float], None]


def fit(
    model: nn.Module,
    draw: Draw,
    loss: Loss,
    settings: FitSettings,
    *,
    state: Path | None = None,
    progress: Progress | None = None,
) -> nn.Module:
    """Return the average of the fitted weights, in evaluation mode.

    Args:
        model: to be fitted, in place.
        draw: gives the batch of a step's number, the same one whenever it is asked.
        loss: of the model on a batch.
        settings: see there.
        state: file of the checkpoint; a run of the same settings goes on from it.
        progress: called with steps done, steps in all, and the smoothed loss.
    """
    optimiser = torch.optim.AdamW(_groups(model, settings), lr=settings.learning_rate, betas=(0.9, 0.98))
    average = Average(model, settings.average_span)
    start, smooth = _resume(model, optimiser, average, settings, state)
    written = time.monotonic()
    device = next(model.parameters()).device.type
    model.train()
    for step in range(start, settings.steps):
        for group in optimiser.param_groups:
            group["lr"] = settings.learning_rate * triangle(step, settings.steps)
        batch = draw(step)
        with torch.autocast(device, dtype=torch.bfloat16, enabled=settings.bf16):
            value = loss(model, batch)
        if not torch.isfinite(value):
            raise FloatingPointError(f"the loss became {value.item()} at step {step}")
        optimiser.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        optimiser.step()
        average.update(model)
        smooth = value.item() if step == 0 else smooth + (value.item() - smooth) / min(step + 1, 20)
        if progress:
            progress(step + 1, settings.steps, smooth)
        if state and time.monotonic() - written > settings.checkpoint_seconds:
            checkpoint.save(state, _state(model, optimiser, average, settings, step + 1, smooth))
            written = time.monotonic()
    return average.model


def _groups(model: nn.Module, settings: FitSettings) -> list[dict[str, Any]]:
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


def _state(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    average: Average,
    settings: FitSettings,
    step: int,
    smooth: float,
) -> dict[str, Any]:
    return {
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
        "average": average.model.state_dict(),
        "average_steps": average.steps,
        "settings": repr(settings),
        "step": step,
        "loss": smooth,
    }


def _resume(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    average: Average,
    settings: FitSettings,
    path: Path | None,
) -> tuple[int, float]:
    if path is None or not path.exists():
        return 0, 0.0
    kept = checkpoint.load(path)
    if kept["settings"] != repr(settings):
        return 0, 0.0
    model.load_state_dict(kept["model"])
    optimiser.load_state_dict(kept["optimiser"])
    average.model.load_state_dict(kept["average"])
    average.steps = kept["average_steps"]
    return int(kept["step"]), float(kept["loss"])
