"""The run that ships in the package: it forecasts on radars before any training, and is not judged on what it saw."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import synthetic
from program import ok, refused

from fastrain.archive.store import Archive
from fastrain.archive.writer import writing
from fastrain.core.errors import RunError, TooShort
from fastrain.core.frame import Frame
from fastrain.ingest.ingest import IngestSettings, ingest
from fastrain.rain.forecast import forecast_grid
from fastrain.rain.hindcast import Network, Reference, hindcasts
from fastrain.rain.inputs import make_inputs
from fastrain.rain.run import base_path, network_identity, open_run
from fastrain.rain.verify import held_out, verify
from fastrain.samples.frames import load_frames


@pytest.fixture(scope="module")
def base():
    return open_run("base")


def test_it_is_small_whole_and_says_what_it_is(base):
    assert sum(path.stat().st_size for path in base_path().iterdir()) < 3e6
    assert network_identity(base.network) == base.identity
    card = (base_path() / "README.md").read_text(encoding="utf-8")
    for word in ("KNMI", "Finnish Meteorological Institute", "MRMS", "CC BY 4.0", base.identity):
        assert word in card
    for name in base.facts["events"]:
        assert name["name"] in card


def test_it_forecasts_on_a_radar_that_it_never_saw(base, moving):
    archive = Archive.open(moving)
    chances = forecast_grid(base, archive)
    assert chances["chance"].dims == ("period", "threshold", "y", "x")
    assert chances.attrs["coarseness"] == 1  # cells of 4 km
    values = chances["chance"].values
    assert np.isfinite(values).all() and (np.diff(values, axis=1) <= 0).all()
    assert [int(m) for m in chances["lead_time"].values / np.timedelta64(1, "m")] == [30, 60, 90]


def test_its_thresholds_are_called_by_what_the_radar_tells_apart(base, franktown, tmp_path):
    pictures = sorted(franktown.glob("*2013_08_08*"))
    ingest(pictures, tmp_path / "a", IngestSettings())
    said = json.loads(ok("forecast", "base", "--archive", tmp_path / "a", "--pixel", "240,240", "--json").stdout)
    assert said["thresholds"] == [0.1, 1.0, 4.0]  # the legend has no 5 mm/h
    assert said["network"] == base.identity and len(said["periods"]) == 3
    assert "holds no 30 min of frames with 90 min after them" in refused(
        1, "verify", "base", "--archive", tmp_path / "a"
    )
    for period in said["periods"]:
        chances = list(period["chances"].values())
        assert chances == sorted(chances, reverse=True)


def test_it_has_skill_before_any_training(base, moving):
    found = verify(base, Archive.open(moving))
    assert (found.skill("persistence")[:, 0] > 0).all()
    # What grows and fades here does so within half an hour: the last period cannot be known.
    assert (found.skill("climatology")[:2, 0] > 0.2).all()


def test_it_is_not_judged_on_frames_that_it_learned_from(base, night):
    archive = Archive.open(night)  # a part of the map that it learned from
    with pytest.raises(TooShort, match="no issue time is left that the run has not seen"):
        verify(base, archive)


def test_it_is_not_judged_on_such_frames_under_another_name_place_and_time(base, moving):
    archive = Archive.open(moving)  # far from all that it learned from
    start, stop = archive.span
    whole = held_out(base, archive)
    seen = start + 40
    digest = archive.slots("digest", seen, seen + 1)[0].tobytes()
    events = [*base.facts["events"], {**base.facts["events"][0], "digests": [digest.hex()]}]
    left = held_out(replace(base, facts={**base.facts, "events": events}), archive)
    layout = base.layout.frames(archive.schema.axis.cadence)
    first, last = whole - layout.history + 1 - layout.guard, whole + layout.ahead + layout.guard
    np.testing.assert_array_equal(left, whole[(last < seen) | (first > seen)])
    assert 0 < len(left) < len(whole)
    everything = [one.tobytes().hex() for one in archive.slots("digest", start, stop)]
    events[-1]["digests"] = everything
    with pytest.raises(TooShort, match="no issue time is left that the run has not seen"):
        held_out(replace(base, facts={**base.facts, "events": events}), archive)


def test_its_card_lists_the_frames_that_it_saw(base):
    card = (base_path() / "README.md").read_text(encoding="utf-8")
    assert len(base.frames_seen) > 100
    assert all(digest.hex() in card for digest in base.frames_seen)


def test_it_wants_an_archive():
    with pytest.raises(RunError, match="of no archive; name yours with --archive"):
        open_run("base").archive()
    assert "--archive" in refused(1, "forecast", "base", "--pixel", "1,1")


def test_a_folder_of_the_name_goes_first(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").symlink_to(run.path)
    assert open_run("base").identity == run.identity


def test_a_forecast_and_its_hindcast_learn_the_same_from_the_last_hours(base, moving):
    archive = Archive.open(moving)
    radar = base.radar(archive)
    start, stop = archive.span
    issues = held_out(base, archive)
    frames = load_frames(archive, 1, np.arange(start, stop))
    reference = Reference(np.zeros((3, 3)), 0.6)
    casts = {
        cast.issue: cast.chances["network"]
        for cast in hindcasts(frames, issues, radar, reference, against=(), network=Network.of(base, radar))
    }
    differ = 0
    for issue in issues[:: len(issues) // 4]:
        chance = forecast_grid(base, archive, archive.schema.axis.time(int(issue)))["chance"].values
        np.testing.assert_allclose(chance, casts[issue], atol=1e-5)
        # Areas are held alike by one that has nothing to look back at.
        blank = Network.of(base, radar)
        inputs, moved = make_inputs(frames, int(issue), radar, every=False)
        parts = blank.summands(frames, int(issue), inputs, moved, radar)
        differ += not np.allclose(blank.chances(parts, int(issue)), chance, atol=1e-3)
    assert differ >= 2  # it does learn something


def test_scored_at_some_issue_times_it_has_learned_from_those_between(base, moving):
    archive = Archive.open(moving)
    every, some = (verify(base, archive, against=("persistence",), most=most) for most in (None, 4))
    assert len(some.slots) == 4 and set(some.slots) < set(every.slots)
    scores = dict(zip(every.slots.tolist(), every.tallies["network"].windows, strict=True))
    for slot, found in zip(some.slots.tolist(), some.tallies["network"].windows, strict=True):
        np.testing.assert_allclose(found, scores[slot], rtol=1e-6)


def test_a_forecast_of_the_last_frame_looks_at_no_later_one(base, moving, tmp_path):
    archive = Archive.open(moving)
    start, stop = archive.span
    at = archive.schema.axis.time(stop - 30)
    short = tmp_path / "short"
    axis = archive.schema.axis
    with writing(short, archive.schema) as writer:
        blocks = archive.blocks(1, start, stop - 29)
        writer.write(
            [
                Frame(level, axis.time(start + i), archive.schema.grid, archive.schema.table, "again")
                for i, level in enumerate(blocks["max"])
            ]
        )
        writer.commit("again")
    one, other = (forecast_grid(base, a, at)["chance"].values for a in (archive, Archive.open(short)))
    np.testing.assert_array_equal(one, other)


def test_it_speaks_of_both_truths_and_back(base):
    means = base.speaking_of("mean")
    assert means.truth == "mean" and means.facts["decide"] == base.facts["means"]["decide"] != base.facts["decide"]
    again = means.speaking_of("maximum")
    assert again.truth == "maximum" and again.facts == base.facts


def test_dry_time_is_scored_without_a_number_that_is_none(base, tmp_path):
    rates = synthetic.moving_rain(40, size=32)
    rates[rates > 0] = 0.3
    synthetic.write_archive(tmp_path / "a", rates)
    said = json.loads(ok("verify", "base", "--archive", tmp_path / "a", "--json").stdout)
    heavy = [row for row in said["scores"] if row["threshold_mm_h"] == 5 and row["forecaster"] == "persistence"]
    assert heavy and all(row["events"] == 0 and row["network_skill"] is None for row in heavy)
    assert said["truth"] == "maximum"
