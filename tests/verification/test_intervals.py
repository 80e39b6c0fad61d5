"""Intervals of skill, against what is known of the numbers they are made from."""

from __future__ import annotations

import numpy as np
import pytest

from fastrain.verification.intervals import skill_interval


def errors(issues, ratio, spread, seed=0, length=1):
    """Return squared errors of two forecasters, the one `ratio` times the other but for noise that lasts."""
    draw = np.random.default_rng(seed)
    others = np.repeat(draw.gamma(4, 1, (-(-issues // length), 2, 3)), length, axis=0)[:issues]
    noise = np.repeat(draw.normal(0, spread, (-(-issues // length), 2, 3)), length, axis=0)[:issues]
    return ratio * others * (1 + noise), others


def test_it_holds_the_truth_as_often_as_it_says():
    inside = []
    for seed in range(60):
        squared, others = errors(480, 0.8, 0.5, seed, length=6)
        low, high = skill_interval(squared, others, 12)
        inside.append(((low < 0.2) & (high > 0.2)).mean())
    assert 0.8 < np.mean(inside) < 0.97  # 90 % is promised; so many blocks make it a little narrow


def test_neighbours_that_are_alike_make_it_wider():
    squared, others = errors(240, 0.8, 0.5, length=12)
    narrow, wide = (skill_interval(squared, others, block) for block in (1, 24))
    assert (wide[1] - wide[0]).mean() > 1.8 * (narrow[1] - narrow[0]).mean()


def test_without_noise_it_is_a_point_and_it_is_the_same_each_time():
    squared, others = errors(50, 0.7, 0.0)
    low, high = skill_interval(squared, others, 5)
    assert low == pytest.approx(0.3) and high == pytest.approx(0.3)
    squared, others = errors(50, 0.7, 0.3)
    np.testing.assert_array_equal(skill_interval(squared, others, 5), skill_interval(squared, others, 5))


def test_too_short_a_time_has_none():
    low, high = skill_interval(*errors(24, 0.8, 0.1), 5)
    assert np.isnan(low).all() and np.isnan(high).all()


def test_seldom_events_that_some_resamples_miss_have_none_and_warn_of_nothing():
    squared, others = errors(200, 0.8, 0.1)
    others[:, 0, 0] = 0.0
    squared[:, 1, 1], others[:, 1, 1] = 0.0, 0.0
    squared[150, 1, 1] = others[150, 1, 1] = 1.0
    low, high = skill_interval(squared, others, 10)
    assert np.isnan(low[[0, 1], [0, 1]]).all() and np.isnan(high[[0, 1], [0, 1]]).all()
    assert np.isfinite(low[0, 1]) and low[0, 1] < high[0, 1]
