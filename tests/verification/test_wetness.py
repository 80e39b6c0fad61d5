"""Scores apart by how wet the map is: each window counts where it belongs, once, and all together as before."""

from __future__ import annotations

import numpy as np
import pytest

from fastrain.verification.changes import Changes
from fastrain.verification.fss import Fractions
from fastrain.verification.tally import SUMS, Tally
from fastrain.verification.wetness import KINDS, ByWetness, wet_now

SHAPE = (2, 2)


def windows(shares, seed=3):
    """Yield windows of 20×20 cells, of which at issue a share reaches the lowest threshold."""
    draw = np.random.default_rng(seed)
    for wet in shares:
        now = np.zeros((2, 400), bool)
        now[0, : round(400 * wet)] = True
        judged = np.ones((2, 20, 20), bool)
        judged[1] = draw.random((20, 20)) < 0.8
        yield draw.random((*SHAPE, 20, 20)), draw.random((*SHAPE, 20, 20)) < 0.4, judged, now.reshape(2, 20, 20)


def test_each_window_is_scored_with_those_of_its_kind_and_all_together():
    # The edges belong to the wetter kind; all of the map wet is much.
    shares, kinds = (0.1, 0.0, 0.0075, 0.01, 1.0, 0.0975, 0.5), [2, 0, 0, 1, 2, 1, 2]
    decide = np.full(SHAPE, 0.4)
    found = ByWetness(decide)
    alone = [(Tally(decide), Changes(decide), Fractions(decide)) for _ in KINDS]
    every = Tally(decide), Changes(decide), Fractions(decide)
    for kind, (chance, event, judged, now) in zip(kinds, windows(shares), strict=True):
        found.add(chance, event, judged, now, wet_now(now, judged))
        for tally, changes, fractions in (alone[kind], every):
            tally.add(chance, event, judged)
            changes.add(chance, event, judged, now)
            fractions.add(chance, event, judged)
    assert found.windows == [2, 2, 3]
    for kind, expected in enumerate(alone):
        same((found.tallies[kind], found.changes[kind], found.fractions[kind]), expected)
    same(found.together(), every)
    np.testing.assert_allclose(found.together()[0].windows, every[0].windows)  # in the order they came


def same(found, expected):
    for name in SUMS:
        np.testing.assert_allclose(getattr(found[0], name), getattr(expected[0], name))
    np.testing.assert_array_equal(found[1].counts, expected[1].counts)
    np.testing.assert_allclose(found[2].score, expected[2].score)


def test_members_go_with_the_sums():
    few = ByWetness(np.full(SHAPE, 0.4), members=20)
    for chance, event, judged, now in windows((0.0, 0.5)):
        few.add(chance, event, judged, now, wet_now(now, judged))
    assert "brier_of_endless_members" in few.together()[0].row(0, 0)


def test_a_map_is_as_wet_as_those_of_its_cells_that_are_judged():
    now = np.zeros((2, 4, 5), bool)
    now[0, :2] = True  # of the lowest threshold
    judged = np.zeros((3, 4, 5), bool)
    judged[0, 1:, :4] = True
    judged[2, 1, 4] = True
    assert wet_now(now, judged) == pytest.approx(5 / 13)
    assert wet_now(now, np.zeros_like(judged)) == 0.0
