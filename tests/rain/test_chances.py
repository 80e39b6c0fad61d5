"""Chances: what must hold by construction, and calibration."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastrain.rain.chances import Calibration, isotonic, ordinal_loss, pooled_temperature


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.3, 5.0), st.booleans())
def test_chances_fall_as_thresholds_rise_whatever_the_network_says(seed, temperature, with_knots):
    draw = np.random.default_rng(seed)
    logits = draw.normal(0, 8, (2, 4, 5, 5))
    knots = None
    if with_knots:
        one = (tuple(np.linspace(0, 1, 5)), tuple(np.sort(draw.random(5))))
        knots = ((one, None, one, one), (one, one, None, one))
    chances = Calibration(temperature, knots).chances(logits)
    assert ((chances >= 0) & (chances <= 1)).all()
    assert (np.diff(chances, axis=1) <= 0).all()


def test_the_loss_is_the_likelihood_of_how_many_thresholds_were_reached():
    logits = torch.tensor([[[[0.3, -1.0, 2.0, 0.0]], [[0.7, 0.1, -0.5, 0.0]]]])
    outcome = torch.tensor([[[0, 1, 2, -1]]], dtype=torch.int8)
    p, q = torch.sigmoid(logits[0, 0, 0]), torch.sigmoid(logits[0, 1, 0])
    # None reached: 1 − p. One: p (1 − q). Both: p q. No truth: left out.
    by_hand = -(torch.log(1 - p[0]) + torch.log(p[1] * (1 - q[1])) + torch.log(p[2] * q[2])) / 3
    assert float(ordinal_loss(logits, outcome, torch.ones(1))) == pytest.approx(float(by_hand), rel=1e-5)


def test_windows_weigh_what_they_are_told():
    logits, outcome = torch.randn(2, 2, 3, 3), torch.randint(0, 3, (2, 3, 3)).to(torch.int8)
    a, b = (ordinal_loss(logits[i : i + 1], outcome[i : i + 1], torch.ones(1)) for i in (0, 1))
    both = ordinal_loss(logits, outcome, torch.tensor([3.0, 1.0]))
    assert float(both) == pytest.approx(float((3 * a + b) / 4), rel=1e-5)


def made(scale, seed=0, windows=6):
    """Windows whose true conditional logits are the given ones divided by `scale`."""
    draw = np.random.default_rng(seed)
    logits = [draw.normal(0, 3, (2, 2, 40, 40)) for _ in range(windows)]
    outcomes = []
    for x in logits:
        reached = draw.random(x.shape) < 1 / (1 + np.exp(-x / scale))
        outcomes.append(np.where(reached[:, 0], 1 + reached[:, 1], 0).astype(np.int8))
    return logits, outcomes


@pytest.mark.parametrize("scale", [0.7, 1.0, 2.2])
def test_the_pooled_temperature_takes_back_too_much_confidence(scale):
    temperature, loss = pooled_temperature(*made(scale))
    assert temperature == pytest.approx(scale, rel=0.08)
    assert loss < pooled_temperature(*made(scale))[1] + 1e-9


def test_isotonic_calibration_makes_crooked_chances_honest_and_keeps_their_order():
    draw = np.random.default_rng(3)
    logits = [draw.normal(0, 2, (1, 1, 60, 60)) for _ in range(8)]
    outcomes = [(draw.random(x.shape) < 1 / (1 + np.exp(-x)) ** 3)[:, 0].astype(np.int8) for x in logits]
    calibration = isotonic(logits, outcomes)
    assert calibration.knots[0][0] is not None
    fresh = draw.normal(0, 2, (1, 1, 200, 200))
    said, true = calibration.chances(fresh.copy()), 1 / (1 + np.exp(-fresh)) ** 3
    assert np.abs(said - true).mean() < 0.02
    order = np.argsort(fresh.ravel())
    assert (np.diff(said.ravel()[order]) >= -1e-12).all()


def test_isotonic_leaves_alone_what_has_too_few_cases():
    logits = [np.zeros((1, 2, 10, 10))]
    assert isotonic(logits, [np.zeros((1, 10, 10), np.int8)]).knots == ((None, None),)


def test_a_calibration_comes_back_from_its_attributes():
    import json

    for calibration in (Calibration(1.3), isotonic(*made(1.5))):
        assert Calibration.from_attributes(json.loads(json.dumps(calibration.as_attributes()))) == calibration
