"""Pictures of three classes: noise around a colour each."""

from __future__ import annotations

import numpy as np
from PIL import Image

COLOURS = {"blue": (40, 60, 200), "green": (40, 190, 70), "red": (210, 50, 40)}


def draw(colour, seed, edge=16, mode="RGB"):
    """A picture of a class: noise around its colour."""
    rng = np.random.default_rng(seed)
    pixels = np.clip(rng.normal(COLOURS[colour], 60, (edge, edge, 3)), 0, 255).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


def folder_of(path, counts=(30, 20, 12), **more):
    for label, (colour, count) in enumerate(zip(sorted(COLOURS), counts, strict=True)):
        (path / colour).mkdir(parents=True)
        for i in range(count):
            draw(colour, 1000 * label + i, **more).save(path / colour / f"{i:03d}.png")
    return path
