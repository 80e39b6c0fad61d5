"""Inputs: only the past is seen, and it is where it should be."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
import synthetic
import torch

from fastrain.archive.store import Archive
from fastrain.rain import inputs as inputs_module
from fastrain.rain.baselines import motion_ages
from fastrain.rain.batches import turn
from fastrain.rain.hindcast import BASELINES, Reference, hindcasts
from fastrain.rain.inputs import CONDITIONS, channels_of, conditions, edge_distance, make_inputs, move
from fastrain.rain.radar import Radar, happened, rain_rates
from fastrain.rain.smoothing import GUESS_SPREAD, GUESSES, exceedance_chance, guess_logits
from fastrain.rain.straight import StraightLine
from fastrain.rain.windows import Windows, other_truth
from fastrain.samples.frames import load_frames
from fastrain.samples.layout import FrameLayout

LAYOUT = FrameLayout(6, ((0, 2), (2, 4), (4, 6)), 6)
THRESHOLDS = (0.1, 1.0, 5.0)


@pytest.fixture(scope="module")
def held(moving):
    archive = Archive.open(moving)
    start, stop = archive.span
    return (
        archive,
        load_frames(archive, 2, np.arange(start, stop)),
        Radar.of(archive.schema, 2, THRESHOLDS, LAYOUT),
        start,
    )


def test_no_frame_after_the_issue_is_looked_at(held):
    _, frames, radar, start = held
    issue = start + 20
    before, _ = make_inputs(frames, issue, radar)
    kept = frames.maximum[21:].copy(), frames.ratio[21:].copy(), frames.observed[21:].copy()
    draw = np.random.default_rng(0)
    frames.maximum[21:] = draw.integers(0, 100, frames.maximum[21:].shape)
    frames.ratio[21:] = draw.integers(0, 255, frames.ratio[21:].shape)
    after, _ = make_inputs(frames, issue, radar)
    frames.maximum[21:], frames.ratio[21:], frames.observed[21:] = kept
    for a, b in ((before.x, after.x), (before.guess, after.guess), (before.known, after.known)):
        assert torch.equal(a, b)
    assert before.x.shape == (3, channels_of(3), 32, 32)


def test_block_rates_are_the_rates_of_the_pixels(held, moving):
    archive, frames, radar, start = held
    highest, mean, observed = rain_rates(frames, np.array([7]), radar)
    rates = synthetic.TABLE.rates[archive.level(start + 7, start + 8)[0]].reshape(32, 2, 32, 2)
    assert observed.all()
    np.testing.assert_allclose(highest[0].numpy(), rates.max(axis=(1, 3)), rtol=1e-5)
    top = rates.max(axis=(1, 3))
    assert (np.abs(mean[0].numpy() - rates.mean(axis=(1, 3))) <= top / 510 + 1e-6).all()


def test_truth_by_the_mean_is_the_highest_mean_of_the_block_in_the_period(held):
    archive, frames, radar, start = held
    by_mean = replace(radar, truth="mean")
    pixels = synthetic.TABLE.rates[archive.level(start, start + len(frames.slots))]
    means = pixels.reshape(-1, 32, 2, 32, 2).mean(axis=(2, 4))
    top = pixels.reshape(-1, 32, 2, 32, 2).max(axis=(2, 4))
    judged = 0
    for issue in (10, 30):
        found = happened(frames, start + issue, by_mean)
        for p, (a, b) in enumerate(LAYOUT.periods):
            span = slice(issue + a + 1, issue + b + 1)
            highest = means[span].max(axis=0)
            # A mean is kept as a share of the maximum in 255 steps: what is nearer to a threshold cannot be told.
            clear = np.all([np.abs(means[span] - t) > top[span] / 255 for t in THRESHOLDS], axis=(0, 1))
            expected = sum((highest >= t).astype(int) for t in THRESHOLDS)
            np.testing.assert_array_equal(found[p][clear], expected[clear])
            judged += int(clear.sum())
    assert judged > 4000
    assert (happened(frames, start + 10, radar) >= happened(frames, start + 10, by_mean)).all()


def test_chances_of_the_mean_come_from_the_mean_carried_along(held):
    _, frames, radar, start = held
    _, of_mean = make_inputs(frames, start + 20, replace(radar, truth="mean"))
    _, of_maximum = make_inputs(frames, start + 20, radar)
    assert (of_mean.highest <= of_maximum.highest + 1e-5).all()
    assert (of_mean.highest < of_maximum.highest - 1e-3).any()


def test_the_lagrangian_probability_is_the_share_of_cells_around():
    field = torch.zeros(41, 41)
    field[20, 20] = 3.0
    chance = exceedance_chance(field, torch.ones(41, 41, dtype=torch.bool), (1.0, 5.0), radius=4.0)
    assert float(chance[0].sum()) == pytest.approx(1.0, rel=1e-4)
    assert (chance[1] == 0).all()
    assert int(chance[0].argmax()) == 20 * 41 + 20
    sharp = exceedance_chance(field, torch.ones(41, 41, dtype=torch.bool), (1.0,), radius=0.1)
    assert float(sharp[0, 20, 20]) == 1.0


def test_guesses_are_the_logits_of_conditional_chances_none_of_them_sure():
    chance = torch.rand(2, 3, 4, 9, 7)  # of thresholds and guesses; a guess may say more of a higher threshold
    chance[:, :, 2] = torch.tensor([1.0, 0.5, 0.0]).view(1, 3, 1, 1)
    below = torch.cat([torch.ones(2, 1, 4, 9, 7), chance[:, :-1]], dim=1)
    conditional = ((chance + 0.01) / (below + 0.02)).clamp(0.01, 0.99)
    torch.testing.assert_close(guess_logits(chance), torch.logit(conditional), atol=1e-4, rtol=1e-4)


def test_a_window_is_the_same_whether_it_was_kept_or_made_anew(held):
    archive, frames, radar, start = held
    big, none = Windows(archive, 2, radar, 10**9), Windows(archive, 2, radar, 0)
    for issue in (start + 10, start + 11, start + 10):
        assert torch.equal(big[issue].inputs.x, none[issue].inputs.x)
        assert torch.equal(none[issue].inputs.x, make_inputs(frames, issue, radar)[0].x)
        np.testing.assert_array_equal(none[issue].truth, happened(frames, issue, radar))
    assert big[start + 10] is big[start + 10]
    assert none[start + 10] is not none[start + 10]
    one = big[start + 10].bytes
    few = Windows(archive, 2, radar, int(1.5 * one))
    assert few[start + 10] is few[start + 10]
    assert few[start + 11] is not few[start + 11]
    few.forget()
    assert few[start + 10] is not few[start + 10]


def test_the_eight_turns_of_a_square_are_different_and_keep_maps_together():
    field = torch.arange(16.0).view(1, 4, 4)
    seen = {tuple(turn(way, field)[0].flatten().tolist()) for way in range(8)}
    assert len(seen) == 8
    for way in range(8):
        a, b = turn(way, field, field * 2)
        assert torch.equal(a * 2, b)


def test_a_control_gets_the_truth_of_another_window_with_its_cells_shuffled(held):
    archive, _, radar, start = held
    issues = np.arange(start + 10, start + 40)
    others = other_truth(3, issues)
    assert sorted(others.values()) == sorted(others)
    plain, control = Windows(archive, 2, radar), Windows(archive, 2, radar, others=others)
    for issue in issues[:4]:
        truth, other = control[int(issue)].truth, plain[others[int(issue)]].truth
        np.testing.assert_array_equal(truth < 0, other < 0)
        np.testing.assert_array_equal(np.sort(truth.reshape(3, -1)), np.sort(other.reshape(3, -1)))
        assert (truth != other).any()
        assert torch.equal(control[int(issue)].inputs.x, plain[int(issue)].inputs.x)
        np.testing.assert_array_equal(truth, control[int(issue)].truth)


def test_baselines_say_what_they_are_named_for(held):
    archive, frames, radar, start = held
    slopes = np.zeros((3, GUESSES + 1, CONDITIONS + 1))
    slopes[:, 0, -1], slopes[:, -1, -1] = 0.8, -0.2  # of the first guess, and an offset
    reference = Reference(np.full((3, 3), 0.25), 0.3, StraightLine(slopes))
    (cast,) = hindcasts(frames, np.array([start + 30]), radar, reference)
    assert set(cast.chances) == set(BASELINES)
    inputs, _ = make_inputs(frames, start + 30, radar)
    conditional = 1 / (1 + np.exp(-(0.8 * inputs.guess[:, :, 0].double().numpy() - 0.2)))
    np.testing.assert_allclose(cast.chances["calibrated"], conditional.cumprod(axis=1), atol=1e-5)
    assert (cast.chances["climatology"] == 0.25).all()
    level = frames.maximum[30]
    for k, threshold in enumerate(THRESHOLDS):
        now = synthetic.TABLE.rates[level] >= threshold
        for p in range(3):
            np.testing.assert_array_equal(cast.chances["persistence"][p, k], now)
    assert set(np.unique(cast.chances["advection"])) <= {0.0, 1.0}
    rates = synthetic.TABLE.rates[archive.level(start + 31, start + 37)].reshape(6, 32, 2, 32, 2).max(axis=(2, 4))
    for p in range(3):
        highest = rates[2 * p : 2 * p + 2].max(axis=0)
        np.testing.assert_array_equal(cast.outcome[p], sum(highest >= t for t in THRESHOLDS))
    assert cast.judged.mean() > 0.8


def shifted(field, cells):
    """Return a field moved by whole cells, nothing coming in from outside."""
    (dy, dx), out = cells, np.zeros_like(field)
    height, width = field.shape[-2:]
    rows, columns = slice(max(0, dy), min(height, height + dy)), slice(max(0, dx), min(width, width + dx))
    out[..., rows, columns] = field[
        ..., slice(rows.start - dy, rows.stop - dy), slice(columns.start - dx, columns.stop - dx)
    ]
    return out


def inside_by_hand(seen, cell_km):
    """Return how far each cell lies from the nearest that is not seen, in hundreds of km, looking at every pair."""
    missing = np.argwhere(~np.pad(seen, 1)) - 1
    cells = np.argwhere(np.ones_like(seen))
    far = np.sqrt(((cells[:, None] - missing[None]) ** 2).sum(axis=2)).min(axis=1).reshape(seen.shape)
    return np.minimum(far * cell_km / 100, 1.0)


def test_what_is_seen_far_from_every_edge_is_as_good_as_far():
    seen = np.ones((40, 9), bool)
    seen[3, 4] = False
    for km in (4.0, 30.0):
        found = edge_distance(torch.from_numpy(seen), km).numpy()
        np.testing.assert_allclose(found, inside_by_hand(seen, km), atol=1e-6)
    assert found.max() == 1 and found[3, 4] == 0
    assert not edge_distance(torch.zeros(5, 6, dtype=torch.bool), 4.0).any()


def test_what_the_network_sees_is_what_it_is_said_to_see(held, monkeypatch):
    """Every channel worked out by hand, of rain carried by whole cells: by 1 row and 2 columns a frame."""
    _, frames, radar, start = held
    issue, dy, dx = start + 20, 1, -2
    frames = replace(frames, observed=frames.observed.copy(), maximum=frames.maximum.copy())
    frames.maximum[20 - 2, 19:26, 11:18] = 255  # not observed, in a frame that is shown
    frames.maximum[20, 18:22, 10:14] = 255  # and in the last
    flow = torch.tensor([dy, dx], dtype=torch.float32)[:, None, None].expand(2, 32, 32)
    monkeypatch.setattr("fastrain.rain.inputs._motion", lambda *_: flow)
    # More thresholds than one, and a truth that tells maximum and mean apart.
    radar = replace(radar, truth="maximum")
    found, _ = make_inputs(frames, issue, radar)

    rows = np.arange(20 - 5, 21)
    rates = np.nan_to_num(radar.table.rates)
    level = frames.maximum[rows]
    seen = level != 255
    highest = np.where(seen, rates[level], 0)
    if radar.average == "rain_rate":
        mean = highest * (frames.ratio[rows] / 255)
    else:
        mean = np.interp(
            level * (frames.ratio[rows] / 255), np.arange(radar.table.count + 1), rates[: radar.table.count + 1]
        )
        mean = np.where(seen, mean, 0)

    def told(rate):
        return np.log10(1 + rate / 0.1) / 2

    ages = (0, 2, 4)  # of six frames of history three, evenly
    inner = np.s_[14:-8, 8:-14]  # where nothing has come from beyond the edge
    count, unknown = len(THRESHOLDS), 0
    for p, (a, b) in enumerate(LAYOUT.periods):
        x = found.x[p].double().numpy()
        at = 0
        for age in ages:  # the history where it was
            for field in (highest, mean):
                np.testing.assert_allclose(x[at], told(field[-1 - age]) * seen[-1 - age], atol=2e-3)
                at += 1
        middle_of = round((a + b + 1) / 2)  # frames after the issue
        for age in ages:  # and carried on to the middle of the period
            by = ((middle_of + age) * dy, (middle_of + age) * dx)
            known = shifted(seen[-1 - age].astype(float), by) > 0.5
            for field in (highest, mean):
                np.testing.assert_allclose(x[at][inner], (told(shifted(field[-1 - age], by)) * known)[inner], atol=2e-3)
                at += 1
        passing = np.max([shifted(highest[-1], (s * dy, s * dx)) for s in range(a + 1, b + 1)], axis=0)
        known = (
            np.mean([shifted(seen[-1].astype(float), (s * dy, s * dx)) for s in range(a + 1, b + 1)], axis=0) >= 0.75
        )
        speed = min(3.0, np.hypot(dy, dx) * radar.cell_km / radar.minutes)
        inside = inside_by_hand(seen[-1], radar.cell_km)
        by = (middle_of * dy, middle_of * dx)
        of_it = [told(passing), seen[-1].astype(float), known.astype(float), np.full((32, 32), speed), inside]
        # Hours since the older frames, 1 where what they saw is not known; how far inside the latest was seen.
        for age in ages[1:]:
            there = shifted(seen[-1 - age].astype(float), ((middle_of + age) * dy, (middle_of + age) * dx)) > 0.5
            of_it.append(np.where(there, age * radar.minutes / 60, 1.0))
            unknown += int((~there[inner]).sum())
        of_it.append(shifted(inside, by))
        for expected in of_it:
            np.testing.assert_allclose(x[at][inner], expected[inner], atol=4e-3)
            at += 1
        # Then the first guesses as chances, each threshold's in turn, the smoothed ones as they are scored; the past.
        lead = (a + b + 1) / 2 * radar.minutes
        for k in range(count):
            for g, spread in enumerate(GUESS_SPREAD):
                smooth = exceedance_chance(
                    torch.from_numpy(passing).float(),
                    torch.from_numpy(known),
                    THRESHOLDS,
                    spread * lead / radar.cell_km,
                )[k]
                np.testing.assert_allclose(x[at + k * GUESSES + g][inner], smooth.numpy()[inner], atol=0.08)
        at += count * GUESSES
        assert len(x) == at + 2 * count == channels_of(count)
        lead_hours, length = lead / 60, (b - a) * radar.minutes
        np.testing.assert_allclose(
            found.known[p].numpy(),
            [
                np.log2(lead / 30) / 3,
                np.log2(length / 10) / 3,
                np.log2(radar.minutes / 5) / 2,
                np.log2(radar.cell_km / 4) / 2,
                lead_hours - 0.5,
                0.0,
            ],
            atol=1e-6,
        )
    assert unknown > 5  # cells that an older frame says nothing of
    assert found.x[:, :12].std() > 0.1  # there is rain to be told from none
    # Of another cadence and cell: a lead of 25 minutes, a period of 20.
    told = conditions(1, 3, replace(radar, cadence=timedelta(minutes=10), cell_km=2.0))
    np.testing.assert_allclose(told, [np.log2(25 / 30) / 3, 1 / 3, 0.5, -0.5, 25 / 60 - 0.5, 0.0], atol=1e-6)
    of_mean, _ = make_inputs(frames, issue, replace(radar, truth="mean"))
    assert (of_mean.known[:, -1] == 1).all()


@pytest.mark.parametrize(
    ("history", "minutes", "ages"),
    [
        (15, 2.0, (8, 4, 0)),
        (6, 5.0, (2, 1, 0)),
        (12, 2.5, (6, 3, 0)),
        (3, 10.0, (2, 1, 0)),
        (2, 15.0, (1, 0)),
        (30, 1.0, (14, 7, 0)),
        (4, 1.0, (2, 1, 0)),  # no older than there are
    ],
)
def test_motion_is_sought_in_frames_some_minutes_apart_whatever_the_cadence(history, minutes, ages):
    assert motion_ages(history, minutes) == ages


def test_of_a_radar_that_scans_often_the_motion_is_a_frames_all_the_same(tmp_path, monkeypatch):
    """Rain that moves by a fifth of a cell in two minutes: looked for over eight."""
    synthetic.write_archive(tmp_path / "a", synthetic.drifting_rain(24))
    archive = Archive.open(tmp_path / "a")
    start, stop = archive.span
    frames = load_frames(archive, 1, np.arange(start, stop))
    layout = FrameLayout(15, ((0, 2), (2, 4)), 15)
    radar = replace(Radar.of(archive.schema, 1, THRESHOLDS, layout), cadence=timedelta(minutes=2))
    issue = start + 20
    seen = []
    real = inputs_module._motion
    monkeypatch.setattr(inputs_module, "_motion", lambda mean, *rest: seen.append(mean) or real(mean, *rest))
    _, moved = make_inputs(frames, issue, radar)
    again = move(frames, issue, radar)
    assert torch.equal(moved.travelled[:4], again.travelled[:4])
    for mean in seen:
        expected = rain_rates(frames, np.array([12, 16, 20]), radar)[1]
        assert torch.equal(mean, expected)
    inner = moved.travelled[0][:, 12:-12, 12:-12].mean((1, 2))
    np.testing.assert_allclose(inner, (-0.12, -0.2), atol=0.03)
