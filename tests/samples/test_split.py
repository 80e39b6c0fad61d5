"""Splits of time: nothing leaks, everything fits, and what does not is said."""

from __future__ import annotations

import itertools
from datetime import timedelta

import numpy as np
import pytest
import synthetic
from hypothesis import given, settings
from hypothesis import strategies as st

from fastrain.archive.store import Archive
from fastrain.core.errors import TooShort, UsageError
from fastrain.samples.layout import FrameLayout, Layout, candidates
from fastrain.samples.split import FEWEST, issue_slots, split_archive, split_slots

FIVE = timedelta(minutes=5)
SHORT = Layout(30, tuple((10 * i, 10 * i + 10) for i in range(6)))


def test_seven_and_a_half_hours_give_about_16_issue_times_to_train_4_to_calibrate_and_8_to_test(night):
    split = split_archive(Archive.open(night))
    assert split.layout.history == 30
    assert split.layout.periods[-1] == (50, 60)
    counts = {name: len(issues) for name, issues in split.issues.items()}
    assert counts["train"] in range(15, 19)
    assert counts["calibrate"] in range(3, 6)
    assert counts["test"] in range(7, 10)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(60, 400),
    st.lists(st.tuples(st.integers(0, 399), st.integers(1, 12)), max_size=6),
    st.integers(2, 7),
    st.integers(1, 6),
)
def test_no_window_leaves_its_block_and_the_guard_holds_whatever_the_gaps(slots, gaps, history, periods):
    observed = np.ones(slots, bool)
    for at, length in gaps:
        observed[at : at + length] = False
    layout = FrameLayout(history, tuple((2 * i, 2 * i + 2) for i in range(periods)), 6)
    blocks = split_slots(observed, layout)
    if blocks is None:
        return
    spans = [blocks[name] for name in ("train", "calibrate", "test")]
    for (_, end), (start, _) in itertools.pairwise(spans):
        assert start - end >= layout.guard
    for name, (start, stop) in blocks.items():
        issues = issue_slots(observed, layout, start, stop)
        assert len(issues) >= FEWEST[name]
        assert (issues - layout.history + 1 >= start).all()
        assert (issues + layout.ahead < stop).all()
        for issue in issues:
            assert observed[issue - layout.history + 1 : issue + 1].all()


def test_a_window_with_a_hole_in_its_history_is_no_issue_time():
    layout = FrameLayout(3, ((0, 2),), 6)
    observed = np.ones(20, bool)
    observed[8] = False
    issues = issue_slots(observed, layout, 0, 20)
    assert not set(range(6, 11)) & set(issues.tolist())
    assert {5, 11} <= set(issues.tolist())


def test_a_day_gets_the_ancestors_five_hours_and_less_gets_an_hour():
    assert candidates(timedelta(days=30), timedelta(minutes=10))[0].periods == tuple(
        (60 * i, 60 * i + 60) for i in range(5)
    )
    assert candidates(timedelta(hours=8), FIVE)[0] == SHORT
    six = candidates(timedelta(hours=8), timedelta(minutes=6))[0]
    assert six.periods[0] == (0, 12)
    assert six.periods[-1] == (48, 60)


def test_a_layout_in_minutes_becomes_frames_of_any_fitting_cadence():
    assert SHORT.frames(FIVE) == FrameLayout(6, tuple((2 * i, 2 * i + 2) for i in range(6)), 6)
    assert SHORT.frames(timedelta(minutes=2)).history == 15
    with pytest.raises(UsageError, match="do not fit frames every 6 min"):
        SHORT.frames(timedelta(minutes=6))


@pytest.mark.parametrize("frames", [1, 3, 12, 40])
def test_too_short_an_archive_says_what_it_holds_and_what_is_needed(tmp_path, frames):
    synthetic.write_archive(tmp_path / "a", synthetic.moving_rain(frames, size=16))
    with pytest.raises(TooShort, match=rf"holds {frames} frames? \(2024-07-01T00:00Z.*needs about \d+ frames"):
        split_archive(Archive.open(tmp_path / "a"))


def test_what_is_said_to_be_needed_is_enough(tmp_path):
    with pytest.raises(TooShort) as caught:
        synthetic.write_archive(tmp_path / "a", synthetic.moving_rain(3, size=16))
        split_archive(Archive.open(tmp_path / "a"))
    needed = int(str(caught.value).split("needs about ")[1].split()[0])
    synthetic.write_archive(tmp_path / "b", synthetic.moving_rain(needed, size=16))
    assert split_archive(Archive.open(tmp_path / "b")).layout.periods == ((0, 10),)
