"""pysteps' forecasts beside the network's."""

from __future__ import annotations

import builtins
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
import synthetic

from fastrain.archive.store import Archive
from fastrain.core.errors import SettingError, TooBig
from fastrain.rain.hindcast import BASELINES, Reference, baseline, hindcasts
from fastrain.rain.inputs import make_inputs
from fastrain.rain.peers import MEMBERS, PEERS, extrapolated, history_and_motion, peer, shares
from fastrain.rain.radar import Radar, happened
from fastrain.rain.verify import verify
from fastrain.samples.frames import load_frames
from fastrain.samples.layout import FrameLayout, Layout

pytest.importorskip("pysteps")
LAYOUT = Layout(30, ((0, 10), (10, 20)))
THRESHOLDS = (0.1, 1.0)
ISSUE = 40


@pytest.fixture(scope="module")
def window(moving):
    archive = Archive.open(moving)
    radar = Radar.of(archive.schema, 1, THRESHOLDS, LAYOUT.frames(archive.schema.axis.cadence))
    start, stop = archive.span
    # Slots from 0, for the sake of short numbers.
    frames = load_frames(archive, 1, np.arange(start, stop))
    return replace(frames, slots=frames.slots - start), radar


def test_shares_are_those_of_the_members_highest_rates(window):
    radar = replace(window[1], layout=FrameLayout(2, ((0, 2), (2, 3)), 0))
    members = np.zeros((4, 3, 2, 2))
    members[0, 0, 0, 0] = 0.5
    members[1, 1, 0, 0] = 2.0
    members[2, 2, 0, 0] = 1.0
    members[3, :, 1, 1] = np.nan
    members[3, 0, 1, 0] = np.nan
    chance = shares(members, radar)
    np.testing.assert_array_equal(chance[0, :, 0, 0], [0.5, 0.25])
    np.testing.assert_array_equal(chance[1, :, 0, 0], [0.25, 0.25])
    assert np.isnan(chance[:, :, 1, 1]).all() and not np.isnan(chance[:, :, 1, 0]).any()


def test_chances_of_pysteps_are_much_like_our_own_advection(window):
    frames, radar = window
    inputs, moved = make_inputs(frames, ISSUE, radar)
    own = baseline("lagrangian", frames, ISSUE, inputs, moved, radar, Reference(np.zeros((2, 2)), 1.0))
    theirs = peer("pysteps", frames, ISSUE, radar)
    both = np.isfinite(theirs).all(axis=(0, 1))
    assert both.mean() > 0.7
    assert np.abs(theirs - own)[:, :, both].mean() < 0.06
    assert np.corrcoef(theirs[:, 0, both].ravel(), own[:, 0, both].ravel())[0, 1] > 0.9


@pytest.mark.parametrize("name", ["steps", "sprog"])
def test_members_know_something(window, name):
    frames, radar = window
    chance = peer(name, frames, ISSUE, radar)
    grain = 1 if name == "sprog" else MEMBERS
    known = np.isfinite(chance).all(axis=(0, 1))
    np.testing.assert_allclose(chance[:, :, known] * grain, np.round(chance[:, :, known] * grain), atol=1e-9)
    outcome = happened(frames, ISSUE, radar)
    rain = (outcome > 0)[:, known]
    often = rain.mean()
    assert ((chance[:, 0][:, known] - rain) ** 2).mean() < 0.8 * often * (1 - often) + (0.1 if name == "sprog" else 0)
    assert (chance[:, 1][:, known] <= chance[:, 0][:, known]).all()


def test_only_the_past_is_looked_at(window):
    frames, radar = window
    changed = frames.maximum.copy()
    changed[ISSUE + 1 :] = 255
    blind = replace(frames, maximum=changed)
    for name in ("pysteps", "sprog"):
        np.testing.assert_array_equal(peer(name, frames, ISSUE, radar), peer(name, blind, ISSUE, radar))


def test_dry_frames_have_no_motion_and_no_rain(window):
    frames, radar = window
    dry = replace(frames, maximum=np.zeros_like(frames.maximum))
    rate, motion = history_and_motion(dry, ISSUE, radar)
    assert not motion.any() and not np.nan_to_num(extrapolated(rate[-1], motion, 2)).any()
    assert not np.nan_to_num(peer("pysteps", dry, ISSUE, radar)).any()
    assert not np.nan_to_num(peer("steps", dry, ISSUE, radar)).any()


def test_a_frame_without_anything_and_a_lone_echo_end_nothing(window):
    frames, radar = window
    blind = replace(frames, maximum=np.full_like(frames.maximum, 255))
    lone = np.zeros_like(frames.maximum)
    lone[:, 20, 20] = 100
    for name in PEERS:
        assert not np.nan_to_num(peer(name, blind, ISSUE, radar)).any()
        chance = peer(name, replace(frames, maximum=lone), ISSUE, radar)
        assert chance.shape == (2, 2, *frames.maximum.shape[1:])


def test_who_knows_less_is_judged_on_less_and_takes_nothing_from_the_others(window):
    frames, radar = window
    reference = Reference(np.zeros((2, 2)), 0.3)
    (cast,) = hindcasts(frames, np.array([ISSUE]), radar, reference, against=("persistence", "pysteps"))
    (alone,) = hindcasts(frames, np.array([ISSUE]), radar, reference, against=("persistence",))
    known = np.isfinite(cast.chances["pysteps"]).all(axis=1)
    assert not known.all()
    np.testing.assert_array_equal(cast.judged, alone.judged)
    np.testing.assert_array_equal(cast.judged_of("persistence"), alone.judged)
    np.testing.assert_array_equal(cast.judged_of("pysteps"), alone.judged & known)
    np.testing.assert_array_equal(cast.at((3, 4)).judged_of("pysteps")[:, 0, 0], (alone.judged & known)[:, 3, 4])


def test_without_pysteps_it_is_said_what_to_do(window, monkeypatch):
    frames, radar = window
    real = builtins.__import__

    def without(name, *args, **more):
        if name.startswith("pysteps"):
            raise ImportError(name)
        return real(name, *args, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(SettingError, match="pip install pysteps"):
        peer("steps", frames, ISSUE, radar)


def test_a_window_that_pysteps_cannot_do_is_counted_and_no_loss_to_the_others(run, monkeypatch):
    archive = run.archive()
    calls = iter(range(100))

    def moody(*_):
        if next(calls) == 1:
            raise ValueError("Singular matrix")
        return np.zeros((radar.layout.ahead, 64, 64))

    radar = run.radar(archive)
    monkeypatch.setattr("fastrain.rain.peers._sprog", moody)
    found = verify(run, archive, against=("persistence", "sprog"))
    assert found.absent == {"sprog": 1} and found.as_attributes()["issues_without"] == {"sprog": 1}
    beside, alone = found.beside["sprog"], verify(run, archive, against=())
    assert not beside.windows[1].any()
    assert beside.windows[0].any()
    np.testing.assert_array_equal(found.tallies["sprog"].cells, beside.cells)
    np.testing.assert_array_equal(found.tallies["network"].cells, alone.tallies["network"].cells)
    np.testing.assert_array_equal(found.tallies["network"].brier, alone.tallies["network"].brier)
    # Compared with the network on the cells that it knows.
    np.testing.assert_allclose(found.skill("sprog"), 1 - beside.brier / found.tallies["sprog"].brier)
    assert (beside.cells < found.tallies["network"].cells).all()
    row = next(row for row in found.rows() if row["forecaster"] == "sprog")
    assert row["network_brier"] == pytest.approx(float(beside.brier[0, 0]))
    assert [(name, words) for name, words, _ in found.shown()][-2:] == [
        ("sprog", ", where it knows"),
        ("network", ", where sprog knows"),
    ]


def test_pysteps_is_asked_unasked_where_it_is_installed_and_issue_times_are_few(run, monkeypatch):
    archive = run.archive()
    said = []
    found = verify(run, archive, against=None, most=2, say=said.append)
    assert list(found.tallies) == ["network", *BASELINES, "pysteps"]
    assert not said
    monkeypatch.setattr("fastrain.rain.verify.PEER_ISSUES", 1)
    assert list(verify(run, archive, against=None, most=2, say=said.append).tallies) == ["network", *BASELINES]
    assert len(said) == 1
    assert "2 issue times" in said[0]
    assert f"--against {','.join(BASELINES)},pysteps, or take --issues 1" in said[0]
    monkeypatch.setattr("fastrain.rain.verify.find_spec", lambda _: None)
    assert list(verify(run, archive, against=None, most=1, say=said.append).tallies) == ["network", *BASELINES]
    assert len(said) == 1


def test_of_a_radar_that_scans_often_their_motion_is_a_frames_too(tmp_path):
    synthetic.write_archive(tmp_path / "a", synthetic.drifting_rain(24))
    archive = Archive.open(tmp_path / "a")
    start, stop = archive.span
    frames = load_frames(archive, 1, np.arange(start, stop))
    radar = Radar.of(archive.schema, 1, (0.1, 1.0), FrameLayout(15, ((0, 2), (2, 4)), 15))
    radar = replace(radar, cadence=timedelta(minutes=2))
    rate, motion = history_and_motion(frames, start + 20, radar)
    assert len(rate) == 3  # successive ones
    np.testing.assert_allclose(rate, synthetic.TABLE.rates[frames.maximum[18:21]], rtol=1e-5)
    np.testing.assert_allclose(motion[:, 12:-12, 12:-12].mean((1, 2)), (-0.2, -0.12), atol=0.05)  # x first


def test_too_little_history_and_too_many_members_are_refused(window, monkeypatch):
    frames, radar = window
    short = replace(radar, layout=replace(radar.layout, history=2))
    with pytest.raises(SettingError, match="steps: needs 3 frames of history; this run's is 2 frames of 5 min"):
        peer("steps", frames, ISSUE, short)
    monkeypatch.setattr("fastrain.rain.peers.available_bytes", lambda: 1000)
    with pytest.raises(TooBig, match="20 members, 4 frames ahead"):
        peer("steps", frames, ISSUE, radar)
