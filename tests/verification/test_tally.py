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


def test_reliability_is_told_with_its_counts():
    found, draw = tally(), np.random.default_rng(0)
    chance = draw.random((1, 1, 40, 50))
    chance[chance > 0.8] = 0.05  # no chance in the two highest bins
    event, judged = draw.random(chance.shape) < chance**2, draw.random((1, 40, 50)) < 0.7
    found.add(chance, event, judged)
    row = found.row(0, 0)
    said, came = chance[0, 0][judged[0]], event[0, 0][judged[0]]
    expected = []
    for i in range(8):
        here = (said >= i / 10) & (said < (i + 1) / 10)
        expected.append({"cells": here.sum(), "mean_chance": said[here].mean(), "came_true": came[here].mean()})
    assert [one["cells"] for one in row["reliability"]] == [one["cells"] for one in expected]
    for one, other in zip(row["reliability"], expected, strict=True):
        assert one == pytest.approx(other)
    off = sum(one["cells"] * abs(one["mean_chance"] - one["came_true"]) for one in expected) / judged.sum()
    assert row["calibration_error"] == pytest.approx(off)


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


def test_the_roc_area_is_the_chance_that_rain_was_given_the_higher_one():
    draw = np.random.default_rng(2)
    honest = np.floor(draw.random((1, 1, 60, 60)) * 10) / 10 + 0.05
    event = draw.random(honest.shape) < honest
    one = tally(0.5)
    one.add(honest, event, np.ones((1, 60, 60), bool))
    wet, dry = honest[event], honest[~event]
    higher = (wet[:, None] > dry[None]).mean() + 0.5 * (wet[:, None] == dry[None]).mean()
    assert one.roc_area[0, 0] == pytest.approx(higher, abs=1e-6)


def test_the_penalty_of_few_members_is_what_few_members_cost():
    draw = np.random.default_rng(3)
    true = draw.random((1, 1, 300, 300))
    event = draw.random(true.shape) < true
    few = Tally(np.array([[0.5]]), members=5)
    few.add(draw.binomial(5, true) / 5, event, np.ones((1, 300, 300), bool))
    best = ((true - event) ** 2).mean()
    row = few.row(0, 0)
    assert row["brier"] > best + 0.02
    assert row["brier_of_endless_members"] == pytest.approx(best, abs=0.003)
    assert "brier_of_endless_members" not in tally(0.5).row(0, 0)


def test_scores_and_counts_are_those_of_the_library_scores():
    import xarray as xr
    from scores.categorical import BinaryContingencyManager
    from scores.probability import brier_score

    draw = np.random.default_rng(6)
    shape = (2, 3, 20, 30)
    decide = draw.random((2, 3))
    found = Tally(decide)
    squared, cells, counts = np.zeros((2, 3)), np.zeros((2, 3)), np.zeros((4, 2, 3))
    for _ in range(3):
        chance, event, judged = draw.random(shape), draw.random(shape) < 0.3, draw.random((2, 20, 30)) < 0.7
        found.add(chance, event, judged)
        where, dims = np.broadcast_to(judged[:, None], shape), ("p", "k", "y", "x")
        said = xr.DataArray(np.where(where, chance, np.nan), dims=dims)
        came = xr.DataArray(np.where(where, event, np.nan).astype(float), dims=dims)
        squared += brier_score(said, came, preserve_dims=["p", "k"]).to_numpy() * where.sum(axis=(2, 3))
        cells += where.sum(axis=(2, 3))
        yes = (said >= decide[:, :, None, None]).astype(float).where(said.notnull())
        table = BinaryContingencyManager(yes, came).transform(preserve_dims=["p", "k"]).get_counts()
        counts += np.stack([table[f"{name}_count"].to_numpy() for name in ("tp", "fp", "fn", "tn")])
    np.testing.assert_allclose(found.brier, squared / cells)
    np.testing.assert_array_equal(found.contingency, counts)
    np.testing.assert_allclose(found.csi, counts[0] / (counts[0] + counts[1] + counts[2]))
