"""Images and their classes, as whichever layout gives them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy import ndarray

from fastrain.core.shapes import Int, UInt8
from fastrain.vision.images import Decoded

Picture = tuple[str, bytes | Path]  # its name, and its contents or the file that holds them


@dataclass(frozen=True)
class Split:
    """Images and their classes.

    Attributes:
        images: (image, y, x, channel) bytes.
        labels: the class of each.
        names: of each, where they have one.
    """

    images: UInt8[ndarray, "image y x channel"]
    labels: Int[ndarray, image]
    names: tuple[str, ...] = ()

    def take(self, places: Int[ndarray, chosen]) -> Split:
        """Return some of the images."""
        names = tuple(self.names[i] for i in places) if self.names else ()
        return Split(self.images[places], self.labels[places], names)


@dataclass(frozen=True)
class Parts:
    """What a layout gives: both splits, or one that a test part has yet to be taken from."""

    classes: tuple[str, ...]
    train: Split
    test: Split | None
    broken: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()  # on what was passed over


def split_of(found: Decoded, rows: list[Picture], labels: list[int], broken: list[tuple[str, str]]) -> Split:
    """Return the pictures that could be read with their labels, and add those that could not to a list."""
    broken += found.broken
    return Split(found.images, np.array(labels, np.int64)[found.kept], tuple(rows[i][0] for i in found.kept))
