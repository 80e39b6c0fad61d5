"""Several radars' events in one training."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
import synthetic
import torch

from fastrain.archive.store import Archive
from fastrain.core.errors import TooShort
from fastrain.rain.batches import Batches
from fastrain.rain.inputs import InputCache, happened, make_inputs
from fastrain.rain.joint import LARGEST_TILE, Joint, events_of, fit_joint, varied_layout
from fastrain.rain.run import predict, predict_parts
from fastrain.samples.layout import Layout

THRESHOLDS = (0.1, 1.0)
LAYOUT = Layout(20, ((0, 10), (10, 20), (25, 30)))


def event(path, seed=0, size=48, frames=40, **more):
    if not path.exists():
        rates = synthetic.moving_rain(frames, size=size, seed=seed, speed=(0.5 - 0.3 * seed, 0.6))
        synthetic.write_archive(path, rates)
    return events_of(Archive.open(path), LAYOUT, THRESHOLDS, coarseness=2, **more)[0]


def batches(one, most=6):
    issues = one.issues(most)
    return Batches(InputCache(one.frames, one.radar, 2**30), issues, np.ones(len(issues)), seed=0)


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


def test_every_event_is_asked_as_often_and_a_batch_is_told_by_its_number(tmp_path):
    parts = [batches(event(tmp_path / str(seed), seed, size=40 + 8 * seed)) for seed in range(3)]
    joint = Joint(parts, seed=0)
    shapes = [tuple(joint.batch(step)[0].shape[-2:]) for step in range(9)]
    for turn in range(3):
        assert len(set(shapes[3 * turn : 3 * turn + 3])) == 3
    for a, b in zip(joint.batch(4), Joint(parts, seed=0).batch(4), strict=True):
        assert torch.equal(a, b)
    _, _, _, weight = joint.scattered(16)
    a, b, c = np.split(weight.numpy(), np.cumsum([len(part.scattered(16)[3]) for part in parts])[:-1])
    assert a.sum() == pytest.approx(b.sum()) and b.sum() == pytest.approx(c.sum())


def test_what_is_learned_of_some_radars_holds_on_another(tmp_path):
    known = [event(tmp_path / str(seed), seed) for seed in range(3)]
    parts = [batches(one, 12) for e in known for one in (e, e.backwards())]
    network, line = fit_joint(parts, thresholds=2, width=8, cells=600_000, seed=0)
    other = event(tmp_path / "other", 7)
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
