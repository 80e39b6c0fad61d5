"""What is each trick worth? Every switch of a recipe, turned by itself, measured at small scale: accuracy and time.

The yardstick is patience: a quarter more epochs win accuracy too; a trick is worth its time only where it wins more.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastrain.core.errors import RunError, SettingError, TooShort
from fastrain.core.files import require_folder, write_whole
from fastrain.core.memory import keep_all_memory
from fastrain.engine.ablation import Gain, gain, leverage, ratios
from fastrain.engine.precision import fast_precision
from fastrain.vision.datasets import Dataset
from fastrain.vision.judge import all_alike, as_bytes, logits_of
from fastrain.vision.plan import Probe
from fastrain.vision.recipes import Recipe, SgdRates
from fastrain.vision.speedrun import commit_of_checkout, device_name
from fastrain.vision.splits import Split
from fastrain.vision.svg import Row, rows_svg
from fastrain.vision.switches import BASE, PATIENCE, SWITCHES
from fastrain.vision.train import train

RUNS, SUMMARY, TABLE, PICTURE = "runs.jsonl", "ablation.json", "ablation.md", "ablation.svg"


@dataclass(frozen=True)
class Scale:
    """How small the measurement is.

    Attributes:
        images: to train on, the same share of every class.
        tests: to judge by.
        epochs: of a run.
        batch: samples of a step.
        width: of the network, as a share of the recipe's.
    """

    images: int = 3000
    tests: int = 2000
    epochs: float = 4.0
    batch: int = 150
    width: float = 0.5


@dataclass(frozen=True)
class Worth:
    """What a switch is worth.

    Attributes:
        switch: its name.
        accuracy: change, in points.
        time: of a run over the base's.
        leverage: points for each percent of time; None where time is the same.
        beyond: points more than the same time would win by patience.
    """

    switch: str
    accuracy: Gain
    time: float
    leverage: float | None
    beyond: Gain


@dataclass(frozen=True)
class Ablation:
    """What all switches are worth.

    Attributes:
        base: accuracy of the base, a mean over the seeds.
        seconds: of the base, of processor time, a median over the seeds.
        worths: by the gain beyond patience, the best first.
        facts: what was measured, on what.
    """

    base: float
    seconds: float
    worths: tuple[Worth, ...]
    facts: dict[str, Any]


def at_scale(recipe: Recipe, scale: Scale) -> Recipe:
    """Return a recipe at the scale of the measurement."""
    widths = tuple(max(8, round(width * scale.width / 8) * 8) for width in recipe.net.widths)
    share, longer = scale.batch / recipe.batch, scale.epochs / recipe.epochs
    averages = recipe.averages and replace(recipe.averages, start=recipe.averages.start * longer)
    norm = 1 - (1 - recipe.net.norm_share) ** share
    rates = recipe.rates
    if not isinstance(rates, SgdRates):
        rates = replace(rates, filters=rates.filters * share**0.5)
    return replace(
        recipe,
        net=replace(recipe.net, widths=widths, norm_share=max(norm, 0.05)),
        epochs=scale.epochs,
        batch=scale.batch,
        rates=rates,
        stem_bias_epochs=recipe.stem_bias_epochs * longer,
        averages=averages,
        views=all_alike(recipe.views),  # its time is taken on networks that are not trained, and sure of nothing
    )


def fewer(data: Dataset, scale: Scale) -> Dataset:
    """Return a data set with fewer images, the same share of every class.

    Raises:
        TooShort: there are not as many.
        SettingError: a step takes more than are trained on.
    """
    if scale.batch > scale.images:
        raise SettingError(f"--batch {scale.batch}: a step takes no more than the images to train on, {scale.images}.")
    parts = []
    for which, split, count, option in (
        ("train", data.train, scale.images, "--images"),
        ("test", data.test, scale.tests, "--tests"),
    ):
        if count > len(split.labels):
            raise TooShort(
                f"{data.name}: {len(split.labels)} images to {which}, {count} are asked for; ask for fewer by {option}."
            )
        parts.append(_share(split, count))
    return replace(data, train=parts[0], test=parts[1])


def _share(split: Split, count: int) -> Split:
    """Return the first images of every class, by turns of the classes' shares."""
    place = np.zeros(len(split.labels))
    for label in np.unique(split.labels):
        own = np.flatnonzero(split.labels == label)
        place[own] = (np.arange(len(own)) + 0.5) / len(own)
    return split.take(np.sort(np.argsort(place, kind="stable")[:count]))


def ablate(
    data: Dataset,
    recipe: Recipe,
    folder: Path,
    *,
    switches: tuple[str, ...],
    seeds: int,
    device: torch.device,
    progress: Callable[[int, int, str], None] = lambda *_: None,
) -> Ablation:
    """Return what switches are worth, and leave table, picture and every run's figures in a folder.

    Args:
        data: see there.
        recipe: the base, at the scale of the measurement.
        folder: is made if need be; one of the same data and base is gone on with.
        switches: names in `SWITCHES`, of which those that change nothing of the base are left out; patience is always
            measured.
        seeds: of each.
        device: that trains.
        progress: called with runs done, runs in all, and a word.

    Raises:
        RunError: the folder holds a measurement of other data or another base.
    """
    keep_all_memory()
    torch.set_num_threads(1)
    runs = _Runs(folder, data, recipe, device)
    turned = {name: SWITCHES[name](recipe) for name in (PATIENCE, *switches)}
    recipes = {BASE: recipe, **{name: other for name, other in turned.items() if other != recipe}}
    todo = [(name, seed) for seed in range(seeds) for name in recipes if (name, seed) not in runs.held]
    total = len(recipes) * seeds
    for i, (name, seed) in enumerate(todo):
        progress(total - len(todo) + i, total, f"{name}, seed {seed}")
        trained = train(data, recipes[name], seed=seed, device=device)
        runs.add(name, seed, trained.accuracy_views, trained.cpu_seconds)
    found = _ablation(runs, recipes, seeds, _times(runs, recipes, data, device, progress))
    runs.write(found)
    return found


class _Runs:
    """The figures of every run, a line each, so that a killed measurement goes on."""

    def __init__(self, folder: Path, data: Dataset, recipe: Recipe, device: torch.device) -> None:
        require_folder(folder, "--to")
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.facts = json.loads(
            json.dumps(
                {
                    "data": data.name,
                    "data_identity": data.identity,
                    "images": [len(data.train.labels), len(data.test.labels)],
                    "base": asdict(recipe),
                    "device": device.type,
                    "precision": fast_precision(device.type),
                    "torch": torch.__version__,
                }
            )
        )
        self.held: dict[tuple[str, int], tuple[float, float]] = {}
        self.times: dict[str, float] = {}
        self._read()

    def _read(self) -> None:
        try:
            lines = (self.folder / RUNS).read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            self._append(self.facts)
            return
        if not lines:
            self._append(self.facts)
        for i, line in enumerate(lines):
            try:
                kept = json.loads(line)
            except ValueError:
                kept = {}  # cut off by a kill
            if i == 0 and kept != self.facts:
                raise RunError(
                    f"{self.folder}: holds a measurement of other images or another base; name another --to."
                )
            if "switch" in kept:
                self.held[kept["switch"], kept["seed"]] = kept["accuracy"], kept["cpu_seconds"]
            elif "time" in kept:
                self.times[kept["of"]] = kept["time"]

    def add(self, switch: str, seed: int, accuracy: float, seconds: float) -> None:
        """Keep a run's figures."""
        self.held[switch, seed] = accuracy, seconds
        self._append({"switch": switch, "seed": seed, "accuracy": accuracy, "cpu_seconds": round(seconds, 3)})

    def add_time(self, switch: str, time: float) -> None:
        """Keep the time of a switch's run over the base's."""
        self.times[switch] = time
        self._append({"of": switch, "time": time})

    def _append(self, line: dict[str, Any]) -> None:
        path = self.folder / RUNS
        whole = not path.exists() or path.read_bytes()[-1:] in (b"\n", b"")
        with path.open("a", encoding="utf-8") as file:
            file.write(("" if whole else "\n") + json.dumps(line) + "\n")

    def write(self, found: Ablation) -> None:
        """Write summary, table and picture."""
        # What it ran on, beside what was asked: going on elsewhere is no other ablation.
        on = {"commit": commit_of_checkout(), "processor": device_name(torch.device(self.facts["device"]))}
        write_whole(self.folder / SUMMARY, json.dumps({**on, **asdict(found)}, indent=1) + "\n")
        write_whole(self.folder / TABLE, table_of(found))
        write_whole(self.folder / PICTURE, picture_of(found))


_JUDGED = 500  # images that a judgement is timed on
_PHASES = (1 / 8, 3 / 8, 5 / 8, 7 / 8)  # of a run, whose steps stand for all: tricks begin and end within it
_ROUNDS = 7


def _times(
    runs: _Runs,
    recipes: dict[str, Recipe],
    data: Dataset,
    device: torch.device,
    progress: Callable[[int, int, str], None],
) -> dict[str, float]:
    """Return the time of a run of each switch over the base's: steps and the last judgement, each taken in turns."""

    def now() -> float:
        if device.type != "cuda":
            return time.process_time()
        torch.cuda.synchronize(device)
        return time.perf_counter()

    base = recipes[BASE]
    steps, judge = _work(base, data, device)
    # What a base's steps and judgement take tells how much each of the ratios weighs.
    own = ratios([steps, judge], rounds=_ROUNDS, clock=now)[1]
    all_steps = ceil(base.epochs * (len(data.train.labels) // base.batch))
    all_judged = own * len(_PHASES) * len(data.test.labels) / min(_JUDGED, len(data.test.labels))  # in steps
    for i, (name, recipe) in enumerate(recipes.items()):
        if name in runs.times:
            continue
        progress(i, len(recipes), f"time of {name}")
        a_step = a_judgement = 1.0  # exactly, where a switch does not touch them
        other = _work(recipe, data, device)
        if replace(recipe, epochs=base.epochs, views=base.views, skipping=base.skipping) != base:
            a_step = ratios([steps, other[0]], rounds=_ROUNDS, clock=now)[1]
        if (recipe.net, recipe.views) != (base.net, base.views):
            a_judgement = ratios([judge, other[1]], rounds=_ROUNDS, clock=now)[1]
        longer = recipe.epochs / base.epochs * base.batch / recipe.batch
        runs.add_time(name, (all_steps * a_step * longer + all_judged * a_judgement) / (all_steps + all_judged))
    return runs.times


def _work(recipe: Recipe, data: Dataset, device: torch.device) -> tuple[Callable[[], object], Callable[[], object]]:
    """Return some steps of a run by a recipe, and the judgement of some images by it."""
    probe = Probe(recipe, data, device)
    images = as_bytes(data.test.images[:_JUDGED], device)
    mean = torch.full((images.shape[-1],), 0.5, device=device)

    def steps() -> None:
        for phase in _PHASES:
            probe.step(int(phase * probe.steps))

    def judge() -> None:
        probe.network.eval()
        logits_of(probe.network, images, mean, mean, recipe.views)

    return steps, judge


def _ablation(runs: _Runs, recipes: dict[str, Recipe], seeds: int, times: dict[str, float]) -> Ablation:
    def scores(name: str) -> list[float]:
        return [100 * runs.held[name, seed][0] for seed in range(seeds)]

    base, patient = scores(BASE), scores(PATIENCE)
    worths = []
    for name in recipes:
        if name == BASE:
            continue
        own, more = scores(name), times[name] - 1
        # What the same time would have won, seed by seed: more or fewer epochs at the rate of a quarter more.
        share = more / (times[PATIENCE] - 1)
        instead = [b + share * (p - b) for b, p in zip(base, patient, strict=True)]
        won = gain(own, base)
        worths.append(Worth(name, won, times[name], leverage(won.mean, more), gain(own, instead)))
    worths.sort(key=lambda worth: -worth.beyond.mean)
    seconds = statistics.median(runs.held[BASE, seed][1] for seed in range(seeds))
    return Ablation(statistics.fmean(base), seconds, tuple(worths), {**runs.facts, "seeds": seeds})


def table_of(found: Ablation) -> str:
    """Return the table, as Markdown."""
    rows = "\n".join(
        f"| {w.switch} | {_signed(w.accuracy)} | {round(100 * (w.time - 1)):+d} % | "
        f"{'–' if w.leverage is None else format(w.leverage, '.2f')} | {_beyond(w)} |"
        for w in found.worths
    )
    images, seeds = found.facts["images"], found.facts["seeds"]
    intervals = "± is half an interval of 95 % over the seeds; in bold where it leaves out zero.\n\n"
    return (
        f"Base: {found.base:.2f} % in {found.seconds:.1f} CPU s, {seeds} seed{'s' if seeds > 1 else ''}; {images[0]} "
        f"images of {found.facts['data']} to train on, {images[1]} to judge by.\n\n"
        f"{intervals if seeds > 1 else ''}"
        "| switch | accuracy, points | time | points for a percent of time | beyond patience |\n|---|---|---|---|---|\n"
        f"{rows}\n"
    )


def _signed(won: Gain) -> str:
    said = f"{won.mean:+.2f}" + ("" if won.half is None else f" ± {won.half:.2f}")
    return f"**{said}**" if won.clear else said


def _beyond(worth: Worth) -> str:
    return "0 (the yardstick)" if worth.switch == PATIENCE else _signed(worth.beyond)


def _colour(worth: Worth) -> str:
    """Return green for what clearly beats patience, red for what clearly loses to it, grey for what cannot be told."""
    if not worth.beyond.clear:
        return "#87929a"
    return "#2b8a3e" if worth.beyond.mean > 0 else "#b5522b"


def picture_of(found: Ablation) -> str:
    """Return the picture: what each switch wins beyond patience, with its interval, and what it takes of time."""
    rows = [
        Row(w.switch, w.beyond.mean, w.beyond.half or 0.0, _colour(w), f"{round(100 * (w.time - 1)):+d} %")
        for w in found.worths
    ]
    return rows_svg(
        "What each trick is worth: green beats patience, red loses to it, grey cannot be told",
        "points of accuracy beyond what the same time would win by more or fewer epochs",
        rows,
        note="time",
    )
