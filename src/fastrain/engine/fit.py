"""Fitting a network: a number of steps, each of whose batches is told by its number, and by what a checkpoint keeps.

So a run that was killed goes on from its last checkpoint to the same weights as one that was not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from fastrain.core.errors import first_line
from fastrain.engine import checkpoint
from fastrain.engine.averaging import Averaging
from fastrain.engine.group import ALONE, Group, Lost, lost
from fastrain.engine.leaving import Interrupted, Leaving, Left
from fastrain.engine.optimizers import Steering
from fastrain.engine.precision import Precision, computing
from fastrain.engine.scaling import Scaling


@dataclass(frozen=True)
class FitSettings:
    """How a network is fitted.

    Attributes:
        steps: of the optimisers.
        clip: largest norm of a step's gradient.
        precision: that the network computes in; its weights are float32 always.
        checkpoint_seconds: at least between two checkpoints, and more where writing one takes over a hundredth of that;
            0 writes one at every look.
        look_every: steps between two looks at the loss; a look waits for the device.
    """

    steps: int
    clip: float | None = None
    precision: Precision = "float32"
    checkpoint_seconds: float = 1.0
    look_every: int = 1


@runtime_checkable
class Keeps(Protocol):
    """What has a state that a checkpoint is to keep."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""


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
    drawn: Keeps | None = None,
    state: Path | None = None,
    progress: Progress | None = None,
    say: Say = lambda _: None,
    group: Group = ALONE,
) -> nn.Module:
    """Return the fitted network, or the average of its weights where one is kept, in evaluation mode.

    Args:
        model: to be fitted, in place.
        draw: gives the batch of a step's number, the same one whenever it is asked, or, where what it draws from has a
            state, whenever that is the same.
        loss: of the model on a batch; in a group, what this process's part adds to that of the whole batch.
        steering: the optimisers and their rates.
        settings: see there.
        average: of the weights.
        drawn: what `draw` draws from, where that may have a state; its text tells it from others.
        state: file of the checkpoint; a run of the same settings goes on from it.
        progress: called with steps done, steps in all, and the smoothed loss, at every look.
        say: called with a line on a checkpoint that cannot be read or written.
        group: of processes that train together; the first one alone keeps checkpoints and tells of progress.

    Raises:
        FloatingPointError: the loss is no number any more.
        Left: Ctrl-C or SIGTERM came; the state is saved.
        Lost: another process of the group is gone.
    """
    try:
        return _fit(model, draw, loss, steering, settings, average, drawn, state, progress, say, group)
    except RuntimeError as error:
        if group.size > 1 and lost(error):
            raise Lost(first_line(error)) from error
        raise


def _fit(
    model: nn.Module,
    draw: Draw,
    loss: Loss,
    steering: Steering,
    settings: FitSettings,
    average: Averaging | None,
    drawn: Keeps | None,
    state: Path | None,
    progress: Progress | None,
    say: Say,
    group: Group,
) -> nn.Module:
    kept = _Kept(model, steering, settings, average, drawn, state if group.first else None, say)
    start, smooth = kept.resume(group)
    unseen: list[Tensor] = []
    device = next(model.parameters()).device.type
    model.train()
    with Leaving() as leaving:
        for step in range(start, settings.steps):
            try:
                batch = draw(step)
            except Interrupted:
                if not unseen:  # else what the last steps came to is not known to be finite
                    kept.save(step, smooth)
                raise Left(leaving.asked or 0) from None
            steering.prepare(step)
            with computing(device, settings.precision):
                value = loss(model, batch)
            unseen.append(value.detach())
            ends = step + 1 == settings.steps
            looked = (step + 1) % settings.look_every == 0 or ends or (leaving.asked is not None and group.size == 1)
            leaves = 0
            if looked:
                leaves = group.most(leaving.asked or 0)  # all leave at the same step
                mean = group.total(torch.stack(unseen).float().mean()).item()
                unseen.clear()
                if not math.isfinite(mean):
                    raise FloatingPointError(f"the loss became {mean} at step {step}")
                # Of every step: smoothed over twenty; of more than one: their mean is smooth enough.
                span = min(step + 1, 20) if settings.look_every == 1 and smooth is not None else 1
                smooth = mean if smooth is None else smooth + (mean - smooth) / span
            kept.scaling.scaled(value).backward()  # type: ignore[no-untyped-call]
            group.sum_gradients(model)
            if kept.scaling.sound(model):
                if settings.clip is not None:
                    nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
                steering.step()
            else:
                steering.forget()
            if average is not None:
                average.update(model)
            if looked and progress and smooth is not None and group.first:
                progress(step + 1, settings.steps, smooth)
            # Only after a look: what a checkpoint holds is known to be finite, and the next mean leaves out no loss.
            if looked and (leaves or ends or kept.due):
                kept.save(step + 1, smooth)
            if leaves:
                raise Left(leaves)
    return (average.model if average is not None and average.started else model).eval()


COST = 0.01  # of the time, at most, that goes into checkpoints


class _Kept:
    """What a checkpoint keeps of a fit; see `fit` for the arguments."""

    def __init__(
        self,
        model: nn.Module,
        steering: Steering,
        settings: FitSettings,
        average: Averaging | None,
        drawn: Keeps | None,
        path: Path | None,
        say: Say,
    ) -> None:
        self.model, self.steering, self.settings, self.average = model, steering, settings, average
        self.drawn = drawn
        self.path, self.say = path, say
        self.scaling = Scaling(settings.precision)
        self._written, self._took, self._failed = time.monotonic(), 0.0, False

    @property
    def due(self) -> bool:
        """Whether it is time for another checkpoint."""
        least = self.settings.checkpoint_seconds
        return least == 0 or time.monotonic() - self._written > max(least, self._took / COST)

    @property
    def identity(self) -> str:
        """What a checkpoint must be of to be gone on with."""
        drawn = f" {self.drawn}" if self.drawn is not None and self.drawn.state_dict() else ""
        return f"{self.settings} {self.steering.identity(self.settings.steps)} {self.average}{drawn}"

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
        """Write the state after a number of steps, if it is to be kept anywhere; a full disk ends nothing."""
        if self.path is None:
            return
        began = time.monotonic()
        state = {
            "model": self.model.state_dict(),
            "steering": self.steering.state_dict(),
            "average": self.average.state_dict() if self.average is not None else {},
            "drawn": self.drawn.state_dict() if self.drawn is not None else {},
            "scaling": self.scaling.state_dict(),
            "settings": self.identity,
            "step": step,
            "loss": smooth,
            "random": self.random,  # what drops out, for one, is drawn
        }
        try:
            checkpoint.save(self.path, state, keep_before=True)
            self._failed = False
        except OSError as error:
            if not self._failed:  # once is enough, until one is written again
                self.say(
                    f"{self.path}: the checkpoint cannot be written ({error.strerror or error}); the last one stands, "
                    "and training goes on."
                )
            self._failed = True
        self._written = time.monotonic()
        self._took = self._written - began

    def resume(self, group: Group) -> tuple[int, float | None]:
        """Take over the last state that can be read, if there is one of this fit; return its steps and loss."""
        kept: dict[str, Any] | None = None
        if self.path is not None:
            kept, wrong = checkpoint.latest(self.path)
            for line in wrong:
                ends = "training begins anew" if kept is None else "training goes on from the one before"
                self.say(f"{line}; {ends}.")
            if kept is not None and kept["settings"] != self.identity:
                kept = None
        kept = group.same(kept)  # only the first of them sees the folder
        if kept is None:
            return 0, None
        self.model.load_state_dict(kept["model"])
        self.steering.load_state_dict(kept["steering"])
        if self.average is not None:
            self.average.load_state_dict(kept["average"])
        if self.drawn is not None:
            self.drawn.load_state_dict(kept.get("drawn", {}))  # checkpoints of before had none
        self.scaling.load_state_dict(kept.get("scaling", {}))
        torch.set_rng_state(kept["random"][0])
        if self.device.type == "cuda" and len(kept["random"]) > 1:
            torch.cuda.set_rng_state(kept["random"][1], self.device)
        return int(kept["step"]), kept["loss"]
