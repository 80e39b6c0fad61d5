"""Truth against the slow, obvious way: from the pixels, cell by cell."""

from __future__ import annotations

import numpy as np
import pytest
import synthetic

from fastrain.archive.store import Archive
from fastrain.core.errors import ArchiveError, GapError, TooBig
from fastrain.core.levels import NOT_OBSERVED
from fastrain.samples.frames import block_pixels, load_frames, require_history, window_slots
from fastrain.samples.layout import FrameLayout
from fastrain.samples.truth import observed_now, outcomes, thin, wet_share

LAYOUT = FrameLayout(3, ((0, 2), (2, 4)), 1)
THRESHOLDS = (0.1, 1.0, 5.0)


@pytest.fixture(scope="module")
def holes(tmp_path_factory):
    """An archive whose frames are observed here and there only, of a size with edge blocks."""
    rates = synthetic.moving_rain(12, size=22, seed=2)
    draw = np.random.default_rng(4)
    rates[:, :, :4] = np.nan
    rates[draw.random(rates.shape) < 0.15] = np.nan
    path = tmp_path_factory.mktemp("holes") / "a"
    synthetic.write_archive(path, rates, coarseness=(4,))
    return Archive.open(path)


def test_truth_is_the_highest_observed_pixel_of_cell_and_period_where_enough_is_observed(holes):
    start, stop = holes.span
    frames = load_frames(holes, 4, np.arange(start, stop))
    first = tuple(synthetic.TABLE.first_level(t) for t in THRESHOLDS)
    level = holes.level(start, stop)
    some_without = False
    for issue in (2, 5, 7):
        found = outcomes(frames, start + issue, LAYOUT, first)
        for p, (a, b) in enumerate(LAYOUT.periods):
            for row, column in np.ndindex(found.shape[1:]):
                box = level[issue + a + 1 : issue + b + 1, row * 4 : row * 4 + 4, column * 4 : column * 4 + 4]
                seen = box[box != NOT_OBSERVED]
                share = len(seen) / box.size
                rate = synthetic.TABLE.rates[seen].max(initial=0.0)
                expected = sum(rate >= t for t in THRESHOLDS) if share >= 0.75 else -1
                some_without |= expected == -1
                assert found[p, row, column] == expected
    assert some_without


def test_exactly_three_quarters_observed_are_enough(tmp_path):
    rates = np.ones((12, 4, 4), np.float32)
    rates[:, 0, 0] = np.nan
    rates[:, 2, 2:] = np.nan
    synthetic.write_archive(tmp_path / "a", rates)
    archive = Archive.open(tmp_path / "a")
    start, stop = archive.span
    frames = load_frames(archive, 2, np.arange(start, stop))
    found = outcomes(frames, start + 5, LAYOUT, (1,))
    assert found[0].tolist() == [[1, 1], [1, -1]]
    assert observed_now(frames, start + 5).tolist() == [[True, True], [True, False]]


def test_a_missing_frame_counts_as_not_observed(tmp_path):
    rates = synthetic.moving_rain(12, size=16)
    frames = synthetic.frames_of(rates)
    from fastrain.archive.writer import writing

    with writing(tmp_path / "a", synthetic.schema(16, 16)) as writer:
        writer.write([f for i, f in enumerate(frames) if i not in (6, 7)])
        writer.commit("x")
    archive = Archive.open(tmp_path / "a")
    start, stop = archive.span
    held = load_frames(archive, 2, np.arange(start, stop))
    found = outcomes(held, start + 5, LAYOUT, (1,))
    assert (found[0] == -1).all()
    assert (found[1] >= 0).all()
    with pytest.raises(GapError, match=r"needs 3 frames; 2024-07-01T00:30Z and 00:35Z are missing"):
        require_history(archive, start + 8, LAYOUT)


def test_a_block_at_the_edge_is_judged_by_its_own_pixels():
    assert block_pixels((5, 9), 4).tolist() == [[16, 16, 4], [4, 4, 1]]


def test_frames_that_do_not_fit_are_refused_with_a_coarseness_that_does(holes):
    start, stop = holes.span
    with pytest.raises(TooBig, match="--coarseness 4"):
        load_frames(holes, 1, np.arange(start, stop), memory=2000)
    with pytest.raises(ArchiveError, match="holds coarseness 1, 4, not 3"):
        load_frames(holes, 3, np.arange(start, stop))


def test_only_the_slots_of_windows_are_loaded():
    assert window_slots(np.array([10, 12]), LAYOUT).tolist() == list(range(8, 17))
    assert window_slots(np.array([10]), LAYOUT, ahead=False).tolist() == [8, 9, 10]


def test_windows_are_thinned_by_their_input_and_weighted_back():
    wet = np.concatenate([np.zeros(4000), np.full(1000, 0.3)])
    kept, weights = thin(wet, np.random.default_rng(1).random(len(wet)), keep=0.2, dry_below=0.01)
    assert kept[4000:].all()
    assert 0.17 < kept[:4000].mean() < 0.23
    assert weights[kept].sum() == pytest.approx(5000, rel=0.05)


def test_wet_share_and_what_is_seen_now_look_at_the_past_only(holes):
    start, stop = holes.span
    frames = load_frames(holes, 4, np.arange(start, stop))
    issue = start + 5
    before = wet_share(frames, issue, LAYOUT, synthetic.TABLE), observed_now(frames, issue)
    frames.maximum[6:] = 255
    frames.observed[6:] = 0
    after = wet_share(frames, issue, LAYOUT, synthetic.TABLE), observed_now(frames, issue)
    assert before[0] == after[0]
    np.testing.assert_array_equal(before[1], after[1])
