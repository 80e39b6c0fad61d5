"""The recipes of the place task: ours, and the ancestor's own network trained by our engine on the same windows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastrain.engine.optimizers import SGD, Steering, adamw
from fastrain.nets.ancestor_net import AncestorNet
from fastrain.nets.place_net import PlaceNet
from fastrain.rain.chances import Total, itself, ordinal_loss
from fastrain.rain.inputs import CONDITIONS
from fastrain.rain.place.batches import PlaceBatch
from fastrain.rain.place.views import EDGE, REACH, Foveal, Rings, View
from fastrain.rain.place.windows import GUESSES
from fastrain.rain.radar import Radar

Shape = tuple[int, int]


@dataclass(frozen=True)
class Recipe:
    """How a place's network is made and trained.

    Attributes:
        view: gives what it sees, of a radar, the place's cell, the map's shape, and whether it is for training.
        network: gives an untrained one, of a view, periods, thresholds and width.
        loss: of the network on a batch.
        steering: gives the optimiser of a network and a number of steps.
        batch: windows.
        epochs: over the windows of the training time, of a short archive.
        most: windows seen at most, of a long one.
        averaged: whether the weights are averaged over the last steps.
    """

    view: Callable[[Radar, Shape, Shape, bool], View]
    network: Callable[[View, int, int, int], nn.Module]
    loss: Callable[..., Tensor]  # of the network, a batch, and what sums over processes: see `ordinal_loss`
    steering: Callable[[nn.Module, int], Steering]
    batch: int
    epochs: int
    most: int
    averaged: bool = True


def _foveal(radar: Radar, cell: Shape, shape: Shape, training: bool) -> Foveal:
    return Foveal(radar, cell, REACH if training else 0)


def _place_net(view: View, periods: int, thresholds: int, width: int) -> PlaceNet:
    view = cast(Foveal, view)
    return PlaceNet(
        view.channels,
        edge=EDGE,
        periods=periods,
        thresholds=thresholds,
        guesses=GUESSES,
        conditions=CONDITIONS,
        width=width,
    )


def _place_loss(model: nn.Module, batch: PlaceBatch, total: Total = itself) -> Tensor:
    x, guess, known, motion, outcome, weight = batch
    logits = model(x, guess, known, motion).flatten(0, 1)[..., None, None]
    return ordinal_loss(logits, outcome.flatten()[:, None, None], weight.repeat_interleave(len(known)), total)


def _rings(radar: Radar, cell: Shape, shape: Shape, training: bool) -> Rings:
    return Rings(radar, cell, shape)


def _ancestor_net(view: View, periods: int, thresholds: int, width: int) -> AncestorNet:
    *octants, bullseye, tripwire = cast(Rings, view).modules
    kinds = [(*module.shape[:2], 1000) for module in (*octants, bullseye)] + [(*tripwire.shape[:2], 40)]
    return AncestorNet(
        [(count, 2 * blocks, nodes) for count, blocks, nodes in kinds], periods=periods, thresholds=thresholds
    )


def _ancestor_loss(model: nn.Module, batch: PlaceBatch, total: Total = itself) -> Tensor:
    """Return the binary cross-entropy of every output for itself."""
    x, _, _, _, outcome, weight = batch
    logits = model(x).float()
    reached = (outcome[..., None] > torch.arange(logits.shape[-1])).float()
    judged = (outcome >= 0).float()[..., None] * weight[:, None, None]
    losses = F.binary_cross_entropy_with_logits(logits, reached, reduction="none")
    mean: Tensor = (losses * judged).sum() / (total(judged.sum()) * logits.shape[-1]).clamp(min=1)
    return mean


def _plain_sgd(model: nn.Module, steps: int) -> Steering:
    """Return plain SGD at one rate, as the ancestor's, whose rate is not known.

    Of 0.01, which was Keras's own, 0.1 and 1, the rate that learned most in three epochs of 9,700 windows (LOG.md).
    """
    return Steering([(SGD(model.parameters(), lr=ANCESTOR_RATE), [lambda step: 1.0])])


ANCESTOR_RATE = 1.0

RECIPES: dict[str, Recipe] = {
    "place": Recipe(
        _foveal,
        _place_net,
        _place_loss,
        lambda model, steps: adamw(model, steps, learning_rate=3e-3, weight_decay=0.05),
        batch=256,
        epochs=12,
        most=600_000,
    ),
    "ancestor": Recipe(
        _rings,
        _ancestor_net,
        _ancestor_loss,
        _plain_sgd,
        batch=512,
        epochs=12,
        most=600_000,
        averaged=False,
    ),
}
