"""An image run: a folder that holds a trained network and all that telling images apart with it needs."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy import ndarray

from fastrain.core.errors import RunError, TooBig, first_line
from fastrain.core.files import occupied, require_own, write_whole
from fastrain.core.memory import available_bytes, keep_all_memory, peak_bytes
from fastrain.core.shapes import Float, UInt8
from fastrain.core.version import version
from fastrain.engine import checkpoint
from fastrain.engine.precision import Precision
from fastrain.engine.threads import choose_threads
from fastrain.nets.image_net import ImageNet, NetSettings
from fastrain.vision.datasets import Dataset
from fastrain.vision.judge import Judgement, as_bytes, chances_at, judged, logits_of
from fastrain.vision.plan import Plan, Probe, needed_bytes
from fastrain.vision.recipes import Recipe
from fastrain.vision.splits import Split
from fastrain.vision.train import Epoch, Trained, told_plainly, train

IMAGE_RUN_VERSION = 1
FACTS, WEIGHTS, STATE, PLAN, CURVE = "run.json", "weights.pt", "training.pt", "training.json", "curve.jsonl"

Say = Callable[[str], None]


@dataclass(frozen=True)
class ImageRun:
    """A trained image network.

    Attributes:
        path: of the folder.
        facts: what run.json holds.
    """

    path: Path
    facts: dict[str, Any]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return tuple(self.facts["classes"])

    @property
    def shape(self) -> tuple[int, int, int]:
        """Rows, columns and channels of its images."""
        height, width, channels = self.facts["shape"]
        return int(height), int(width), int(channels)

    @cached_property
    def network(self) -> ImageNet:
        """The network, ready to be asked."""
        return load_network(self.path, self.shape[2], len(self.classes), self.facts["recipe"]["net"])

    def chances(self, images: UInt8[ndarray, "image y x channel"]) -> Float[ndarray, "image class"]:
        """Return the calibrated chances of the classes.

        Raises:
            RunError: the images are of another shape than those it was trained on.
        """
        if images.shape[1:] != self.shape:
            raise RunError(f"{self.path}: images of {images.shape[1:]}, it was trained on {self.shape}.")
        facts = self.facts
        out = logits_of(
            self.network,
            as_bytes(images, torch.device("cpu")),
            torch.tensor(facts["mean"]),
            torch.tensor(facts["spread"]),
            facts["recipe"]["views"],
        )
        return chances_at(out.numpy(), facts["temperature"])


def open_image_run(path: str | Path) -> ImageRun:
    """Open an image run.

    Raises:
        RunError: there is none at the path, it is unfinished, or newer than this program.
    """
    path = Path(path)
    try:
        facts = json.loads((path / FACTS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        if (path / PLAN).exists():
            raise RunError(
                f"{path}: training is not finished; the same `fastrain vision train` goes on with it."
            ) from None
        raise RunError(f"{path}: no run is here; make one with `fastrain vision train FOLDER --run {path}`.") from None
    except (OSError, ValueError) as error:
        raise RunError(f"{path / FACTS}: cannot be read ({first_line(error)}).") from None
    held = facts.get("fastrain_image_run") if isinstance(facts, dict) else None
    if held != IMAGE_RUN_VERSION:
        kind = "no run of images" if held is None else f"an image run of version {held}"
        if isinstance(facts, dict) and "fastrain_run" in facts:
            kind = "a run of the rain task"
        raise RunError(f"{path / FACTS}: {kind}; this command reads image runs of version {IMAGE_RUN_VERSION}.")
    needed = {"classes", "shape", "mean", "spread", "temperature", "recipe", "judged"}
    if missing := sorted(needed - set(facts)):
        raise RunError(f"{path / FACTS}: lacks {', '.join(missing)}; it is damaged, train again.")
    return ImageRun(path, facts)


def load_network(path: Path, channels: int, classes: int, net: dict[str, Any]) -> ImageNet:
    """Return the network of a run's folder.

    Raises:
        RunError: its weights cannot be read, or are of another network.
    """
    try:
        network = ImageNet(channels, classes, net_of(net))
        network.load_state_dict(checkpoint.load(path / WEIGHTS))
    except checkpoint.UNREADABLE as error:
        raise RunError(f"{path}: its weights cannot be read ({first_line(error)}); train again.") from None
    return network.eval()


def net_of(kept: dict[str, Any]) -> NetSettings:
    """Return the settings that a run's facts hold."""
    plain: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in kept.items()}
    return NetSettings(**plain)


def train_run(
    data: Dataset,
    path: Path,
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device,
    threads: int | None = None,
    say: Say = lambda _: None,
    planned: Callable[[Plan], None] = lambda _: None,
    progress: Callable[[Epoch], None] = lambda _: None,
    ended: Callable[[Trained], None] = lambda _: None,
    report: Callable[[ImageRun, Judgement, Float[ndarray, "image class"]], None] = lambda *_: None,
) -> tuple[ImageRun, Judgement, Float[ndarray, "image class"]]:
    """Train a network on a data set, keep it as a run, and return it with how right it is on the test images.

    Args:
        data: see there.
        path: of the run's folder; a killed run of the same data and settings goes on.
        recipe: as settled for the data.
        seed: of everything that is drawn.
        device: that trains.
        threads: of a CPU; chosen by measurement if None, and kept with the run.
        say: takes lines for the user.
        planned: called with the plan before training begins.
        progress: called at every epoch's end.
        ended: called with what was trained.
        report: called with what is returned, before the run counts as finished.

    Returns:
        The run, how right it is, and the chances of the test images.

    Raises:
        RunError: the folder holds a finished run, one of other data or settings, or a checkpoint that cannot be read;
            or the loss is no number any more.
        TooBig: it will not fit into memory.
    """
    require_own(path, FACTS, (PLAN, STATE))
    with occupied(path):
        keep_all_memory()
        threads, precision, curve = _prepare(path, data, recipe, seed, threads, device, say, planned)
        torch.set_num_threads(threads)
        before = curve[-1] if curve else None
        with (path / CURVE).open("a", encoding="utf-8") as file:

            def keep(epoch: Epoch) -> None:
                # Of a killed run: what an epoch took is added to what was spent before.
                if before is not None and epoch.epoch > before.epoch:
                    epoch = replace(
                        epoch,
                        seconds=epoch.seconds + before.seconds,
                        cpu_seconds=epoch.cpu_seconds + before.cpu_seconds,
                    )
                if not curve or epoch.epoch > curve[-1].epoch:
                    curve.append(epoch)
                    file.write(json.dumps(asdict(epoch)) + "\n")
                    file.flush()
                progress(epoch)

            trained = train(
                data,
                recipe,
                seed=seed,
                device=device,
                precision=precision,
                look=True,
                state=path / STATE,
                progress=keep,
            )
        ended(trained)
        with told_plainly(data.name):
            out = _test_logits(trained, data.test, recipe, device)
        found = judged(out, data.test.labels)
        chances = chances_at(out, found.temperature)
        run = ImageRun(path, _facts(data, recipe, seed, threads, precision, device, trained, found, curve))
        # run.json comes last, so that a run that has it is whole; a kill before goes on from the checkpoint.
        checkpoint.save(path / WEIGHTS, {name: value.cpu() for name, value in trained.network.state_dict().items()})
        report(run, found, chances)
        write_whole(path / FACTS, json.dumps(run.facts, indent=1) + "\n")
        checkpoint.remove(path / STATE)
        for leftover in (PLAN, CURVE):
            (path / leftover).unlink(missing_ok=True)
        return run, found, chances


def _test_logits(trained: Trained, test: Split, recipe: Recipe, device: torch.device) -> Float[ndarray, "image class"]:
    images = as_bytes(test.images, device)
    out = logits_of(trained.network, images, trained.mean, trained.spread, recipe.views)
    return np.asarray(out.cpu().numpy())


def _prepare(
    path: Path,
    data: Dataset,
    recipe: Recipe,
    seed: int,
    threads: int | None,
    device: torch.device,
    say: Say,
    planned: Callable[[Plan], None],
) -> tuple[int, Precision, list[Epoch]]:
    """Make the run's folder, or see that it holds the same run, unfinished.

    Returns:
        Its threads, what it computes in, and how far it got.
    """
    path.mkdir(parents=True, exist_ok=True)
    asked = {"data": data.identity, "recipe": asdict(recipe), "seed": seed, "device": device.type}
    marker = path / PLAN
    kept = _read(marker)
    step = _begun(path, say)
    begun = step > 0
    if begun and kept is None:
        raise RunError(f"{path}: holds a checkpoint, and its {PLAN} cannot be read; {_ANEW}.")
    resolved = {"threads": None, "precision": None}  # when the run was created, and kept with it
    if kept is not None and begun and {**kept, **resolved} != {**_plain(asked), **resolved}:
        raise RunError(
            f"{path}: holds an unfinished run of other images or settings; name another --run, or remove it."
        )
    precision = recipe.precision_on(device)
    if kept is not None and begun:
        if "precision" not in kept:
            raise RunError(f"{path}: holds an unfinished run of another version of this program; {_ANEW}.")
        precision = kept["precision"]
    needed = needed_bytes(recipe, data.train.images.shape, precision)
    free = available_bytes() if device.type == "cpu" else int(torch.cuda.mem_get_info(device)[0])
    if needed > free:
        raise TooBig(
            f"{data.name}: training needs about {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; "
            "smaller images (--edge) need less."
        )
    with told_plainly(data.name):
        probe = Probe(recipe, data, device, precision)
        if kept is not None and begun:
            threads = int(kept["threads"])
        elif threads is None:
            threads = choose_threads(probe.step) if device.type == "cpu" else 1
        torch.set_num_threads(threads)
        plan = probe.plan(step)
        del probe
    if begun:
        say(f"{path}: goes on from step {step} of {plan.steps}, with {threads} thread{'s' if threads > 1 else ''}.")
    planned(plan)
    write_whole(marker, json.dumps({**_plain(asked), "threads": threads, "precision": precision}, indent=1) + "\n")
    if not begun:
        (path / CURVE).unlink(missing_ok=True)
        return threads, precision, []
    per_epoch = max(1, len(data.train.labels) // recipe.batch)
    curve = _curve(path / CURVE, step / per_epoch)
    write_whole(path / CURVE, "".join(json.dumps(asdict(epoch)) + "\n" for epoch in curve))
    return threads, precision, curve


_ANEW = "remove the folder to begin anew, or name another --run"


def _begun(path: Path, say: Say) -> int:
    """Return the step that a killed run's last readable checkpoint is of, 0 where there is none."""
    kept, wrong = checkpoint.latest(path / STATE)
    if kept is None and wrong:
        raise RunError(f"{wrong[0]}; {_ANEW}.")
    for line in wrong:
        say(f"{line}; training goes on from the one before.")
    try:
        return 0 if kept is None else int(kept["step"])
    except checkpoint.UNREADABLE as error:
        raise RunError(f"{path / STATE}: the checkpoint cannot be read ({first_line(error)}); {_ANEW}.") from None


def _read(path: Path) -> dict[str, Any] | None:
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return kept if isinstance(kept, dict) and "threads" in kept else None


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _curve(path: Path, until: float) -> list[Epoch]:
    """Return the epochs that a killed run had done at its checkpoint."""
    epochs = []
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            epochs.append(Epoch(**json.loads(line)))
    except (OSError, ValueError, TypeError):
        pass  # a line that was cut off by the kill ends it
    return [epoch for epoch in epochs if epoch.epoch <= until + 1e-9]


def _facts(
    data: Dataset,
    recipe: Recipe,
    seed: int,
    threads: int,
    precision: Precision,
    device: torch.device,
    trained: Trained,
    found: Judgement,
    curve: list[Epoch],
) -> dict[str, Any]:
    counts = [np.bincount(s.labels, minlength=len(data.classes)).tolist() for s in (data.train, data.test)]
    return {
        "fastrain_image_run": IMAGE_RUN_VERSION,
        "fastrain": version(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "data": data.name,
        "data_identity": data.identity,
        "held_out": data.held_out,
        "left_out": [list(pair) for pair in data.broken],
        "doubles": asdict(data.doubles),
        "classes": list(data.classes),
        "images": {"train": counts[0], "test": counts[1]},
        "shape": list(data.train.images.shape[1:]),
        "mean": trained.mean.cpu().tolist(),
        "spread": trained.spread.cpu().tolist(),
        "recipe": asdict(recipe),
        "seed": seed,
        "device": device.type,
        "threads": threads,
        "precision": precision,
        "weights": sum(p.numel() for p in trained.network.parameters()),
        "temperature": found.temperature,
        "judged": {
            "accuracy": found.accuracy,
            "balanced_accuracy": found.balanced_accuracy,
            "recall": [None if np.isnan(v) else float(v) for v in found.recall],
            "precision": [None if np.isnan(v) else float(v) for v in found.precision],
            "log_loss": found.log_loss,
            "calibration_error": found.calibration_error,
            "confusion": found.confusion.tolist(),
        },
        "epochs": [asdict(epoch) for epoch in curve],
        "seconds": curve[-1].seconds if curve else trained.seconds,
        "cpu_seconds": curve[-1].cpu_seconds if curve else trained.cpu_seconds,
        "peak_bytes": peak_bytes(),
    }
