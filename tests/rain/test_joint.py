"""Several radars' events in one training."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
import synthetic
import torch

from fastrain.archive.store import Archive
from fastrain.core.errors import TooShort
from fastrain.rain import joint
from fastrain.rain.batches import BATCH, CROP
from fastrain.rain.inputs import make_inputs
from fastrain.rain.joint import (
    LARGEST_TILE,
    LARGEST_WEIGHT,
    Draws,
    _crop,
    events_of,
    fit_joint,
    varied,
    varied_layout,
)
from fastrain.rain.radar import happened
from fastrain.rain.run import predict, predict_parts
from fastrain.samples.layout import Layout

THRESHOLDS = (0.1, 1.0)
WINDOWS = 6


@pytest.fixture(autouse=True)
def few_windows(monkeypatch):
    """Blocks of few windows, for the sake of time."""
    monkeypatch.setattr(joint, "WINDOWS", WINDOWS)


LAYOUT = Layout(20, ((0, 10), (10, 20), (25, 30)))


def event(path, seed=0, size=48, frames=40, **more):
    if not path.exists():
        rates = synthetic.moving_rain(frames, size=size, seed=seed, speed=(0.5 - 0.3 * seed, 0.6))
        synthetic.write_archive(path, rates)
    return events_of(Archive.open(path), LAYOUT, THRESHOLDS, coarseness=2, **more)[0]


@pytest.mark.parametrize("minutes", [1, 2, 2.5, 3, 4, 5, 6, 7.5, 10, 15, 30])
@pytest.mark.parametrize("hours", [1.2, 3.3, 8, 24])
def test_periods_of_many_kinds_fit_every_cadence_and_leave_issue_times(minutes, hours):
    layout = varied_layout(timedelta(minutes=minutes), timedelta(hours=hours))
    in_frames = layout.frames(timedelta(minutes=minutes))  # raises where they do not fit
    assert 0 < in_frames.ahead * minutes <= max(30 + minutes, 60 * hours - 90)
    assert (0, 30) in layout.periods or 30 % minutes
    assert len(set(layout.periods)) == len(layout.periods)


def test_an_event_backwards_has_the_same_windows_the_other_way(tmp_path):
    one = event(tmp_path / "a")
    back = one.backwards()
    layout = one.radar.layout
    assert len(back.issues()) == len(one.issues())
    last = one.frames.slots[-1]
    first = one.frames.slots[0]
    for issue in back.issues():
        shown = np.arange(issue - layout.history + 1, issue + layout.ahead + 1)
        rows, mirrored = back.frames.rows(shown), one.frames.rows(first + last - shown)
        np.testing.assert_array_equal(back.frames.maximum[rows], one.frames.maximum[mirrored])
    np.testing.assert_array_equal(back.backwards().frames.ratio, one.frames.ratio)


def test_windows_are_spread_over_the_event(tmp_path):
    one = event(tmp_path / "a")
    every, some = one.issues(), one.issues(5)
    assert len(some) == 5 and set(some) <= set(every)
    assert (some[0], some[-1]) == (every[0], every[-1])


def test_an_event_too_short_for_a_window_is_refused(tmp_path):
    with pytest.raises(TooShort, match="holds no window of 20 min and 30 min ahead"):
        event(tmp_path / "a", frames=8)


def test_of_a_large_map_the_wettest_tiles_are_taken(tmp_path):
    rates = np.zeros((12, 2 * LARGEST_TILE + 40, 60), np.float32)
    rates[:, LARGEST_TILE + 5 : LARGEST_TILE + 25, 10:30] = 3.0
    rates[:, 3:6, 10:30] = 3.0
    synthetic.write_archive(tmp_path / "a", rates)
    found = events_of(Archive.open(tmp_path / "a"), LAYOUT, THRESHOLDS, coarseness=1, tiles=2)
    assert [e.frames.maximum.shape[1:] for e in found] == [(LARGEST_TILE, 60)] * 2
    assert [int((e.frames.maximum[0] > 0).sum()) for e in found] == [400, 60]
    assert found[0].frames.pixels.shape == (LARGEST_TILE, 60)
    assert found[1].name.endswith("tile 2")
    whole = events_of(Archive.open(tmp_path / "a"), LAYOUT, THRESHOLDS, coarseness=1, tiles=9)
    assert sum(int((e.frames.maximum[0] > 0).sum()) for e in whole) >= 460 and len(whole) == 3


def test_an_event_that_rained_more_has_the_same_weather_and_higher_rates(tmp_path):
    one = event(tmp_path / "a")
    more = one.scaled(2.0)
    np.testing.assert_allclose(np.array(more.radar.table.rate), 2 * np.array(one.radar.table.rate))
    issue = int(one.issues()[0])
    before, after = (happened(e.frames, issue, e.radar) for e in (one, more))
    assert (after >= before).all() and (after > before).any()
    # A threshold that the levels cannot tell is moved to one that they can.
    for threshold in one.scaled(1.3).radar.thresholds:
        one.scaled(1.3).radar.table.first_level(threshold)


def test_a_slower_radar_sees_every_other_frame(tmp_path):
    one = event(tmp_path / "a", frames=80)
    slow = one.slower(2, phase=1)
    assert slow.radar.cadence == timedelta(minutes=10) and slow.radar.layout == slow.layout.frames(slow.radar.cadence)
    np.testing.assert_array_equal(slow.frames.maximum, one.frames.maximum[1::2])
    assert len(slow.issues()) and slow.radar.layout.history == 3


def radars(tmp_path):
    return [[event(tmp_path / str(seed), seed, size=64 + 64 * seed)] for seed in range(3)]


def test_a_batch_is_told_by_its_number_and_every_radar_is_asked_as_often(tmp_path):
    known = radars(tmp_path)
    with Draws(known, seed=0) as one, Draws(known, seed=0) as other:
        later = one.batch(one.batches_a_block + 1)
        for step in (0, one.batches_a_block + 1):
            for a, b in zip(one.batch(step), other.batch(step), strict=True):
                assert torch.equal(a, b)
        for a, b in zip(one.batch(one.batches_a_block + 1), later, strict=True):
            assert torch.equal(a, b)
        x, guess, conditions, outcome, weight = later
        assert x.shape[2:] == guess.shape[3:] == outcome.shape[1:] == (CROP, CROP)
        assert len(weight) == len(conditions) == BATCH
        asked = []
        one._window = lambda events, _: asked.append(events) or []
        one._make(0), one._make(1), one._make(2)
    counts = [sum(events is radar for events in asked) for radar in one.radars]
    assert max(counts) - min(counts) <= 1 and sum(counts) == 3 * WINDOWS


def test_all_samples_of_a_block_are_dealt_once(tmp_path):
    with Draws(radars(tmp_path), seed=0) as draws:
        samples = draws._block(0)
        sums = sorted(float(one.x.float().sum()) for one in samples)
        dealt = [float(m.sum()) for step in range(draws.batches_a_block) for m in draws.batch(step)[0].half().float()]
    assert len(samples) == draws.batches_a_block * BATCH
    np.testing.assert_allclose(sorted(dealt), sums, rtol=1e-4)


def test_beyond_a_small_map_nothing_is_observed_and_its_cells_weigh_more(tmp_path):
    small = [[event(tmp_path / "small", size=64)]]  # 32 cells
    with Draws(small, seed=0) as draws:
        samples = draws._block(0)
    for one in samples:
        assert (one.outcome[32:] == -1).all() and (one.outcome[:, 32:] == -1).all()
        assert not one.x[:, 32:].any()
    cells = np.mean([one.weight for one in samples])
    assert cells == pytest.approx(LARGEST_WEIGHT, rel=0.05)


def test_the_choice_of_crops_biases_no_chance():
    draw = np.random.default_rng(0)
    wet = torch.zeros(3 * CROP, 3 * CROP, dtype=torch.bool)
    wet[:CROP, :CROP] = True
    seen = torch.ones_like(wet)
    chosen = [_crop(wet, seen, draw) for _ in range(3000)]
    weights = np.array([weight for _, weight in chosen])
    rain = np.array([float(wet[top : top + CROP, left : left + CROP].float().mean()) for (top, left), _ in chosen])
    even = np.random.default_rng(1).integers(0, 2 * CROP + 1, (20000, 2))
    truth = np.prod(np.maximum(0, CROP - even) / CROP, axis=1).mean()
    assert rain.mean() > 1.5 * truth  # wet crops are drawn more often
    assert (rain * weights).sum() / weights.sum() == pytest.approx(truth, rel=0.1)  # and weigh less
    assert weights.mean() == pytest.approx(1.0, rel=0.05)


def test_crops_are_drawn_where_something_is_judged():
    draw = np.random.default_rng(0)
    seen = torch.zeros(3 * CROP, 3 * CROP, dtype=torch.bool)
    seen[CROP : 2 * CROP, CROP : 2 * CROP] = True
    for _ in range(20):
        (top, left), _ = _crop(torch.zeros_like(seen), seen, draw)
        assert seen[top : top + CROP, left : left + CROP].any()


def test_windows_of_both_truths_are_drawn(tmp_path):
    one = event(tmp_path / "a")
    assert one.radar.speaks_of_means
    draw = np.random.default_rng(0)
    drawn = [varied(one, draw) for _ in range(60)]
    assert {e.radar.truth for e in drawn} == {"maximum", "mean"}
    assert {e.radar.minutes for e in drawn} >= {5.0, 10.0}
    assert any(e.name.endswith("backwards") for e in drawn) and any(e.name == one.name for e in drawn)
    factors = [e.radar.table.rate[0] / one.radar.table.rate[0] for e in drawn]
    assert 0.5 <= min(factors) < 0.8 and 1.3 < max(factors) <= 2.0


def test_what_is_learned_of_some_radars_holds_on_another(tmp_path):
    known = [[event(tmp_path / str(seed), seed, size=128)] for seed in range(3)]
    network, line = fit_joint(known, width=8, cells=4_000_000, seed=0)
    other = event(tmp_path / "other", 7, size=128)
    squared = {"network": 0.0, "straight": 0.0, "frequency": 0.0}
    reached, cells = 0, 0
    for issue in other.issues(8):
        inputs, _ = make_inputs(other.frames, int(issue), other.radar)
        straight, _ = predict_parts(line, inputs)
        rain = happened(other.frames, int(issue), other.radar) > 0
        for name, logits in (("network", predict(network, inputs)), ("straight", straight)):
            squared[name] += float(((1 / (1 + np.exp(-logits[:, 0])) - rain) ** 2).sum())
        reached += int(rain.sum())
        cells += rain.size
    often = reached / cells
    assert squared["network"] < 0.6 * cells * often * (1 - often)
    assert squared["network"] < squared["straight"]
