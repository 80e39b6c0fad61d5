"""Images whose class anybody could tell, and recipes small enough to learn it in a second."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from fastrain.vision.datasets import Dataset
from fastrain.vision.splits import Split

CPU = torch.device("cpu")


def blobs(count, seed, edge=16, classes=4):
    """Images whose class is the quarter that holds a bright spot."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, classes, count)
    images = draw.integers(0, 90, (count, edge, edge, 3)).astype(np.uint8)
    half = edge // 2
    for image, label in zip(images, labels, strict=True):
        row, column = half * (label // 2) + draw.integers(1, half - 3), half * (label % 2) + draw.integers(1, half - 3)
        image[row : row + 3, column : column + 3] = 255
    return Split(images, labels)


def dataset():
    return Dataset("blobs", ("a", "b", "c", "d"), blobs(600, 1), blobs(200, 2))


def small(recipe):
    net = replace(recipe.net, widths=tuple(w // 4 for w in recipe.net.widths))
    augmentation = replace(recipe.augmentation, flip=None, translate=1)
    return replace(recipe, net=net, batch=50, epochs=min(recipe.epochs, 8.0), augmentation=augmentation, views="one")
