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


@pytest.mark.parametrize(
    ("frequencies", "share"),
    [
        ([0.7] * 8, 1.0),
        ([0.9, 0.1] * 4, 0.0),
        ([0.75, 0.65, 0.25, 0.85, 0.45, 0.75, 0.35, 0.7], None),
    ],
)
def test_isotonic_is_believed_as_far_as_it_holds_in_parts_of_the_time_it_was_not_fitted_to(frequencies, share):
    # All is said to be as likely as not, so a regression says how often it happened; one window a part of the time.
    happened = np.array(frequencies)
    outcomes = [(np.arange(400) < f * 400).reshape(1, 20, 20).astype(np.int8) for f in frequencies]
    shares = np.linspace(0, 1, 5)
    others = (happened.sum() - happened) / 7
    said = shares[:, None] * others + (1 - shares[:, None]) * 0.5
    lost = -(happened * np.log(said) + (1 - happened) * np.log(1 - said)).sum(axis=1)
    best = shares[lost.argmin()]
    assert 0 < best < 1 if share is None else best == share
    calibration = isotonic([np.zeros((1, 1, 20, 20))] * 8, outcomes)
    expected = best * happened.mean() + (1 - best) * 0.5
    assert calibration.chances(np.zeros((1, 1, 1, 1))).item() == pytest.approx(expected, abs=1e-9)
    assert (calibration.knots[0][0] is None) == (best == 0)


def test_isotonic_does_not_learn_the_weather_of_a_few_days():
    # Honest chances but for the days: each has more or less of everything than was said, the next will have its own.
    draw = np.random.default_rng(11)
    logits = [draw.normal(0, 2, (1, 1, 60, 60)) for _ in range(8)]
    days = [1.2, 0.9, -0.4, 1.1, -0.9, 0.8, 1.3, -0.2]
    outcomes = [
        (draw.random(x.shape) < 1 / (1 + np.exp(-x - day)))[:, 0].astype(np.int8)
        for x, day in zip(logits, days, strict=True)
    ]
    calibration = isotonic(logits, outcomes)
    said = calibration.chances(np.zeros((1, 1, 1, 1))).item()
    seen = np.mean([1 / (1 + np.exp(-day)) for day in days])
    assert 0.5 <= said < 0.5 + 0.9 * (seen - 0.5)


def test_isotonic_needs_no_more_cases_of_a_part_than_there_are():
    # All rain came in one part of the time: what is left without it is fewer cells than a regression has points.
    draw = np.random.default_rng(5)
    logits = [draw.normal(0, 2, (1, 1, 60, 60)), *(np.zeros((1, 1, 60, 60)) for _ in range(7))]
    outcomes = [(draw.random((1, 60, 60)) < 0.5).astype(np.int8)]
    outcomes += [np.where(np.arange(3600).reshape(1, 60, 60) < 5, 1, -1).astype(np.int8) for _ in range(7)]
    chance = isotonic(logits, outcomes).chances(logits[0])
    assert np.isfinite(chance).all() and ((chance >= 0) & (chance <= 1)).all()


def test_isotonic_leaves_alone_what_has_too_few_cases():
    logits = [np.zeros((1, 2, 10, 10))]
    assert isotonic(logits, [np.zeros((1, 10, 10), np.int8)]).knots == ((None, None),)


def test_a_calibration_comes_back_from_its_attributes():
    import json

    for calibration in (Calibration(1.3), isotonic(*made(1.5))):
        assert Calibration.from_attributes(json.loads(json.dumps(calibration.as_attributes()))) == calibration
