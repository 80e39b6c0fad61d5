"""What a trained network says of images, and how right it is: logits over views, honest chances, and their scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy import ndarray
from torch import Tensor, nn

from fastrain.core.shapes import Float, Int, UInt8
from fastrain.engine.batches import normalised
from fastrain.engine.precision import computing
from fastrain.nets.plain import forecasting

Views = Literal["one", "mirrored", "mirrored and moved", "moved where unsure"]

AT_ONCE = {"cpu": 2**18, "cuda": 2**20}  # pixels that are judged together: 256, a thousand images of 32×32
UNSURE = 1.1  # lead of an image's likeliest class, in logits, below which it is looked at moved too (LOG.md)
# At an image, for its views; where only what is unsure is looked at moved: a fifth of the images (LOG.md).
LOOKS: dict[Views, int] = {"one": 1, "mirrored": 2, "mirrored and moved": 6, "moved where unsure": 3}
BINS = 15  # of chances, in which the error of calibration is taken


@torch.no_grad()
def logits(network: nn.Module, x: Float[Tensor, "batch channel y x"], views: Views) -> Float[Tensor, "batch class"]:
    """Return the logits of images, averaged over their views: as they are, mirrored, moved by a pixel to two corners.

    Where only what is unsure is looked at moved, an image and its mirror speak for all views if its class leads by far.
    Source: cifar10-airbench.
    """
    network.eval()
    with computing(x.device):
        if views != "moved where unsure":
            return over_views(network, x, views)
        out = over_views(network, x, "mirrored")
        first, second = out.topk(2, dim=1).values.unbind(dim=1)
        unsure = torch.nonzero(first - second < UNSURE).flatten()
        if len(unsure):
            out[unsure] = 0.5 * (out[unsure] + _moved(network, x[unsure]))
        return out


def all_alike(views: Views) -> Views:
    """Return the views that make the same of every image, whatever is said of it."""
    return "mirrored and moved" if views == "moved where unsure" else views


def over_views(network: nn.Module, x: Float[Tensor, "batch channel y x"], views: Views) -> Float[Tensor, "batch class"]:
    """Return the logits of images, averaged over all of their views, at the precision that is set outside."""
    if views == "one":
        return cast(Tensor, network(x)).float()
    out = _mirrored(network, x)
    return out if views == "mirrored" else 0.5 * (out + _moved(network, x))


def _moved(network: nn.Module, x: Tensor) -> Tensor:
    height, width = x.shape[-2:]
    wide = F.pad(x, (1, 1, 1, 1), "reflect")
    moved = [_mirrored(network, wide[..., d : d + height, d : d + width]) for d in (0, 2)]
    return 0.5 * (moved[0] + moved[1])


def _mirrored(network: nn.Module, x: Tensor) -> Tensor:
    return 0.5 * cast(Tensor, network(x)).float() + 0.5 * cast(Tensor, network(x.flip(-1))).float()


def logits_of(
    network: nn.Module,
    images: UInt8[Tensor, "image y x channel"],
    mean: Float[Tensor, channel],
    spread: Float[Tensor, channel],
    views: Views,
) -> Float[Tensor, "image class"]:
    """Return the logits of images that lie on the network's device as bytes."""
    cells = images.shape[1] * images.shape[2]
    step = judged_at_once(images.shape[1:3], images.device)
    with forecasting(len(images) * cells // 8):  # some hundreds of images win back what a few leads of rain do
        return torch.cat(
            [
                logits(network, normalised(images[start : start + step], mean, spread), views)
                for start in range(0, len(images), step)
            ]
        )


def judged_at_once(shape: tuple[int, ...], device: torch.device) -> int:
    """Return how many images of some rows and columns are judged together: few, as more would only take memory."""
    return max(1, AT_ONCE[device.type] // (shape[0] * shape[1]))


def temperature_of(logits: Float[ndarray, "image class"], labels: Int[ndarray, image]) -> float:
    """Return the one number that, dividing the logits, makes the chances of the true classes most likely.

    Above one it takes confidence back; between 1/20 and 20. Of n images a share of 1/(n + 2) is taken to be of
    other classes: where every one is told right, nothing else would keep the chances from certainty.
    Source: Guo et al. (2017), arXiv:1706.04599; Platt (1999) for the share.
    """
    held_back = 1 / (len(labels) + 2)

    def loss(log: float) -> float:
        chances = np.log(np.clip(chances_at(logits, float(np.exp(log))), 1e-12, 1))
        true = chances[np.arange(len(labels)), labels]
        others = (chances.sum(axis=1) - true) / max(1, logits.shape[1] - 1)
        return float(-((1 - held_back) * true + held_back * others).mean())

    # The loss has one minimum in the temperature's logarithm: a golden section closes in on it.
    low, high = np.log(0.05), np.log(20.0)
    ratio = (np.sqrt(5) - 1) / 2
    a, b = high - ratio * (high - low), low + ratio * (high - low)
    at_a, at_b = loss(a), loss(b)
    for _ in range(40):
        if at_a < at_b:
            high, b, at_b = b, a, at_a
            a = high - ratio * (high - low)
            at_a = loss(a)
        else:
            low, a, at_a = a, b, at_b
            b = low + ratio * (high - low)
            at_b = loss(b)
    return float(np.exp((low + high) / 2))


def chances_at(logits: Float[ndarray, "image class"], temperature: float) -> Float[ndarray, "image class"]:
    """Return the chances of the classes."""
    scaled = np.asarray(logits, np.float64) / temperature
    raised = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def log_loss(chances: Float[ndarray, "image class"], labels: Int[ndarray, image]) -> float:
    """Return the mean of minus the logarithm of the true class's chance."""
    return float(-np.log(np.clip(chances[np.arange(len(labels)), labels], 1e-12, 1)).mean())


def calibration_error(chances: Float[ndarray, "image class"], labels: Int[ndarray, image]) -> float:
    """Return how far the likeliest class's chance is from the share of times that it is right, over bins of chances.

    Source: Naeini et al. (2015), "expected calibration error", with 15 bins of equal width.
    """
    chance, right = chances.max(axis=1), chances.argmax(axis=1) == labels
    place = np.minimum((chance * BINS).astype(int), BINS - 1)
    apart = np.abs(np.bincount(place, chance - right, BINS))
    return float(apart.sum() / len(labels))


@dataclass(frozen=True)
class Judgement:
    """How right a network is on images it was not trained on.

    Attributes:
        confusion: how many images of a class (row) were taken for which (column).
        temperature: set on all of these images.
        log_loss: of the chances; each half judged at the temperature of the other.
        calibration_error: likewise.
    """

    confusion: Int[ndarray, "true found"]
    temperature: float
    log_loss: float
    calibration_error: float

    @property
    def accuracy(self) -> float:
        """Share of the images that are told right."""
        return float(np.trace(self.confusion) / self.confusion.sum())

    @property
    def recall(self) -> Float[ndarray, true]:
        """Share of each class's images that are told right; NaN where there is none."""
        with np.errstate(invalid="ignore"):
            return np.asarray(np.diag(self.confusion) / self.confusion.sum(axis=1))

    @property
    def precision(self) -> Float[ndarray, found]:
        """Share of the images taken for each class that are of it; NaN where there is none."""
        with np.errstate(invalid="ignore"):
            return np.asarray(np.diag(self.confusion) / self.confusion.sum(axis=0))

    @property
    def balanced_accuracy(self) -> float:
        """Mean of the classes' recalls: of classes that are rare as much as of the common ones."""
        return float(np.nanmean(self.recall))


def judged(logits: Float[ndarray, "image class"], labels: Int[ndarray, image]) -> Judgement:
    """Return how right logits are, and the temperature that makes honest chances of them.

    The scores of the chances are of a temperature that was set on the other half of the images, so that none is judged
    by what it set itself.
    """
    count = logits.shape[1]
    found = logits.argmax(axis=1)
    confusion = np.bincount(labels * count + found, minlength=count * count).reshape(count, count)
    halves = np.arange(len(labels)) % 2
    chances = np.empty(logits.shape)
    for half in (0, 1):
        own, other = halves == half, halves != half
        if other.any():
            chances[own] = chances_at(logits[own], temperature_of(logits[other], labels[other]))
        else:
            chances[own] = chances_at(logits[own], 1.0)
    return Judgement(
        confusion, temperature_of(logits, labels), log_loss(chances, labels), calibration_error(chances, labels)
    )


def as_bytes(images: UInt8[ndarray, "image y x channel"], device: torch.device) -> UInt8[Tensor, "image y x channel"]:
    """Return images on a device."""
    return torch.from_numpy(np.ascontiguousarray(images)).to(device)
