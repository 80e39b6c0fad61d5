"""Scores apart by how wet the map is: each window counts where it belongs, once."""

from __future__ import annotations

import numpy as np
import pytest

from fastrain.verification.tally import Tally
from fastrain.verification.wetness import KINDS, ByWetness, wet_share


def test_each_window_is_scored_with_those_of_its_kind():
    draw = np.random.default_rng(3)
    tally, found = Tally(np.full((2, 2), 0.5)), ByWetness((2, 2))
    kept = {kind: [] for kind in range(len(KINDS))}
    # The edges belong to the wetter kind; all of the map wet is much.
    for wet, kind in ((0.0, 0), (0.0099, 0), (0.01, 1), (0.0999, 1), (0.1, 2), (0.5, 2), (1.0, 2)):
        chance, event = draw.random((2, 2, 6, 7)), draw.random((2, 2, 6, 7)) < 0.4
        judged = draw.random((2, 6, 7)) < 0.8
        found.add(tally.add(chance, event, judged), wet)
        kept[kind].append((chance, event, judged))
    for p in range(2):
        for k in range(2):
            rows = found.row(p, k)
            assert [row["wet_share"] for row in rows] == [list(edges) for edges in KINDS]
            assert [row["windows"] for row in rows] == [2, 2, 3]
            for kind, row in enumerate(rows):
                chance, event = (np.concatenate([w[i][p, k][w[2][p]] for w in kept[kind]]) for i in (0, 1))
                assert row["brier"] == pytest.approx(np.mean((chance - event) ** 2))
                assert found.brier[kind, p, k] == pytest.approx(row["brier"])
                assert row["mean_chance"] == pytest.approx(chance.mean())
                assert (row["cells"], row["events"]) == (len(chance), int(event.sum()))
            assert sum(row["cells"] for row in rows) == tally.cells[p, k]


def test_a_kind_that_was_never_seen_has_no_row():
    tally, found = Tally(np.array([[0.5]])), ByWetness((1, 1))
    found.add(tally.add(np.full((1, 1, 2, 2), 0.3), np.zeros((1, 1, 2, 2), bool), np.ones((1, 2, 2), bool)), 0.05)
    assert [row["wet_share"] for row in found.row(0, 0)] == [[0.01, 0.1]]
    assert np.isnan(found.brier[0, 0, 0])


def test_a_map_is_as_wet_as_those_of_its_cells_that_are_judged():
    now = np.zeros((2, 4, 5), bool)
    now[0, :2] = True  # of the lowest threshold
    judged = np.zeros((3, 4, 5), bool)
    judged[0, 1:, :4] = True
    judged[2, 1, 4] = True
    assert wet_share(now, judged) == pytest.approx(5 / 13)
    assert wet_share(now, np.zeros_like(judged)) == 0.0
