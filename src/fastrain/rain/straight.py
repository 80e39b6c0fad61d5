"""The straight line through the first guesses, fitted before anything else: logistic regression, exact and at once.

A network that starts from it has only growth, decay and doubt left to learn; and one whose truth is shuffled starts
near climatology, as it should.
"""

from __future__ import annotations

import copy

import torch
from jaxtyping import Float, Int8
from torch import Tensor

from fastrain.nets.place_net import PlaceNet
from fastrain.nets.rain_net import RainNet
from fastrain.rain.chances import ordinal_loss

CELLS = 2048  # drawn from each map
ROUNDS = 40
RIDGE = 0.02  # nats a cell; holds the line near the one it begins from where a night of cells says little (LOG.md)


def fit_straight(
    network: RainNet | PlaceNet,
    guess: Float[Tensor, "map threshold guess cell"],
    known: Float[Tensor, "map condition"],
    outcome: Int8[Tensor, "map cell"],
    weight: Float[Tensor, map],
) -> None:
    """Set a network's straight line to the one of the highest likelihood, held near the one it has.

    Args:
        network: whose `straight` is set.
        guess: logits of the conditional chances that the guesses say.
        known: conditions of each map.
        outcome: thresholds reached, −1 without truth.
        weight: of each map.
    """
    maps, thresholds, guesses, _ = guess.shape
    line = torch.nn.Linear(known.shape[1], thresholds * (guesses + 1))
    line.load_state_dict(network.straight.state_dict())
    believed = copy.deepcopy(line).requires_grad_(False)
    solver = torch.optim.LBFGS(line.parameters(), max_iter=ROUNDS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        by_map = line(known).view(maps, thresholds, guesses + 1)
        logits = torch.einsum("btg,btgc->btc", by_map[..., :-1], guess) + by_map[..., -1:]
        value = ordinal_loss(logits[..., None], outcome[..., None], weight)
        value = value + RIDGE * (
            (line.weight - believed.weight).square().sum() + (line.bias - believed.bias).square().sum()
        )
        value.backward()  # type: ignore[no-untyped-call]
        return value

    solver.step(loss)  # type: ignore[no-untyped-call]
    network.straight.load_state_dict(line.state_dict())
