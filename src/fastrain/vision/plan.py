"""What a training will take, said before it begins: steps, time and memory."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from statistics import median

import torch

from fastrain.core.memory import peak_bytes
from fastrain.engine.precision import Precision, computing
from fastrain.nets.image_net import ImageNet
from fastrain.nets.whitening import PATCHES
from fastrain.vision.datasets import Dataset
from fastrain.vision.judge import LOOKS, all_alike, judged_at_once, logits_of
from fastrain.vision.recipes import Recipe
from fastrain.vision.steering import average_of, settled_from, steering_of
from fastrain.vision.train import batches_of, for_whitening, loss_of, whiten

TIMED, LONGEST = 3, 1.0  # steps that are timed, and seconds after which no other one is
PIECES = 1.04  # a training takes this much more than its first steps: freed memory lies in pieces that do not fit


@dataclass(frozen=True)
class Plan:
    """What a training will be, before it begins.

    Attributes:
        recipe: as settled.
        images: to train on.
        steps: in all.
        weights: of the network.
        seconds: that the steps which are left are expected to take on this device, judging after each epoch among it,
            from what was timed.
        bytes: of memory that training is expected to take at its peak: what it took until now, and the images; on a
            GPU of its memory.
        done: steps that a run which was killed has taken.
    """

    recipe: Recipe
    images: int
    steps: int
    weights: int
    seconds: float
    bytes: int
    done: int = 0


class Probe:
    """Some steps on a network that is thrown away, to time what training will take.

    Args:
        recipe: as settled for the data.
        data: see there.
        device: that trains.
        precision: that it computes in; as the recipe has it if None.
    """

    def __init__(self, recipe: Recipe, data: Dataset, device: torch.device, precision: Precision | None = None) -> None:
        self.recipe, self.data, self.device = recipe, data, device
        self.precision: Precision = precision or recipe.precision_on(device)
        images = data.train.images
        some = min(len(images), recipe.batch)
        values, labels = (torch.from_numpy(part[:some]).to(device) for part in (images, data.train.labels))
        self.network = ImageNet(images.shape[-1], len(data.classes), recipe.net).to(device)
        per_epoch = max(1, len(images) // recipe.batch)
        self.steps = ceil(recipe.epochs * per_epoch)
        self.steering = steering_of(self.network, recipe, self.steps, per_epoch, self.precision)
        self.average = average_of(self.network, recipe.averages, self.steps, per_epoch)
        self.batches = batches_of(recipe, values, labels, self.steps, seed=0)

    def step(self, at: int | None = None) -> None:
        """Take a step as the run would take it, its last if not told which."""
        at = self.steps - 1 if at is None else at
        self.network.train()
        batch = self.batches.batch(at)
        self.steering.prepare(at)
        with computing(self.device, self.precision):
            loss = loss_of(self.network, batch, smoothing=self.recipe.smoothing, scale=self.recipe.loss_scale)
        loss.backward()  # type: ignore[no-untyped-call]
        self.steering.step()
        if self.average is not None:
            self.average.steps = at
            self.average.update(self.network)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def plan(self, done: int = 0) -> Plan:
        """Return what training will be, or what is left of it after some steps."""
        settled = settled_from(self.recipe, self.steps)
        at = max(0, settled - 1)
        self.step(at)  # the first makes the kernels
        before = self._timed(at)
        after = self._timed(self.steps - 1) if settled < self.steps else 0.0
        seconds = (settled * before + (self.steps - settled) * after) * share_of_work(self.recipe)
        seconds += self._around()
        weights = sum(p.numel() for p in self.network.parameters())
        images = self.data.train.images
        # All has been done once: what is to come is the images once more, with their margins, and memory in pieces.
        taken = torch.cuda.max_memory_reserved(self.device) if self.device.type == "cuda" else peak_bytes()
        needed = int(PIECES * taken) + _image_bytes(self.recipe, images.shape)
        return Plan(self.recipe, len(images), self.steps, weights, seconds * (1 - done / self.steps), needed, done)

    def _timed(self, at: int) -> float:
        """Return the seconds of a step: the middle one of three, or, of a slow one, of one."""
        taken: list[float] = []
        while len(taken) < TIMED and sum(taken) < LONGEST:
            began = time.perf_counter()
            self.step(at)
            taken.append(time.perf_counter() - began)
        return median(taken)

    def _around(self) -> float:
        """Return the seconds of what is not a step: whitening, and judging after each epoch and in the end."""
        began = time.perf_counter()
        images, test = self.data.train.images, self.data.test.images
        whiten(self.network, self.recipe, torch.from_numpy(images), self.batches)
        whitened = time.perf_counter()
        some = test[: judged_at_once(test.shape[1:3], self.device)]
        views = all_alike(self.recipe.views)  # what was not trained is sure of nothing
        logits_of(self.network, torch.from_numpy(some).to(self.device), self.batches.mean, self.batches.spread, views)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        look = (time.perf_counter() - whitened) / LOOKS[views] * len(test) / len(some)
        # One look after each epoch; in the end with the views, once for the figures and once for the report.
        return whitened - began + look * (ceil(self.recipe.epochs) + 1 + 2 * LOOKS[self.recipe.views])


def share_of_work(recipe: Recipe) -> float:
    """Return the share of a full step's work that the recipe's smaller images leave."""
    if not recipe.edges:
        return 1.0
    spans = pairwise([*recipe.edges, (1.0, 1.0)])
    return float(sum((after[0] - now[0]) * now[1] ** 2 for now, after in spans))


def needed_bytes(recipe: Recipe, shape: tuple[int, ...], precision: Precision) -> int:
    """Return about how many bytes more than now training will take, before a step was tried.

    Args:
        recipe: as settled.
        shape: of the images to train on: (image, y, x, channel).
        precision: that the network computes in.
    """
    _, height, width, channels = shape
    net = recipe.net
    rows = (height - net.kernel) // net.stride + 1
    columns = (width - net.kernel) // net.stride + 1
    directions = min(net.directions or channels * net.kernel**2, channels * net.kernel**2)
    pixels, maps = rows * columns, rows * columns * 2 * directions
    for wide, depth, pool in zip(net.widths, net.depths, net.pools, strict=True):
        maps += wide * pixels  # of the first convolution, before it is halved
        pixels = pixels // 4 if pool != "none" else pixels
        maps += wide * pixels * (3 * depth - 1)
    # Of a value, with the gradients of two maps at a time beside them; in float32 measured.
    a_value = 5.5 if precision == "float32" else 2.5
    step = recipe.batch * (a_value * maps + 8 * height * width * channels)
    # Whitening comes before: its sample, as it is made, and some patches of it, as they are and centred.
    whitening = 4 * (3 * for_whitening(shape) * height * width * channels + 3 * PATCHES)
    return int(_image_bytes(recipe, shape) + max(step, whitening))


def _image_bytes(recipe: Recipe, shape: tuple[int, ...]) -> int:
    images, height, width, channels = shape
    margin = 2 * recipe.augmentation.translate
    return images * channels * (height + margin) * (width + margin)
