"""Fitting a rain network: on what it trains, how many threads, and what its run's folder is told meanwhile."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from fastrain.core.errors import ProcessLost, RunError, SettingError, first_line
from fastrain.core.memory import give_free_memory_back
from fastrain.core.processes import local_number
from fastrain.engine.averaging import Average
from fastrain.engine.fit import FitSettings, Loss, fit
from fastrain.engine.group import ALONE, Group, Lost
from fastrain.engine.journal import Journal
from fastrain.engine.optimizers import Steering
from fastrain.engine.precision import Precision, computing, fast_precision
from fastrain.rain.new_run import PLAN, Progress, Say
from fastrain.rain.run import LOG, STATE

T = TypeVar("T")


@dataclass(frozen=True)
class Bench:
    """Where a network is fitted, and who is told.

    Attributes:
        run_path: folder of the run.
        device: that trains.
        group: of the processes that train together.
        say: called with lines.
        progress: called with steps done, steps in all, and how it goes.
        board: whether TensorBoard's event files are written too.
    """

    run_path: Path
    device: torch.device
    group: Group
    say: Say
    progress: Progress
    board: bool = False

    def gone(self, error: Exception) -> ProcessLost:
        """Return the error of a training whose other process is gone."""
        return ProcessLost(
            f"{self.run_path}: another process of this training is gone; the same command again goes on from the last "
            f"checkpoint, with as many processes or with others, unless the other one says why not "
            f"({first_line(error)})."
        )

    def precision(self) -> Precision:
        """Return what the run computes in: what its device is fast at when it is created, and the same ever after."""
        return resolved(self.run_path, "precision", lambda: fast_precision(self.device.type), self.group)

    def shared(self, samples: int) -> None:
        """See that every process gets a part of a step's samples.

        Raises:
            SettingError: there are more processes than samples.
        """
        if self.group.size > samples:
            raise SettingError(
                f"A step has {samples} samples: at most as many processes can share it, not {self.group.size}."
            )

    def fit(
        self,
        network: nn.Module,
        draw: Callable[[int], tuple[Tensor, ...]],
        loss: Loss,
        steering: Callable[[nn.Module, int], Steering],
        *,
        steps: int,
        samples: int,
        averaged: bool = True,
    ) -> nn.Module:
        """Return the fitted network, on the CPU.

        Args:
            network: to be fitted.
            draw: gives the batch of a step's number.
            loss: of the network on a batch.
            steering: gives the optimiser of a network and a number of steps.
            steps: in all.
            samples: of a step.
            averaged: whether the weights are averaged over the last steps.

        Raises:
            RunError: the loss is no number any more.
            ProcessLost: another process is gone.
        """
        give_free_memory_back()
        network = network.to(self.device)
        self.group.agree(network)
        journal = Journal(self.run_path / LOG, samples, board=self.run_path / BOARD if self.board else None)
        try:
            fitted = fit(
                network,
                lambda step: tuple(part.to(self.device, non_blocking=True) for part in draw(step)),
                loss,
                steering(network, steps),
                FitSettings(steps=steps, clip=1.0, precision=self.precision()),
                average=Average(network, max(20, steps // 8)) if averaged else None,
                state=self.run_path / STATE,
                progress=lambda done, total, loss: self.progress(done, total, journal.note(done, total, loss)),
                say=self.say,
                group=self.group,
            )
        except FloatingPointError as error:
            raise RunError(f"{self.run_path}: training went astray, {error}; try another --seed.") from None
        except Lost as error:
            raise self.gone(error) from None
        give_free_memory_back()
        return fitted.cpu()


BOARD = "board"  # folder of TensorBoard's event files


def device_of(asked: str) -> torch.device:
    """Return the device that trains: `auto` is the GPU where there is one, each process of a machine its own.

    Raises:
        SettingError: there is no such device.
    """
    if asked == "cpu" or (asked == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if asked in ("auto", "cuda") and torch.cuda.is_available():
        return torch.device("cuda", local_number() % torch.cuda.device_count())
    raise SettingError(
        f"--device {asked}: expected auto, cpu or cuda, and torch sees {torch.cuda.device_count()} GPUs."
    )


def trial(
    network: nn.Module,
    batch: tuple[Tensor, ...],
    loss: Loss,
    steering: Callable[[nn.Module, int], Steering],
    device: torch.device,
) -> Callable[[], None]:
    """Return what takes a step of training, to be timed."""
    network, batch = network.to(device).train(), tuple(part.to(device) for part in batch)
    steered = steering(network, 100)

    def step() -> None:
        steered.prepare(0)
        with computing(device):
            value = loss(network, batch)
        value.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        steered.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return step


def resolved(run_path: Path, name: str, make: Callable[[], T], group: Group = ALONE) -> T:
    """Return what was resolved when a run was created; of a new one, what is found now.

    Args:
        run_path: folder of the run.
        name: of it in the run's plan.
        make: finds it.
        group: all of it go by what its first process finds.
    """
    found: Any = None
    if group.first:
        try:
            found = json.loads((run_path / PLAN).read_text(encoding="utf-8"))[name]
        except (OSError, ValueError, LookupError, TypeError):
            found = make()
    kept: T = group.same(found)
    return kept
