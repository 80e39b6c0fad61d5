"""Periods that a network is not asked about: which they are, and what is carried there."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from fastrain.archive.store import Archive
from fastrain.rain.between import FARTHEST, Between, asked_of
from fastrain.rain.forecast import forecast_grid
from fastrain.rain.hindcast import Network, Reference, hindcasts
from fastrain.rain.inputs import make_inputs
from fastrain.rain.run import open_run
from fastrain.samples.frames import load_frames
from fastrain.samples.layout import Layout, middle

FIVES = tuple((5 * i, 5 * (i + 1)) for i in range(18))


def test_one_period_every_quarter_of_an_hour_is_asked_about():
    in_frames = [(i, i + 1) for i in range(18)]
    assert asked_of(in_frames, 5.0) == (0, 3, 6, 9, 12, 15, 17)
    assert asked_of([(2 * i, 2 * i + 2) for i in range(6)], 5.0) == tuple(range(6))  # of ten minutes: all
    assert asked_of([(0, 12), (12, 24), (24, 36)], 5.0) == (0, 1, 2)
    assert asked_of([(0, 1)], 5.0) == (0,)
    # Of another length nothing is carried: first and last of each length are asked about.
    assert asked_of([*in_frames[:6], (6, 12), (12, 18)], 5.0) == (0, 3, 5, 6, 7)


@pytest.mark.parametrize("minutes", [1.0, 2.5, 5.0, 6.0, 10.0, 15.0])
def test_no_period_is_farther_than_that_from_both_sides(minutes):
    draw = np.random.default_rng(3)
    for _ in range(50):
        edges = np.cumsum(draw.choice([1, 2, 3], draw.integers(1, 20), p=[0.7, 0.2, 0.1]))
        periods = [(int(a), int(b)) for a, b in zip([0, *edges[:-1]], edges, strict=True)]
        asked = asked_of(periods, minutes)
        assert asked[0] == 0 and asked[-1] == len(periods) - 1 and list(asked) == sorted(set(asked))
        for first, last in pairwise(asked):
            apart = (middle(periods[last]) - middle(periods[first])) * minutes
            assert last == first + 1 or apart <= FARTHEST + 1e-6
            assert last == first + 1 or len({b - a for a, b in periods[first : last + 1]}) == 1
        # Of the first few, up to one that is asked about, the same ones are.
        for n in asked:
            assert asked_of(periods[: n + 1], minutes) == tuple(p for p in asked if p <= n)


def test_what_moves_and_grows_steadily_is_met_between():
    """A shape that moves by whole cells and grows linearly is known at every period from any two."""
    height, width, steps = 40, 50, (2, -1)
    middles, asked = (1.0, 2.0, 3.0, 4.0, 5.0), (0, 3, 4)
    shape = np.random.default_rng(1).normal(size=(3, height, width)).astype(np.float32)

    def at(frames: float) -> np.ndarray:
        moved = np.roll(shape, (round(steps[0] * frames), round(steps[1] * frames)), axis=(1, 2))
        return (1 + 0.5 * frames) * moved

    motion = torch.tensor(steps, dtype=torch.float32)[:, None, None].expand(2, height, width)
    between = Between(asked, middles, motion)
    found = between.all_of(torch.from_numpy(np.stack([at(middles[p]) for p in asked]))).numpy()
    inner = np.s_[:, 10:-10, 10:-10]  # the edges flow in from elsewhere
    for p, frames in enumerate(middles):
        # From both sides the shape, and of its growth the mean by nearness: linear, so the same.
        np.testing.assert_allclose(found[p][inner], at(frames)[inner], atol=1e-4)


@pytest.fixture(scope="module")
def base():
    """`base`, asked for a forecast of every five minutes."""
    run = open_run("base")
    return replace(run, facts={**run.facts, "layout": {"history": 30, "periods": FIVES, "guard": 30}})


def test_only_what_is_learned_is_carried(base, moving):
    archive = Archive.open(moving)
    radar = base.radar(archive)
    assert radar.layout == Layout(30, FIVES).frames(archive.schema.axis.cadence)
    start, stop = archive.span
    frames = load_frames(archive, 1, np.arange(start, stop))
    every, _ = make_inputs(frames, stop - 1, radar)
    some, _ = make_inputs(frames, stop - 1, radar, every=False)
    asked = list(some.asked)
    assert asked == [0, 3, 6, 9, 12, 15, 17] and every.asked == tuple(range(18))
    assert torch.equal(some.x, every.x[asked]) and torch.equal(some.guess, every.guess)
    straight, learned = base.parts(some)
    all_straight, all_learned = base.parts(every)
    np.testing.assert_array_equal(straight, all_straight)
    np.testing.assert_array_equal(learned[asked], all_learned[asked])
    # Between, it is nearer to what the network would say than what it says of the nearest period.
    rest = [p for p in range(18) if p not in asked]
    nearest = [min(asked, key=lambda a: abs(a - p)) for p in rest]
    off, as_nearest = (np.square(given - all_learned[rest]).mean() for given in (learned[rest], all_learned[nearest]))
    assert off < 0.5 * as_nearest


def test_a_forecast_is_its_hindcast(base, moving):
    archive = Archive.open(moving)
    start, stop = archive.span
    radar = base.radar(archive)
    frames = load_frames(archive, 1, np.arange(start, stop))
    issues = np.arange(start + radar.layout.history - 1, stop - radar.layout.ahead)
    reference = Reference(np.zeros((18, 3)), 0.6)
    casts = hindcasts(frames, issues, radar, reference, against=(), network=Network.of(base, radar))
    chances = {cast.issue: cast.chances["network"] for cast in casts}
    for issue in (int(issues[0]), int(issues[len(issues) // 2]), int(issues[-1])):
        told = forecast_grid(base, archive, archive.schema.axis.time(issue))["chance"].values
        np.testing.assert_allclose(told, chances[issue], atol=1e-5)
