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
from fastrain.engine.leaving import Leaving, Left
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
Say = Callable[[str], None]


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
    say: Say = lambda _: None,
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
        say: called with a line on a checkpoint that cannot be read.

    Raises:
        FloatingPointError: the loss is no number any more.
        Left: Ctrl-C or SIGTERM came; the state is saved.
    """
    kept = _Kept(model, steering, settings, average, state)
    start, smooth = kept.resume(say)
    written = time.monotonic()
    unseen: list[Tensor] = []
    device = next(model.parameters()).device.type
    model.train()
    with Leaving() as leaving:
        for step in range(start, settings.steps):
            batch = draw(step)
            steering.prepare(step)
            with torch.autocast(device, dtype=torch.bfloat16, enabled=settings.bf16):
                value = loss(model, batch)
            unseen.append(value.detach())
            leaves = leaving.asked is not None
            looked = (step + 1) % settings.look_every == 0 or step + 1 == settings.steps or leaves
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
            # Only after a look: what a checkpoint holds is known to be finite, and the next mean leaves out no loss.
            if looked and (leaves or time.monotonic() - written > settings.checkpoint_seconds):
                kept.save(step + 1, smooth)
                written = time.monotonic()
            if leaves:
                raise Left(leaving.asked or 0)
    return (average.model if average is not None and average.started else model).eval()


@dataclass(frozen=True)
class _Kept:
    """What a checkpoint keeps of a fit; see `fit` for the fields."""

    model: nn.Module
    steering: Steering
    settings: FitSettings
    average: Averaging | None
    path: Path | None

    @property
    def identity(self) -> str:
        """What a checkpoint must be of to be gone on with."""
        return f"{self.settings} {self.steering.identity(self.settings.steps)} {self.average}"

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.model.parameters()).device

    @property
    def random(self) -> list[Tensor]:
        """The states that draws go on from: the CPU's, and that of the GPU if the network is on one."""
        state = [torch.get_rng_state()]
        return [*state, torch.cuda.get_rng_state(self.device)] if self.device.type == "cuda" else state

    def save(self, step: int, smooth: float | None) -> None:
        """Write the state after a number of steps, if it is to be kept anywhere."""
        if self.path is None:
            return
        state = {
            "model": self.model.state_dict(),
            "steering": self.steering.state_dict(),
            "average": self.average.state_dict() if self.average is not None else {},
            "settings": self.identity,
            "step": step,
            "loss": smooth,
            "random": self.random,  # what drops out, for one, is drawn
        }
        checkpoint.save(self.path, state, keep_before=True)

    def resume(self, say: Say) -> tuple[int, float | None]:
        """Take over the last state that can be read, if there is one of this fit; return its steps and loss."""
        if self.path is None:
            return 0, None
        kept, wrong = checkpoint.latest(self.path)
        for line in wrong:
            say(f"{line}; {'training begins anew' if kept is None else 'training goes on from the one before'}.")
        if kept is None or kept["settings"] != self.identity:
            return 0, None
        self.model.load_state_dict(kept["model"])
        self.steering.load_state_dict(kept["steering"])
        if self.average is not None:
            self.average.load_state_dict(kept["average"])
        torch.set_rng_state(kept["random"][0])
        if self.device.type == "cuda" and len(kept["random"]) > 1:
            torch.cuda.set_rng_state(kept["random"][1], self.device)
        return int(kept["step"]), kept["loss"]
