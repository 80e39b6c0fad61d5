"""Warnings of change, and shares of rain in squares."""

from __future__ import annotations

import numpy as np
import pytest
from scores.spatial import fss_2d_single_field

from fastrain.verification.changes import Changes
from fastrain.verification.fss import EDGES, Fractions


def fields(seed=0, shape=(2, 2, 40, 36)):
    draw = np.random.default_rng(seed)
    chance, event = draw.random(shape), draw.random(shape) < 0.3
    judged, now = draw.random((shape[0], *shape[2:])) < 0.8, draw.random(shape[1:]) < 0.4
    return chance, event, judged, now


def test_changes_are_counted_cell_by_cell():
    decide = np.array([[0.5, 0.7], [0.4, 0.6]])
    changes = Changes(decide)
    said = [fields(seed) for seed in range(2)]
    for one in said:
        changes.add(*one)
    for p in range(2):
        for k in range(2):
            start, stop = [0, 0, 0, 0], [0, 0, 0, 0]
            for chance, event, judged, now in said:
                for y, x in zip(*np.nonzero(judged[p]), strict=True):
                    yes, came = chance[p, k, y, x] >= decide[p, k], event[p, k, y, x]
                    if now[k, y, x]:
                        yes, came, counts = not yes, not came, stop
                    else:
                        counts = start
                    counts[0 if yes and came else 1 if yes else 2 if came else 3] += 1
            row = changes.row(p, k)
            for name, (hits, false_alarms, misses, negatives) in (("start", start), ("stop", stop)):
                assert row[name]["cells"] == hits + false_alarms + misses + negatives
                assert row[name]["changed"] == hits + misses
                assert row[name]["warned_of"] == pytest.approx(hits / (hits + misses))
                assert row[name]["false_alarm_ratio"] == pytest.approx(false_alarms / (hits + false_alarms))


def test_without_a_change_there_is_no_rate():
    changes = Changes(np.array([[0.5]]))
    dry = np.zeros((1, 1, 4, 4), bool)
    changes.add(dry.astype(float), dry, np.ones((1, 4, 4), bool), dry[0])
    row = changes.row(0, 0)
    assert row["start"]["cells"] == 16 and row["stop"]["cells"] == 0
    assert np.isnan(row["start"]["warned_of"]) and np.isnan(row["stop"]["false_alarm_ratio"])


@pytest.mark.parametrize("seed", range(3))
def test_the_score_is_that_of_the_library_scores(seed):
    draw = np.random.default_rng(seed)
    inner = np.zeros((1, 1, 60, 50))
    inner[..., 12:-12, 12:-12] = draw.random((1, 1, 36, 26))  # dry rims: the two treat edges differently
    event = np.zeros(inner.shape, bool)
    event[..., 12:-12, 12:-12] = draw.random((1, 1, 36, 26)) < 0.3
    fractions = Fractions(np.array([[0.6]]))
    fractions.add(inner, event, np.ones((1, 60, 50), bool))
    for i, edge in enumerate(EDGES):
        theirs = fss_2d_single_field(
            inner[0, 0],
            event[0, 0].astype(float) * 0.9,
            event_threshold=0.6,
            window_size=(edge, edge),
            zero_padding=False,
        )
        assert fractions.score[i, 0, 0] == pytest.approx(float(theirs), abs=0.02)


def test_rain_a_little_beside_is_nothing_by_cell_and_much_by_square():
    chance, event = np.zeros((1, 1, 40, 40)), np.zeros((1, 1, 40, 40), bool)
    chance[..., 10:14, 10:14] = 1.0
    event[..., 10:14, 15:19] = True
    fractions = Fractions(np.array([[0.5]]))
    fractions.add(chance, event, np.ones((1, 40, 40), bool))
    score = fractions.score[:, 0, 0]
    assert score[0] == 0 and (np.diff(score) >= 0).all() and score[-1] > 0.7


def test_what_is_not_judged_does_not_count():
    chance, event, judged, _ = fields(4)
    one, other = Fractions(np.full((2, 2), 0.5)), Fractions(np.full((2, 2), 0.5))
    one.add(chance, event, judged)
    hidden = np.broadcast_to(~judged[:, None], chance.shape)
    other.add(np.where(hidden, 1.0, chance), event | hidden, judged)
    np.testing.assert_array_equal(one.score, other.score)
    assert np.isnan(Fractions(np.full((2, 2), 0.5)).score).all()
