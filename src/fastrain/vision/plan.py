"""What a training will take, said before it begins: steps, time and memory."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil

import torch

from fastrain.core.memory import peak_bytes
from fastrain.engine.batches import Batch, Batches
from fastrain.nets.image_net import ImageNet
from fastrain.vision.datasets import Dataset
from fastrain.vision.recipes import Recipe
from fastrain.vision.train import loss_of, steering_of


@dataclass(frozen=True)
class Plan:
    """What a training will be, before it begins.

    Attributes:
        recipe: as settled.
        images: to train on.
        steps: in all.
        weights: of the network.
        seconds: that it is expected to take on this device, from steps that were timed.
        bytes: of memory that the process is expected to take at its peak: what it took until now, and the images.
    """

    recipe: Recipe
    images: int
    steps: int
    weights: int
    seconds: float
    bytes: int


class Probe:
    """Some steps on a network that is thrown away, to time what training will take.

    Args:
        recipe: as settled for the data.
        data: see there.
        device: that trains.
    """

    def __init__(self, recipe: Recipe, data: Dataset, device: torch.device) -> None:
        self.recipe, self.data, self.device = recipe, data, device
        images = data.train.images
        some = min(len(images), recipe.batch)
        values, labels = (torch.from_numpy(part[:some]).to(device) for part in (images, data.train.labels))
        self.network = ImageNet(images.shape[-1], len(data.classes), recipe.net).to(device)
        per_epoch = max(1, len(images) // recipe.batch)
        self.steps = ceil(recipe.epochs * per_epoch)
        self.steering = steering_of(self.network, recipe, self.steps, per_epoch)
        still = replace(recipe.augmentation, flip=None)
        self.batch: Batch = Batches(
            values, labels, size=recipe.batch, steps=self.steps, seed=0, augmentation=still
        ).batch(0)
        self.network.train()

    def step(self) -> None:
        """Take one step."""
        self.steering.prepare(0)
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            loss = loss_of(self.network, self.batch, smoothing=self.recipe.smoothing, scale=self.recipe.loss_scale)
        loss.backward()  # type: ignore[no-untyped-call]
        self.steering.step()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def plan(self) -> Plan:
        """Return what training will be."""
        self.step()  # the first makes the kernels
        began = time.perf_counter()
        self.step()
        seconds = (time.perf_counter() - began) * self.steps * share_of_work(self.recipe)
        weights = sum(p.numel() for p in self.network.parameters())
        images = self.data.train.images
        # A step has been taken: what is to come is the images once more, with their margins.
        needed = peak_bytes() + _image_bytes(self.recipe, images.shape)
        return Plan(self.recipe, len(images), self.steps, weights, seconds, needed)


def share_of_work(recipe: Recipe) -> float:
    """Return the share of a full step's work that the recipe's smaller images leave."""
    if not recipe.edges:
        return 1.0
    spans = pairwise([*recipe.edges, (1.0, 1.0)])
    return float(sum((after[0] - now[0]) * now[1] ** 2 for now, after in spans))


def needed_bytes(recipe: Recipe, shape: tuple[int, ...]) -> int:
    """Return about how many bytes more than now training will take, before a step was tried.

    Args:
        recipe: as settled.
        shape: of the images to train on: (image, y, x, channel).
    """
    _, height, width, channels = shape
    net = recipe.net
    rows = (height - net.kernel) // net.stride + 1
    columns = (width - net.kernel) // net.stride + 1
    pixels, maps = rows * columns, rows * columns * 2 * channels * net.kernel**2
    for wide, depth, pool in zip(net.widths, net.depths, net.pools, strict=True):
        maps += wide * pixels  # of the first convolution, before it is halved
        pixels = pixels // 4 if pool != "none" else pixels
        maps += wide * pixels * (3 * depth - 1)
    # In bfloat16, with the gradients of two maps at a time beside them: two and a half bytes a value.
    return int(_image_bytes(recipe, shape) + recipe.batch * (2.5 * maps + 8 * height * width * channels))


def _image_bytes(recipe: Recipe, shape: tuple[int, ...]) -> int:
    images, height, width, channels = shape
    margin = 2 * recipe.augmentation.translate
    return images * channels * (height + margin) * (width + margin)
