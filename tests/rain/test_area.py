"""Chances held near the area that advection carries."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
import torch

from fastrain.core.levels import LevelTable
from fastrain.rain.adapt import Adapter
from fastrain.rain.area import FEWEST, HALF_TRUSTED, LEAST_SHARE, LONGEST, Carried, shifts
from fastrain.rain.chances import Calibration
from fastrain.rain.hindcast import Network
from fastrain.rain.inputs import Inputs, Moved
from fastrain.rain.radar import Radar
from fastrain.samples.frames import Frames
from fastrain.samples.layout import FrameLayout

PERIODS = ((0, 6), (6, 12), (18, 24), (48, 54))
RADAR = Radar(
    LevelTable.binned(), "rain_rate", timedelta(minutes=5), 4.0, (0.1, 1.0, 5.0), FrameLayout(6, PERIODS, 6), "mean"
)
TRUST = (17.5 / 120, 47.5 / 120, 0.75, 0.75)  # minutes to the middle of each over 120, at most 0.75


def drawn(seed=0, edge=40):
    """Return logits, and cells and shares that advection carries."""
    draw = np.random.default_rng(seed)
    logits = draw.normal(-1, 2, (4, 3, edge, edge)).astype(np.float32)
    cells = draw.random((4, edge, edge)) < 0.7
    share = np.array([[0.3, 0.05, 0.01], [0.2, 0.1, 0.002], [0.5, 0.3, 0.1], [0.1, 0.02, 0.0]])
    return logits, Carried(cells, share)


def seen_whole():
    """Return a frame, at slot 7, of dry cells, all of whose pixels are observed."""
    return Frames(
        np.array([7]), *np.zeros((2, 1, 4, 5), np.uint8), np.full((1, 4, 5), 16, np.uint8), np.full((4, 5), 16)
    )


def mean_chances(logits, cells):
    chances = Calibration().chances(logits)
    return np.stack([chance[:, seen].mean(axis=1) for chance, seen in zip(chances, cells, strict=True)])


def test_the_mean_chance_lies_between_the_networks_and_the_carried_share():
    logits, carried = drawn()
    found = shifts(logits, carried, RADAR)
    held = mean_chances(logits + found[:, :, None, None], carried.cells)
    for p, most in enumerate(TRUST):
        trust = most * carried.share[p, 0] / (carried.share[p, 0] + HALF_TRUSTED)
        below = np.ones(int(carried.cells[p].sum()))
        for k in range(3):
            # What the network itself would say, given what is held below.
            z = logits[p, k][carried.cells[p]]
            said = (below / (1 + np.exp(-z))).mean()
            wanted = (said + LEAST_SHARE) ** (1 - trust) * (carried.share[p, k] + LEAST_SHARE) ** trust - LEAST_SHARE
            if abs(found[p, k]) < LONGEST:
                assert held[p, k] == pytest.approx(wanted, rel=1e-3)
            below = below / (1 + np.exp(-z - found[p, k]))
    # No rain is on its way: less is said, yet never nothing.
    assert found[3, 2] < 0 and held[3, 2] > 0


def test_what_agrees_with_advection_is_left_alone():
    logits, carried = drawn(1)
    agreed = Carried(carried.cells, mean_chances(logits, carried.cells))
    assert np.abs(shifts(logits, agreed, RADAR)).max() < 1e-3


def test_only_cells_that_advection_knows_are_counted_and_few_say_nothing():
    logits, carried = drawn(2)
    other = np.where(carried.cells[:, None], logits, 9.0).astype(np.float32)
    np.testing.assert_array_equal(shifts(logits, carried, RADAR), shifts(other, carried, RADAR))
    few = np.zeros_like(carried.cells)
    few[:, 0, :30] = True
    assert few[0].sum() < FEWEST and not shifts(logits, Carried(few, carried.share), RADAR).any()


def test_what_cannot_be_is_no_longer_than_a_shift_may_be():
    sure = np.full((4, 3, 20, 20), 12.0, np.float32)
    nothing = Carried(np.ones((4, 20, 20), bool), np.zeros((4, 3)))
    found = shifts(sure, nothing, RADAR)
    assert np.isfinite(found).all() and np.abs(found).max() <= LONGEST


def test_a_dry_map_is_left_alone_and_a_nearly_dry_one_nearly():
    logits, carried = drawn(4)
    dry = Carried(carried.cells, np.zeros((4, 3)))
    assert not shifts(logits, dry, RADAR).any()
    # What the network hardly believes itself is not raised where nothing is carried.
    low = np.full_like(logits, -7.0)
    assert (shifts(low, Carried(carried.cells, np.array([[0.02, 0.0, 0.0]] * 4)), RADAR)[:, 1:] <= 0).all()
    nearly = np.array([[0.001, 0.0, 0.0]] * 4)
    wetter = np.array([[0.1, 0.0, 0.0]] * 4)
    little, much = (np.abs(shifts(logits, Carried(carried.cells, one), RADAR)[:, 1]) for one in (nearly, wetter))
    assert (little < 0.6 * much).all()  # `much` would be longer, but for how long a shift may be


def test_what_is_carried_is_the_share_of_known_cells_seen_now():
    highest = torch.zeros(2, 4, 5)
    highest[0, 0] = 0.1
    highest[0, 1, :2] = 5.0
    highest[1, 3, 3] = 1.0
    known = torch.ones(2, 4, 5, dtype=torch.bool)
    known[0, 1, 0] = False
    frames = seen_whole()
    frames.observed[0, 3, 4] = 11  # not three quarters of its pixels
    carried = Carried.of(frames, 7, Moved(highest, known, torch.zeros(0)), RADAR)
    assert carried.cells.sum(axis=(1, 2)).tolist() == [18, 19]
    np.testing.assert_allclose(carried.share, [[6 / 18, 1 / 18, 1 / 18], [1 / 19, 1 / 19, 0]])


def test_a_run_of_its_own_radar_is_left_as_it_was_calibrated():
    logits, carried = drawn(3)
    parts = logits, np.zeros_like(logits)
    inputs = Inputs(*torch.zeros(3, 1))
    own = Network(lambda _: parts, Calibration(2.0))
    frames, moved = seen_whole(), Moved(*torch.zeros(3, 1, 1, 1))
    assert own.summands(frames, 7, inputs, moved, RADAR) is parts
    shipped = Network(lambda _: parts, Calibration(2.0), Adapter(PERIODS, 5.0, 3, 4.0))
    straight, learned = shipped.held(parts, carried, RADAR)
    np.testing.assert_allclose(
        straight - logits / 2, shifts(logits / 2, carried, RADAR)[:, :, None, None] + 0 * logits, atol=1e-5
    )
    np.testing.assert_array_equal(learned, 0)
