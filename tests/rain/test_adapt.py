"""What a radar's last hours teach of its chances."""

from __future__ import annotations

import numpy as np
import pytest

from fastrain.rain.adapt import CELLS, HOURS, Adapter

PERIODS = ((0, 6), (6, 12))
EDGE = 40


def forecasts(count, *, wrong=lambda z, p: z, seed=0, spacing=6, learned=0.0):
    """Return an adapter that holds forecasts whose honest logits are `wrong` of what the network says."""
    draw = np.random.default_rng(seed)
    adapter = Adapter(PERIODS, 5.0, 2, 20.0)
    for i in range(count):
        honest = draw.normal(0, 2, (2, 2, EDGE, EDGE))
        reached = draw.random(honest.shape) < 1 / (1 + np.exp(-honest))
        outcome = np.where(reached[:, 0], np.where(reached[:, 1], 2, 1), 0).astype(np.int8)
        said = np.stack([wrong(honest[p], p) for p in range(2)])
        part = draw.normal(0, 1, said.shape) * learned
        adapter.add(i * spacing, said - part, part, outcome)
    return adapter


def test_nothing_due_changes_nothing():
    adapter = forecasts(3, spacing=1)
    assert not adapter.weights(5).any()  # the first period is over at slot 6
    assert adapter.weights(6).any()
    z = np.random.default_rng(1).normal(size=(2, 2, 5, 5))
    np.testing.assert_array_equal(adapter.logits(z, 0 * z, np.zeros((2, 4))), z)


def test_nothing_later_than_the_issue_is_looked_at():
    short, long = forecasts(6), forecasts(12)
    np.testing.assert_array_equal(short.weights(36), long.weights(36))


def test_honest_chances_stay_nearly_as_they_are():
    line = forecasts(20).weights(120)
    assert np.abs(line).max() < 0.1


@pytest.mark.parametrize("off", [-0.8, 0.8])
def test_a_radar_on_which_all_chances_are_off_is_put_right(off):
    adapter = forecasts(20, wrong=lambda z, p: z - off)
    line = adapter.weights(120)
    z = np.random.default_rng(5).normal(0, 2, (2, 2, 30, 30))
    left = adapter.logits(z - off, 0 * z, line) - z
    assert abs(left.mean()) < 0.35 * abs(off)  # held back by what is believed before


def test_chances_that_are_too_sure_are_made_less_so():
    line = forecasts(20, wrong=lambda z, p: 2 * z).weights(120)
    assert (line[:, 0] < -0.3).all()


def test_what_grows_with_the_lead_is_told_from_what_does_not():
    line = forecasts(20, wrong=lambda z, p: z - (p == 1)).weights(120)
    assert (line[:, 3] > 0.3).all()


def test_what_was_learned_elsewhere_is_trusted_as_far_as_it_holds_here():
    sound = forecasts(20, learned=1.0).weights(120)
    assert np.abs(sound[:, 1]).max() < 0.1
    draw = np.random.default_rng(4)
    adapter = Adapter(PERIODS, 5.0, 1, 20.0)
    for i in range(20):
        honest, idle = draw.normal(0, 2, (2, 2, 1, EDGE, EDGE))
        outcome = (draw.random(honest.shape) < 1 / (1 + np.exp(-honest)))[:, 0].astype(np.int8)
        adapter.add(6 * i, honest, idle, outcome)
    assert adapter.weights(120)[0, 1] < -0.7


def test_old_forecasts_are_forgotten_and_memory_is_bounded():
    adapter = forecasts(400)
    adapter.weights(2400)
    assert len(adapter._past) <= 2 * (HOURS * 60 / 5 / 6 + 2)
    assert all(one.straight.shape == (2, CELLS) for one in adapter._past)


def test_what_is_looked_back_at_is_every_half_hour_of_the_last_hours():
    adapter = Adapter(PERIODS, 5.0, 1, 20.0)
    slots, issues = np.delete(np.arange(7, 400), range(90, 99)), np.array([12, 130, 133, 390])
    found = adapter.learned_from(slots, issues).tolist()
    reach = HOURS * 60 / 5
    assert found == [s for s in slots if s % 6 == 0 and any(0 < i - s <= reach for i in issues)]
    assert 6 not in found and 384 in found and 390 not in found and 300 not in found


def test_a_small_map_says_little():
    off = {}
    for cell_km in (1.0, 20.0):
        draw = np.random.default_rng(0)
        adapter = Adapter(PERIODS, 5.0, 1, cell_km)
        for i in range(20):
            honest = draw.normal(0, 2, (2, 1, EDGE, EDGE))
            outcome = (draw.random(honest.shape) < 1 / (1 + np.exp(-honest)))[:, 0].astype(np.int8)
            adapter.add(6 * i, honest + 0.8, 0 * honest, outcome)
        off[cell_km] = adapter.weights(120)[0, 2:].sum()
    # 40 km across for four hours: hardly one patch of rain; 800 km: hundreds.
    assert abs(off[1.0]) < 0.15 and off[20.0] < -0.6


def test_cells_that_are_not_judged_say_nothing():
    one, other = Adapter(PERIODS, 5.0, 2, 20.0), Adapter(PERIODS, 5.0, 2, 20.0)
    draw = np.random.default_rng(3)
    z = draw.normal(size=(2, 2, EDGE, EDGE))
    outcome = draw.integers(0, 3, (2, EDGE, EDGE)).astype(np.int8)
    outcome[:, ::2] = -1
    one.add(0, z, z, outcome)
    z = z.copy()
    z[:, :, ::2] = 50.0
    other.add(0, z, z, outcome)
    np.testing.assert_array_equal(one.weights(12), other.weights(12))
    nothing = Adapter(PERIODS, 5.0, 2, 20.0)
    nothing.add(0, z, z, np.full_like(outcome, -1))
    assert not nothing.weights(12).any()
