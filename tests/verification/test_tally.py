"""Scores against hand-derived numbers, and their counts."""

from __future__ import annotations

import numpy as np
import pytest

from fastrain.verification.tally import Decider, Tally


def one(values):
    """A field of one period and one threshold."""
    return np.array(values, dtype=float)[None, None]


def tally(decide=0.5):
    return Tally(np.array([[decide]]))


def test_brier_score_and_contingency_by_hand():
    # Cells: (0.9, yes) hit, (0.2, no) correct no, (0.6, no) false alarm, (0.4, yes) miss; the fifth is not judged.
    # Brier: (0.01 + 0.04 + 0.36 + 0.36) / 4 = 0.1925; CSI: 1 / (1 + 1 + 1).
    found = tally()
    judged = np.array([[[True, True, True, True, False]]])
    found.add(one([[0.9, 0.2, 0.6, 0.4, 1.0]]), one([[1, 0, 0, 1, 0]]).astype(bool), judged)
    row = found.row(0, 0)
    assert row["brier"] == pytest.approx(0.1925)
    assert row["csi"] == pytest.approx(1 / 3)
    assert (row["hits"], row["false_alarms"], row["misses"], row["correct_negatives"]) == (1, 1, 1, 1)
    assert (row["cells"], row["events"]) == (4, 2)
    assert row["mean_chance"] == pytest.approx(2.1 / 4)


def test_windows_are_pooled_by_adding_not_by_averaging_scores():
    found = tally()
    draw = np.random.default_rng(0)
    parts = []
    for size in (3, 50):
        chance, event = draw.random((1, 1, size, size)), draw.random((1, 1, size, size)) < 0.3
        judged = draw.random((1, size, size)) < 0.8
        found.add(chance, event, judged)
        parts.append((chance[0, 0][judged[0]], event[0, 0][judged[0]]))
    chance, event = (np.concatenate([p[i] for p in parts]) for i in (0, 1))
    yes = chance >= 0.5
    assert found.brier[0, 0] == pytest.approx(((chance - event) ** 2).mean())
    assert found.csi[0, 0] == pytest.approx((yes & event).sum() / (yes | event).sum())
    assert found.cells[0, 0] == len(chance)


def test_a_chance_equal_to_the_decision_is_a_yes():
    found = tally(decide=0.3)
    found.add(one([[0.3, 0.29]]), one([[1, 1]]).astype(bool), np.ones((1, 1, 2), bool))
    assert found.contingency[:, 0, 0].tolist() == [1, 0, 1, 0]


def test_reliability_bins_hold_every_judged_cell_once():
    found = tally()
    chance = np.linspace(0, 1, 101)[None, None, None]
    event = chance > 0.42
    found.add(chance, event, np.ones((1, 1, 101), bool))
    cells, said, happened = found.binned[:, 0, 0]
    assert cells.sum() == 101
    assert said.sum() == pytest.approx(chance.sum())
    assert happened.sum() == event.sum()
    assert cells.tolist() == [10] * 9 + [11]


def test_nothing_judged_is_no_score_not_zero():
    found = tally()
    found.add(one([[0.5]]), one([[1]]).astype(bool), np.zeros((1, 1, 1), bool))
    assert np.isnan(found.brier[0, 0])
    assert np.isnan(found.csi[0, 0])
    assert found.row(0, 0)["cells"] == 0


def test_a_forecaster_that_is_nowhere_judged_may_be_nan_there():
    found = tally()
    found.add(one([[np.nan, 0.5]]), one([[0, 1]]).astype(bool), np.array([[[False, True]]]))
    assert found.brier[0, 0] == pytest.approx(0.25)


def test_the_decision_is_the_chance_of_the_best_csi():
    draw = np.random.default_rng(1)
    chance = draw.random((1, 1, 80, 80))
    event = draw.random(chance.shape) < chance**2
    decider = Decider((1, 1))
    decider.add(chance, event, np.ones((1, 80, 80), bool))
    best = decider.best()[0, 0]

    def csi(at):
        yes = chance >= at
        return (yes & event).sum() / (yes | event).sum()

    assert csi(best) == pytest.approx(max(csi(i / 50) for i in range(1, 50)))
    assert Decider((1, 1)).best()[0, 0] == 0.5
