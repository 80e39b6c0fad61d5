"""The straight line: it finds what is there, and nothing where nothing is."""

from __future__ import annotations

import pytest
import torch

from fastrain.rain.inputs import CONDITIONS, GUESSES
from fastrain.rain.run import make_network
from fastrain.rain.straight import fit_straight


def cells(slope, intercept, seed=0):
    """Guesses, of which the first is to be believed by `slope`, and outcomes drawn from it."""
    torch.manual_seed(seed)
    guess = torch.randn(40, 2, GUESSES, 3000) * 2
    logit = slope * guess[:, :, 0] + intercept
    reached = torch.rand(logit.shape) < torch.sigmoid(logit)
    outcome = torch.where(reached[:, 0], 1 + reached[:, 1].int(), 0).to(torch.int8)
    return guess, torch.zeros(40, CONDITIONS), outcome, torch.ones(40)


@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (0.4, -1.0), (0.0, -2.0)])
def test_slope_and_intercept_are_found(slope, intercept, monkeypatch):
    monkeypatch.setattr("fastrain.rain.straight.RIDGE", 1e-4)
    network = make_network(2, 8)
    fit_straight(network, *cells(slope, intercept))
    line = network.straight.bias.detach().view(2, GUESSES + 1)
    for k in range(2):
        assert line[k].tolist() == pytest.approx([slope, *(GUESSES - 1) * [0.0], intercept], abs=0.08)


def test_guesses_that_say_nothing_are_hardly_believed_and_few_cells_leave_them_believed():
    guess, known, outcome, weight = cells(0.0, -1.0)
    network = make_network(2, 8)
    fit_straight(network, guess, known, outcome, weight)
    assert network.straight.bias.detach().view(2, GUESSES + 1)[0, :GUESSES].abs().max() < 0.1
    nowhere = torch.full_like(outcome, -1)
    network = make_network(2, 8)
    fit_straight(network, guess, known, nowhere, weight)
    assert network.straight.bias.detach().view(2, GUESSES + 1)[0].tolist() == pytest.approx(
        [*GUESSES * [1 / GUESSES], 0.0], abs=1e-3
    )
