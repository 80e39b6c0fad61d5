"""The speedrun: a recipe trained over some seeds, with the figures that make it comparable.

Seconds are counted by the peers' rule: from data on the device to the test images judged with the recipe's views.
What is compiled before the clock starts is told apart; CPU seconds of the whole process, decoding, compiling and all
else included, are kept too.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from fastrain.core.errors import SettingError, first_line
from fastrain.core.memory import keep_all_memory, peak_bytes
from fastrain.core.version import version
from fastrain.vision.datasets import Dataset
from fastrain.vision.recipes import Recipe
from fastrain.vision.train import Epoch, Trained, require_a_batch, train


@dataclass(frozen=True)
class Outcome:
    """One seed's figures; see `Trained`."""

    seed: int
    accuracy: float
    accuracy_views: float
    seconds: float
    cpu_seconds: float
    views_seconds: float
    compile_seconds: float


def device_of(name: str | None) -> torch.device:
    """Return the device of a name; the fastest that is there if None.

    Raises:
        SettingError: there is no such device, or torch cannot use it.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise SettingError(f"--device {name}: not to be had ({first_line(error)}).") from None
    if device.type not in ("cpu", "cuda"):
        raise SettingError(f"--device {name}: expected cpu or cuda.")
    return device


def default_recipe(device: torch.device) -> str:
    """Return the name of our recipe for a device."""
    return "cpu" if device.type == "cpu" else "gpu"


def speedrun(
    data: Dataset,
    recipe: Recipe,
    *,
    seeds: int,
    first: int = 0,
    device: torch.device,
    threads: int | None = None,
    look: bool = False,
    begin: Callable[[int], None] = lambda _: None,
    progress: Callable[[Epoch], None] = lambda _: None,
    done: Callable[[Trained, Outcome], None] = lambda *_: None,
) -> tuple[Outcome, ...]:
    """Return the figures of each seed.

    Args:
        data: see `Dataset`.
        recipe: see `Recipe`.
        seeds: how many.
        first: of them.
        device: that trains.
        threads: of a CPU; one if None, which another process on a core cannot hold up.
        look: judge the test images after every epoch too; its time is not counted.
        begin: called with each seed before it starts.
        progress: called at every epoch's end.
        done: called with each trained network and its figures.
    """
    require_a_batch(data, recipe)
    keep_all_memory()
    torch.set_num_threads(threads or 1)
    torch.backends.cudnn.benchmark = True
    outcomes = []
    for seed in range(first, first + seeds):
        begin(seed)
        trained = train(data, recipe, seed=seed, device=device, look=look, progress=progress)
        outcome = Outcome(
            seed,
            trained.accuracy,
            trained.accuracy_views,
            trained.seconds,
            trained.cpu_seconds,
            trained.views_seconds,
            trained.compile_seconds,
        )
        outcomes.append(outcome)
        done(trained, outcome)
    return tuple(outcomes)


def record_of(
    data: Dataset, name: str, recipe: Recipe, outcomes: tuple[Outcome, ...], device: torch.device
) -> dict[str, Any]:
    """Return what a record keeps: what was run, on what, and mean and spread over the seeds."""
    spent = os.times()
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "data": data.name,
        "images": [len(data.train.labels), len(data.test.labels)],
        "held_out": data.held_out,
        "recipe": name,
        "settings": asdict(recipe),
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "precision": recipe.precision_on(device),
        "commit": commit_of_checkout(),
        "versions": {"fastrain": version(), "torch": torch.__version__, "python": platform.python_version()},
        "seeds": [asdict(outcome) for outcome in outcomes],
        **{
            field: _spread([getattr(outcome, field) for outcome in outcomes])
            for field in ("accuracy", "accuracy_views", "seconds", "cpu_seconds")
        },
        "warm_up": "before the clock: compiling, see compile_seconds; all else is within each seed's time",
        "cpu_seconds_of_process": round(spent.user + spent.system, 1),
        "peak_bytes": peak_bytes(),
    }


def _spread(values: list[float]) -> dict[str, float | int | None]:
    return {
        "mean": statistics.fmean(values),
        "spread": statistics.stdev(values) if len(values) > 1 else None,
        "count": len(values),
    }


def device_name(device: torch.device) -> str:
    """Return the name of a GPU, or of the processor with its cores."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return f"{line.split(':')[1].strip()}, {os.cpu_count()} cores"
    except OSError:
        pass
    return platform.processor() or platform.machine()


def commit_of_checkout() -> str | None:
    """Return the commit of the checkout that holds this file; None where it is installed otherwise."""
    here = Path(__file__)
    said = ""
    # The first fails where a checkout lies around but does not hold this file.
    for command in (["ls-files", "--error-unmatch", here.name], ["describe", "--always", "--dirty"]):
        try:
            said = subprocess.run(
                ["git", *command], cwd=here.parent, capture_output=True, text=True, timeout=5, check=True
            ).stdout
        except (OSError, subprocess.SubprocessError):
            return None
    return said.strip()
