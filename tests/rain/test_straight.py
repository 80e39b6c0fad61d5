"""The straight line: it finds what is there, and nothing where nothing is."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from fastrain.rain.chances import ordinal_loss
from fastrain.rain.hindcast import Reference
from fastrain.rain.inputs import CONDITIONS
from fastrain.rain.run import make_network
from fastrain.rain.smoothing import GUESSES
from fastrain.rain.straight import RIDGE, fit_straight


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


def test_the_line_found_is_where_the_likelihood_no_longer_rises():
    """Against the loss that networks are trained by: its slope, with what holds the line, is nothing there."""
    guess, _, outcome, _ = cells(0.7, -0.5)
    guess, outcome = guess[..., :200], outcome[:, :200].clone()
    outcome[:7] = -1
    known, weight = torch.rand(40, CONDITIONS) * 2 - 1, torch.rand(40) + 0.5
    network, before = make_network(2, 8), make_network(2, 8)
    fit_straight(network, guess, known, outcome, weight)
    line = network.straight
    by_map = line(known).view(40, 2, GUESSES + 1)
    logits = torch.einsum("btg,btgc->btc", by_map[..., :-1], guess) + by_map[..., -1:]
    loss = ordinal_loss(logits[..., None], outcome[..., None], weight)
    for now, then in ((line.weight, before.straight.weight), (line.bias, before.straight.bias)):
        loss = loss + RIDGE * (now - then.detach()).square().sum()
    loss.backward()
    assert max(line.weight.grad.abs().max(), line.bias.grad.abs().max()) < 1e-4


def test_a_line_that_is_kept_says_what_the_network_said_when_it_was_fitted():
    network = make_network(2, 8)
    guess, _, outcome, weight = cells(0.7, -0.5)
    known = torch.rand(40, CONDITIONS) * 2 - 1
    kept = fit_straight(network, guess, known, outcome, weight)
    maps = torch.randn(5, 2, GUESSES, 3, 4)
    with torch.no_grad():
        expected = network.line(maps, known[:5]).numpy()
    np.testing.assert_allclose(kept.logits(maps, known[:5]), expected, atol=1e-5)
    with torch.no_grad():
        network.straight.weight.add_(1.0)
    np.testing.assert_allclose(kept.logits(maps, known[:5]), expected, atol=1e-5)
    again = Reference.from_attributes(json.loads(json.dumps(Reference(np.zeros((5, 2)), 0.3, kept).as_attributes())))
    # Chances of both thresholds, each given the one below.
    conditional = 1 / (1 + np.exp(-expected.astype(float)))
    chances = again.calibrated(maps, known[:5])
    np.testing.assert_allclose(chances[:, 0], conditional[:, 0], atol=1e-6)
    np.testing.assert_allclose(chances[:, 1], conditional[:, 0] * conditional[:, 1], atol=1e-6)
    with pytest.raises(ValueError, match="no straight line"):
        Reference(np.zeros((5, 2)), 0.3).calibrated(maps, known[:5])
