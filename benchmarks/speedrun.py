"""What a step of a recipe costs beside one of airbench94 as its peers compute it, taken in turns, and so all of a run.

    python benchmarks/speedrun.py DATA [--recipe cpu] [--rounds 12] [--to records/speedrun_cost.json]

CPU milliseconds an image, one thread, medians and the least, at each part of the run: image sizes, the stem's bias
trained, the first group too, squares mixed in. The peers' way is torch's convolutions, norms and GELU; both recipes are
also taken with ours (where the processor has what they need, else both ways are torch's). Judging, whitening and
averages are left out.
Accuracy is another matter: `fastrain speedrun DATA --recipe NAME --seeds 3` makes the records that hold it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from math import ceil
from pathlib import Path

import torch
from machine import machine
from ways import WAYS, Way, going

from fastrain.core.memory import keep_all_memory
from fastrain.engine.batches import normalised
from fastrain.engine.precision import computing, fast_precision
from fastrain.nets.image_net import ImageNet
from fastrain.vision.datasets import Dataset, open_dataset
from fastrain.vision.recipes import Recipe, recipe_of
from fastrain.vision.steering import settled_from, steering_of, stem_settled_from
from fastrain.vision.train import batches_of, loss_of


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--recipe", default="cpu")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--to", type=Path)
    asked = parser.parse_args()
    keep_all_memory()
    torch.set_num_threads(1)
    data = open_dataset(asked.data)
    names = ("airbench94", asked.recipe)
    taken = {(name, way): _Steps(data, recipe_of(name), way) for name in names for way in WAYS}
    for _ in range(asked.rounds + 1):
        for steps in taken.values():
            steps.take()
    record = {**machine(), "recipe": asked.recipe, "rounds": asked.rounds}
    # A rented machine is fast and slow by turns, for seconds or minutes: the least is of it at its fastest.
    for said, of in (("median", statistics.median), ("least", min)):
        whole = {key: steps.whole(of) for key, steps in taken.items()}
        record[said] = {
            "milliseconds_an_image": {f"{name}, {way}": steps.each(of) for (name, way), steps in taken.items()},
            "cpu_seconds_of_a_run": {f"{name}, {way}": seconds for (name, way), seconds in whole.items()},
            "ratio": round(whole[asked.recipe, "ours"] / whole["airbench94", "torch"], 3),
            "ratio_both_by_torch": round(whole[asked.recipe, "torch"] / whole["airbench94", "torch"], 3),
        }
    print(json.dumps(record, indent=1))
    if asked.to:
        asked.to.write_text(json.dumps(record, indent=1) + "\n")


class _Steps:
    """Steps of one recipe at each part of its run: while the stem's bias is trained and after, at each image size."""

    def __init__(self, data: Dataset, recipe: Recipe, way: Way) -> None:
        torch.manual_seed(0)
        self.way = way
        values, labels = torch.from_numpy(data.train.images), torch.from_numpy(data.train.labels)
        self.recipe, self.per_epoch = recipe, len(labels) // recipe.batch
        self.steps = ceil(recipe.epochs * self.per_epoch)
        self.network = ImageNet(3, len(data.classes), recipe.net).train()
        self.batches = batches_of(recipe, values, labels, self.steps, seed=0)
        self.network.stem.fit(
            normalised(values[:5000], self.batches.mean, self.batches.spread), recipe.net.whitening_floor
        )
        self.steering = steering_of(self.network, recipe, self.steps, self.per_epoch, fast_precision("cpu"))
        stem_until = stem_settled_from(recipe, self.per_epoch)
        mixed_from = ceil(recipe.augmentation.cutmix_from * self.steps) if recipe.augmentation.cutmix else 0
        starts = [ceil(share * self.steps) for share, _ in recipe.edges]
        cuts = sorted({0, min(stem_until, self.steps), settled_from(recipe, self.steps), mixed_from, *starts})
        self.parts = [(a, b) for a, b in zip(cuts, [*cuts[1:], self.steps], strict=True) if b > a]
        self.spent: list[list[float]] = [[] for _ in self.parts]

    def take(self) -> None:
        """Take a step in each part of the run."""
        with going(self.way):
            for spent, (start, _) in zip(self.spent, self.parts, strict=True):
                began = time.process_time()
                batch = self.batches.batch(start)
                self.steering.prepare(start)
                with computing("cpu"):
                    loss = loss_of(self.network, batch, smoothing=self.recipe.smoothing)
                loss.backward()
                self.steering.step()
                spent.append((time.process_time() - began) / self.recipe.batch)

    def each(self, of: Callable[[list[float]], float]) -> list[float]:
        """Return CPU milliseconds an image in each part, the first round left out."""
        return [round(1e3 * of(spent[1:]), 3) for spent in self.spent]

    def whole(self, of: Callable[[list[float]], float]) -> float:
        """Return CPU seconds of all the run's steps."""
        shares = [(b - a) * self.recipe.batch for a, b in self.parts]
        return round(sum(n * m / 1e3 for n, m in zip(shares, self.each(of), strict=True)), 1)


if __name__ == "__main__":
    main()
