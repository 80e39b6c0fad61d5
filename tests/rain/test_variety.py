"""Windows as they might have been: the same weather, another way."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
import synthetic
import torch

from fastrain.archive.store import Archive
from fastrain.core.levels import LevelTable
from fastrain.rain.batches import Batches
from fastrain.rain.inputs import make_inputs
from fastrain.rain.new_run import TrainSettings, share_varied
from fastrain.rain.radar import Radar, happened
from fastrain.rain.run import make_network
from fastrain.rain.straight import fit_straight
from fastrain.rain.variety import SCALES, Varied, vary
from fastrain.rain.windows import Windows
from fastrain.samples.frames import load_frames
from fastrain.samples.layout import FrameLayout, Layout
from fastrain.samples.split import Split

LAYOUT = FrameLayout(6, ((0, 6), (6, 12)), 6)
THRESHOLDS = (0.1, 1.0)


@pytest.fixture(scope="module")
def archive(moving):
    return Archive.open(moving)


def window_of(archive, issue=20, layout=LAYOUT):
    radar = Radar.of(archive.schema, 1, THRESHOLDS, layout)
    start, _ = archive.span
    slots = np.arange(start + issue - layout.history + 1, start + issue + layout.ahead + 1)
    return Varied(load_frames(archive, 1, slots), start + issue, radar)


def test_backwards_the_end_of_a_window_is_its_history(archive):
    window = window_of(archive)
    back = window.backwards()
    at = int(back.frames.rows(np.array([back.issue]))[0])
    level = window.frames.maximum
    np.testing.assert_array_equal(back.frames.maximum[: at + 1], level[::-1][:6])
    truth = happened(back.frames, back.issue, back.radar)
    rates = synthetic.TABLE.rates[level[::-1][6:12]].max(axis=0)
    np.testing.assert_array_equal(truth[0], sum((rates >= t).astype(int) for t in THRESHOLDS))


def test_a_window_that_lacks_a_frame_ahead_is_not_turned_round(archive):
    """No forecast is made of a history that lacks one."""
    window = window_of(archive)
    for gone, turned in ((17, False), (12, False), (11, True), (8, True)):  # of 18 frames the last six become history
        level = window.frames.maximum.copy()
        level[gone] = 255
        lacking = replace(window, frames=replace(window.frames, maximum=level))
        assert (lacking.backwards() is not None) == turned


@pytest.mark.parametrize(("times", "history"), [(2, 3), (3, 2)])
def test_seen_less_often_a_window_is_of_the_same_minutes(archive, times, history):
    window = window_of(archive)
    less = window.slower(times)
    assert less.radar.cadence == times * window.radar.cadence
    assert less.radar.layout.history == history
    for (a, b), (c, d) in zip(window.radar.layout.periods, less.radar.layout.periods, strict=True):
        assert (times * c, times * d) == (a, b)
    issue = window.frames.rows(np.array([window.issue]))[0]
    np.testing.assert_array_equal(less.frames.maximum[less.issue], window.frames.maximum[issue])
    rates = synthetic.TABLE.rates[window.frames.maximum[issue + times : issue + 7 : times]].max(axis=0)
    expected = sum((rates >= t).astype(int) for t in THRESHOLDS)
    np.testing.assert_array_equal(happened(less.frames, less.issue, less.radar)[0], expected)
    inputs, _ = make_inputs(less.frames, less.issue, less.radar)
    assert inputs.known[0, 2] == pytest.approx(np.log2(times) / 2)  # the network is told


def test_where_periods_or_history_do_not_allow_it_nothing_is_seen_less_often(archive):
    odd = replace(window_of(archive), radar=replace(window_of(archive).radar, layout=FrameLayout(6, ((0, 5),), 6)))
    assert odd.slower(2) is None
    window = window_of(archive)
    assert replace(window, radar=replace(window.radar, cadence=timedelta(minutes=10))).slower(2) is None
    assert window_of(archive, layout=FrameLayout(2, ((0, 6), (6, 12)), 6)).slower(2) is None


def test_with_more_rain_the_same_cells_reach_higher_thresholds(archive):
    window = window_of(archive)
    more = window.scaled(1.5)
    rates = 1.5 * synthetic.TABLE.rates[window.frames.maximum[6:12]].max(axis=0)
    clear = np.all([np.abs(np.log(np.maximum(rates, 1e-6) / t)) > 0.12 for t in THRESHOLDS], axis=0)
    expected = sum((rates >= t).astype(int) for t in THRESHOLDS)
    np.testing.assert_array_equal(happened(more.frames, more.issue, more.radar)[0][clear], expected[clear])
    assert clear.mean() > 0.8
    assert (happened(more.frames, more.issue, more.radar) >= happened(window.frames, window.issue, window.radar)).all()


def test_of_few_levels_rain_is_not_scaled_where_thresholds_would_lie_elsewhere(archive):
    coarse = LevelTable((0.1, 1.0, 4.0), (1.0, 4.0, np.inf), (0.3, 2.0, 6.0))
    window = window_of(archive)
    palette = replace(window, radar=replace(window.radar, table=coarse))
    assert palette.scaled(1.5) is None
    assert palette.scaled(1.03) is not None
    fine = LevelTable.binned(lowest=0.1)
    narrow = replace(window, radar=replace(window.radar, table=fine))
    assert narrow.scaled(2.0) is None  # what is above 0.1 mm/h was above 0.2
    assert narrow.scaled(0.6) is not None


def test_all_kinds_are_drawn_and_a_window_is_told_by_its_draw(archive):
    window = window_of(archive)
    cadences, factors, turned = set(), set(), 0
    for seed in range(60):
        one = vary(window, np.random.default_rng(seed))
        cadences.add(round(one.radar.minutes))
        factors.add(round(float(one.radar.table.rates[100] / window.radar.table.rates[100]), 6))
        turned += bool((one.frames.maximum[0] == window.frames.maximum[-1]).all())
        again = vary(window, np.random.default_rng(seed))
        np.testing.assert_array_equal(one.frames.maximum, again.frames.maximum)
    assert cadences == {5, 10, 15}
    assert len(factors) > 15
    assert 1.0 in factors
    assert min(factors) >= SCALES[0]
    assert max(factors) <= SCALES[1]
    assert 10 < turned < 50
    windows = Windows(archive, 1, window.radar, 10**9)
    made = windows.varied(window.issue, np.random.default_rng(7))
    expected = vary(window, np.random.default_rng(7))
    np.testing.assert_array_equal(made.truth, happened(expected.frames, expected.issue, expected.radar))
    inputs, _ = make_inputs(expected.frames, expected.issue, expected.radar)
    for name in ("x", "guess", "known"):
        assert torch.equal(getattr(made.inputs, name), getattr(inputs, name))
    assert made is not windows.varied(window.issue, np.random.default_rng(7))


@pytest.mark.parametrize(
    ("settings", "frames", "share"),
    [
        (TrainSettings(), 100, 1.0),
        (TrainSettings(), 288, 1.0),  # a day of five minutes
        (TrainSettings(), 576, 0.5),
        (TrainSettings(), 288 * 30, 1 / 30),
        (TrainSettings(varied=0.0), 100, 0.0),
        (TrainSettings(varied=0.7), 288 * 30, 0.7),
        (TrainSettings(recipe="place"), 100, 0.0),
        (TrainSettings(shuffle_truth=True), 100, 0.0),
    ],
)
def test_the_longer_the_training_time_the_fewer_windows_are_varied(settings, frames, share):
    split = Split(Layout(30, ((0, 10),)), {"train": (40, 40 + frames)}, {})
    assert share_varied(settings, split, timedelta(minutes=5)) == pytest.approx(share)


def test_of_a_time_in_which_rain_only_grew_it_is_not_learned_that_it_grows(tmp_path):
    """Rain that grows by a tenth from frame to frame: varied, it decays as often."""
    still = synthetic.moving_rain(1, size=48, seed=4)[0]
    rates = 0.05 * still[None] * 1.1 ** np.arange(60)[:, None, None]
    synthetic.write_archive(tmp_path / "a", rates.astype(np.float32))
    archive = Archive.open(tmp_path / "a")
    radar = Radar.of(archive.schema, 1, (0.5,), LAYOUT)
    start, _ = archive.span
    issues, box = start + np.arange(6, 46), (slice(0, 48), slice(0, 48))
    windows = Windows(archive, 1, radar, 10**9)
    middle = windows[start + 26]
    said = {}
    for varied in (0.0, 1.0):
        network = make_network(1, 8)
        with Batches(windows, issues, np.ones(len(issues)), box, seed=0, varied=varied) as draw:
            line = fit_straight(network, *draw.scattered())
        chance = 1 / (1 + np.exp(-line.logits(middle.inputs.guess, middle.inputs.known)[:, 0]))
        said[varied] = chance.mean(axis=(1, 2))
    now = (still * 0.05 * 1.1**26 >= 0.5).mean()
    assert ((middle.truth > 0).mean(axis=(1, 2)) > 2 * now).all()
    assert (said[0.0] > 1.2 * said[1.0]).all()
    assert (said[1.0] > now).all()  # of a period, the most that passes
