"""The straight line through the first guesses, fitted before anything else: logistic regression, exact and at once.

A network that starts from it has only growth, decay and doubt left to learn; and one whose truth is shuffled starts
near climatology, as it should. As it was fitted it is a baseline, too: smoothed advection, calibrated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int8
from numpy import ndarray
from torch import Tensor, nn

from fastrain.nets.place_net import PlaceNet
from fastrain.nets.rain_net import RainNet

CELLS = 2048  # drawn from each map
ROUNDS = 20  # of Newton's method, at most
SMALLEST_STEP = 2**-10  # of one of those
ENOUGH = 1e-7  # nats a cell: what gains less is the end
RIDGE = 0.02  # nats a cell; holds the line near the one it begins from where a night of cells says little (LOG.md)


@dataclass(frozen=True)
class StraightLine:
    """A straight line as it was fitted, which a network that it begins from moves away from.

    Attributes:
        slopes: (threshold, guess and offset, condition and constant) of each guess's weight, and of the offset.
    """

    slopes: Float[ndarray, "threshold told condition"]

    @classmethod
    def of(cls, line: nn.Linear, thresholds: int) -> StraightLine:
        """Return what a network's `straight` is at present."""
        held = torch.cat([line.weight, line.bias[:, None]], dim=1).detach().double().cpu()
        return cls(held.view(thresholds, -1, held.shape[1]).numpy().copy())

    def logits(
        self, guess: Float[Tensor, "period threshold guess *cells"], known: Float[Tensor, "period condition"]
    ) -> Float[ndarray, "period threshold *cells"]:
        """Return the logits of the conditional chances.

        Args:
            guess: logits that the first guesses say.
            known: conditions of each period.
        """
        conditions = np.concatenate([known.double().numpy(), np.ones((len(known), 1))], axis=1)
        weights = torch.from_numpy(np.einsum("tgk,pk->ptg", self.slopes, conditions)).float()
        line = torch.einsum("ptg,ptg...->pt...", weights[..., :-1], guess.float())
        offset = weights[..., -1].view(*line.shape[:2], *(1,) * (line.dim() - 2))
        return np.asarray((line + offset).numpy())


def fit_straight(
    network: RainNet | PlaceNet,
    guess: Float[Tensor, "map threshold guess cell"],
    known: Float[Tensor, "map condition"],
    outcome: Int8[Tensor, "map cell"],
    weight: Float[Tensor, map],
) -> StraightLine:
    """Set a network's straight line to the fitted one and return that; the arguments are those of `fit_line`."""
    return fit_line(network.straight, guess, known, outcome, weight)


def fit_line(
    line: nn.Linear,
    guess: Float[Tensor, "map threshold guess cell"],
    known: Float[Tensor, "map condition"],
    outcome: Int8[Tensor, "map cell"],
    weight: Float[Tensor, map],
) -> StraightLine:
    """Set a straight line to the one of the highest likelihood, held near the one it is, and return that.

    Args:
        line: see `fastrain.nets.straight_line`.
        guess: logits of the conditional chances that the guesses say.
        known: conditions of each map.
        outcome: thresholds reached, −1 without truth.
        weight: of each map.
    """
    maps, thresholds, guesses, _ = guess.shape
    conditions = torch.cat([known, torch.ones(maps, 1)], dim=1).double()  # (map, condition and offset)
    believed = torch.cat([line.weight, line.bias[:, None]], dim=1).detach().double()
    believed = believed.view(thresholds, guesses + 1, conditions.shape[1])
    cells = float(((outcome >= 0) * weight[:, None]).sum().clamp(min=1))
    found = believed.clone()
    for t in range(thresholds):
        # Each conditional chance is judged only where the threshold below was reached, so each is fitted by itself.
        judged = ((outcome >= t) * weight[:, None] / cells).float()
        told = F.pad(guess[:, t], (0, 0, 0, 1), value=1.0)  # (map, guess and offset, cell)
        found[t] = _newton(told, conditions, (outcome > t).float(), judged, believed[t])
    with torch.no_grad():
        line.weight.copy_(found[..., :-1].flatten(0, 1))
        line.bias.copy_(found[..., -1].flatten())
    return StraightLine.of(line, thresholds)


def _newton(
    told: Float[Tensor, "map guess cell"],
    conditions: Float[Tensor, "map condition"],
    event: Float[Tensor, "map cell"],
    judged: Float[Tensor, "map cell"],
    believed: Float[Tensor, "guess condition"],
) -> Float[Tensor, "guess condition"]:
    """Return the weights of the least loss; a step is halved until the loss falls."""

    def loss(weights: Tensor) -> tuple[float, Tensor]:
        logits = torch.einsum("mg,mgc->mc", (conditions @ weights.T).float(), told)
        losses = F.binary_cross_entropy_with_logits(logits, event, reduction="none")
        return float((losses * judged).sum(dtype=torch.float64) + RIDGE * (weights - believed).square().sum()), logits

    weights, eye = believed, torch.eye(believed.numel(), dtype=torch.float64)
    least, logits = loss(weights)
    for _ in range(ROUNDS):
        chance = torch.sigmoid(logits)
        by_map = torch.einsum("mgc,mc->mg", told, (chance - event) * judged).double()
        slope = torch.einsum("mg,mk->gk", by_map, conditions) + 2 * RIDGE * (weights - believed)
        # Of each map the guesses' products, and those of what is known of it: the curvature is made of the two.
        pairs = torch.einsum("mgc,mhc->mgh", told * (chance * (1 - chance) * judged)[:, None], told).double()
        curve = torch.einsum("mgh,mk,ml->gkhl", pairs, conditions, conditions).reshape(eye.shape) + 2 * RIDGE * eye
        step = torch.linalg.solve(curve, slope.flatten()).view_as(weights)
        size = 1.0
        while (tried := loss(weights - size * step))[0] > least and size > SMALLEST_STEP:
            size /= 2
        gained = least - tried[0]
        if gained <= 0:
            break
        weights, (least, logits) = weights - size * step, tried
        if gained < ENOUGH:
            break
    return weights
