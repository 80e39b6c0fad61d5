"""Fitting a network: a number of steps, each of whose batches is told by its number alone.

So a run that was killed goes on from its last checkpoint to the same weights as one that was not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastrain.engine import checkpoint
from fastrain.engine.averaging import Averaging
from fastrain.engine.optimizers import Steering


@dataclass(frozen=True)
class FitSettings:
    """How a network is fitted.

    Attributes:
        steps: of the optimisers.
        clip: largest norm of a step's gradient.
        bf16: compute in bfloat16 where the device is fast at it; weights stay float32.
        checkpoint_seconds: at least between two checkpoints.
        look_every: steps between two looks at the loss; a look waits for the device.
    """

    steps: int
    clip: float | None = None
    bf16: bool = True
    checkpoint_seconds: float = 20.0
    look_every: int = 1


Batch = Any
Draw = Callable[[int], Batch]
Loss = Callable[[nn.Module, Batch], Tensor]
Progress = Callable[[int, int, float], None]


def fit(
    model: nn.Module,
    draw: Draw,
    loss: Loss,
    steering: Steering,
    settings: FitSettings,
    *,
    average: Averaging | None = None,
    state: Path | None = None,
    progress: Progress | None = None,
) -> nn.Module:
    """Return the fitted network, or the average of its weights where one is kept, in evaluation mode.

    Args:
        model: to be fitted, in place.
        draw: gives the batch of a step's number, the same one whenever it is asked.
        loss: of the model on a batch.
        steering: the optimisers and their rates.
        settings: see there.
        average: of the weights.
        state: file of the checkpoint; a run of the same settings goes on from it.
        progress: called with steps done, steps in all, and the smoothed loss, at every look.

    Raises:
        FloatingPointError: the loss is no number any more.
    """
    start, smooth = _resume(model, steering, average, settings, state)
    written = time.monotonic()
    unseen: list[Tensor] = []
    device = next(model.parameters()).device.type
    model.train()
    for step in range(start, settings.steps):
        batch = draw(step)
        steering.prepare(step)
        with torch.autocast(device, dtype=torch.bfloat16, enabled=settings.bf16):
            value = loss(model, batch)
        unseen.append(value.detach())
        looked = (step + 1) % settings.look_every == 0 or step + 1 == settings.steps
        if looked:
            mean = torch.stack(unseen).float().mean().item()
            unseen.clear()
            if not math.isfinite(mean):
                raise FloatingPointError(f"the loss became {mean} at step {step}")
            # Of every step: smoothed over twenty; of more than one: their mean is smooth enough.
            span = min(step + 1, 20) if settings.look_every == 1 and smooth is not None else 1
            smooth = mean if smooth is None else smooth + (mean - smooth) / span
        value.backward()  # type: ignore[no-untyped-call]
        if settings.clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        steering.step()
        if average is not None:
            average.update(model)
        if looked and progress and smooth is not None:
            progress(step + 1, settings.steps, smooth)
        # Only after a look: what a checkpoint holds is known to be finite, and no loss is left out of the next mean.
        if state and looked and time.monotonic() - written > settings.checkpoint_seconds:
            checkpoint.save(state, _state(model, steering, average, settings, step + 1, smooth))
            written = time.monotonic()
    return (average.model if average is not None and average.started else model).eval()


def _state(
    model: nn.Module,
    steering: Steering,
    average: Averaging | None,
    settings: FitSettings,
    step: int,
    smooth: float | None,
) -> dict[str, Any]:
    return {
        "model": model.state_dict(),
        "steering": steering.state_dict(),
        "average": average.state_dict() if average is not None else {},
        "settings": _identity(settings, steering, average),
        "step": step,
        "loss": smooth,
        "random": [torch.get_rng_state(), *torch.cuda.get_rng_state_all()],  # what drops out, for one, is drawn
    }


def _identity(settings: FitSettings, steering: Steering, average: Averaging | None) -> str:
    """Return what a checkpoint must be of to be gone on with."""
    return f"{settings} {steering.identity(settings.steps)} {average}"


def _resume(
    model: nn.Module, steering: Steering, average: Averaging | None, settings: FitSettings, path: Path | None
) -> tuple[int, float | None]:
    if path is None or not path.exists():
        return 0, None
    kept = checkpoint.load(path)
    if kept["settings"] != _identity(settings, steering, average):
        return 0, None
    model.load_state_dict(kept["model"])
    steering.load_state_dict(kept["steering"])
    if average is not None:
        average.load_state_dict(kept["average"])
    torch.set_rng_state(kept["random"][0])
    if len(kept["random"]) - 1 == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(kept["random"][1:])
    return int(kept["step"]), kept["loss"]
