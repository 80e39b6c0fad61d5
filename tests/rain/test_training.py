"""Training: it learns, its control does not, it repeats, and it survives a kill."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
import synthetic

from fastrain.archive.store import Archive
from fastrain.core.errors import RunError, TooBig, TooShort
from fastrain.core.time import parse_time
from fastrain.engine.fit import FitSettings
from fastrain.rain.new_run import TrainSettings
from fastrain.rain.run import default_coarseness, open_run
from fastrain.rain.train import train
from fastrain.rain.verify import held_out, verify

SMALL = TrainSettings(cells=900_000, width=12)


def skill(run):
    """Brier skill of the rain threshold, by period, over climatology, persistence, and the test time's own frequency.

    The last is the best that a forecast without knowledge of the moment could do, were it told the future's frequency.
    """
    found = verify(run, run.archive())
    tally = found.tallies["network"]
    often = tally.events / tally.cells
    told = 1 - tally.brier / (often * (1 - often))
    return found.skill("climatology")[:, 0], found.skill("persistence")[:, 0], told[:, 0]


def test_it_beats_climatology_and_persistence_on_held_out_time(run):
    for over in skill(run):
        assert over.mean() > 0.3
        assert (over > 0.1).all()


def test_the_same_run_with_its_truth_shuffled_does_not(moving, tmp_path):
    control = train(moving, tmp_path / "r", TrainSettings(cells=900_000, width=12, shuffle_truth=True))
    _, _, over_frequency = skill(control)
    assert (over_frequency <= 0).all()


def test_the_same_seed_gives_the_same_weights_and_another_does_not(run, moving, tmp_path):
    again = train(moving, tmp_path / "again", SMALL)
    assert again.identity == run.identity
    other = train(moving, tmp_path / "other", TrainSettings(cells=100_000, width=12, seed=1))
    assert other.identity != run.identity


class Killed(Exception):
    pass


def test_a_killed_training_goes_on_to_the_same_weights(run, moving, tmp_path, monkeypatch):
    monkeypatch.setattr("fastrain.rain.fitting.FitSettings", partial(FitSettings, checkpoint_seconds=0.0))
    reached = []

    def kill(done, total, text):
        if "loss" not in text:
            return
        reached.append(done)
        if done == total // 2:
            raise Killed

    with pytest.raises(Killed):
        train(moving, tmp_path / "r", SMALL, progress=kill)
    with pytest.raises(RunError, match="not finished"):
        open_run(tmp_path / "r")
    with pytest.raises(RunError, match="of other settings"):
        train(moving, tmp_path / "r", TrainSettings(cells=900_000, width=12, seed=5))
    resumed = []
    finished = train(moving, tmp_path / "r", SMALL, progress=lambda *told: resumed.append(told))
    assert next(done for done, _, text in resumed if "loss" in text) == reached[-1]
    assert finished.identity == run.identity
    assert finished.facts["reference"] == run.facts["reference"]
    assert sorted(p.name for p in (tmp_path / "r").iterdir()) == ["log.jsonl", "loss.png", "run.json", "weights.pt"]


def test_a_finished_run_is_not_overwritten(run, moving):
    with pytest.raises(RunError, match="holds a finished run"):
        train(moving, run.path, SMALL)


def test_a_run_remembers_what_it_was_made_of(run, moving):
    facts = json.loads((run.path / "run.json").read_text())
    archive = Archive.open(moving)
    assert facts["archive"]["identity"] == archive.schema.identity
    assert facts["settings"]["seed"] == 0
    assert facts["issues"] == {
        "train": len_of(run, "train"),
        "calibrate": len_of(run, "calibrate"),
        "test": len_of(run, "test"),
    }
    assert open_run(run.path).thresholds == run.thresholds
    assert facts["peak_bytes"] > 0


def len_of(run, name):
    from fastrain.samples.split import split_archive

    return len(split_archive(run.archive()).issues[name])


def test_what_was_trained_on_is_never_scored_on(run):
    archive = run.archive()
    from fastrain.samples.split import split_archive

    split = split_archive(archive)
    layout = run.layout.frames(archive.schema.axis.cadence)
    issues = held_out(run, archive)
    np.testing.assert_array_equal(issues, split.issues["test"])
    assert issues.min() - layout.history + 1 - split.blocks["calibrate"][1] >= layout.guard


def test_dry_weather_is_scored_too(run, moving, tmp_path):
    """All dry frames are alike: one in training must not make the dry ones of the test seen."""
    archive = Archive.open(moving)
    start, stop = archive.span
    rates = synthetic.TABLE.decode(archive.level(start, stop))
    rates[:30] = 0.0
    rates[70:] = 0.0
    synthetic.write_archive(tmp_path / "a", rates)
    np.testing.assert_array_equal(held_out(run, Archive.open(tmp_path / "a")), held_out(run, archive))


def test_on_another_archive_of_the_same_ground_the_time_of_training_is_left_out(run, tmp_path):
    rates = synthetic.moving_rain(60, size=64, seed=77)
    synthetic.write_archive(tmp_path / "same time", rates)
    with pytest.raises(TooShort, match="not seen"):
        verify(run, Archive.open(tmp_path / "same time"))
    from datetime import timedelta

    from fastrain.archive.writer import writing

    later = synthetic.frames_of(rates, start=synthetic.START + timedelta(days=2))
    with writing(tmp_path / "later", synthetic.schema(64, 64)) as writer:
        writer.write(later)
        writer.commit("x")
    found = verify(run, Archive.open(tmp_path / "later"))
    assert found.issues == 60 - 18 + 1


def test_time_before_that_of_training_is_held_out_by_the_guard_too(run, tmp_path):
    """An archive that begins a day before the run's own: the last window before it ends half an hour before it."""
    from datetime import timedelta

    from fastrain.archive.writer import writing

    begin = synthetic.START + timedelta(minutes=5 * 10) - timedelta(hours=4)
    frames = synthetic.frames_of(np.ones((60, 64, 64), np.float32), start=begin)
    with writing(tmp_path / "before", synthetic.schema(64, 64)) as writer:
        writer.write(frames)
        writer.commit("x")
    archive = Archive.open(tmp_path / "before")
    first = min(time for _, (time, _) in run.learned)
    layout = run.layout.frames(archive.schema.axis.cadence)
    issues = held_out(run, archive)
    axis = archive.schema.axis
    ends = axis.time(int(issues.max()) + layout.ahead)
    began = parse_time(first)
    assert timedelta(minutes=30) < began - ends <= timedelta(minutes=35)  # the next would be within the half hour


def test_a_run_with_damaged_facts_is_refused(run, tmp_path):
    for text in ("[]", "{", '{"fastrain_run": 1}', '{"fastrain_run": 99}'):
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(RunError, match=r"run\.json"):
            open_run(tmp_path)


def test_the_scores_are_those_of_the_chances_cell_by_cell(run):
    """Every number of the table, worked out again from the forecasts with numpy alone."""
    from fastrain.rain.forecast import forecast_grid

    archive = run.archive()
    found = verify(run, archive)
    layout = run.layout.frames(archive.schema.axis.cadence)
    c = run.coarseness_on(archive)
    squared = np.zeros((len(layout.periods), len(run.thresholds)))
    cells = np.zeros_like(squared)
    from fastrain.rain.hindcast import Reference, hindcasts
    from fastrain.samples.frames import load_frames, window_slots

    issues = held_out(run, archive)
    frames = load_frames(archive, c, window_slots(issues, layout))
    radar = run.radar(archive)
    reference = Reference.from_attributes(run.facts["reference"])
    by_wetness = {}
    for cast in hindcasts(frames, issues, radar, reference):
        chance = forecast_grid(run, archive, archive.schema.axis.time(cast.issue))["chance"].values
        level = archive.level(cast.issue + 1, cast.issue + 1 + layout.ahead)
        rates = synthetic.TABLE.rates[level]
        rates = rates.reshape(len(rates), rates.shape[1] // c, c, rates.shape[2] // c, c).max(axis=(2, 4))
        now = synthetic.TABLE.rates[archive.level(cast.issue, cast.issue + 1)[0]]
        now = now.reshape(now.shape[0] // c, c, now.shape[1] // c, c).max(axis=(1, 3)) >= run.thresholds[0]
        wet = now[cast.judged.any(axis=0)].mean()
        kind = 0 if wet < 0.01 else 1 if wet < 0.1 else 2
        for p, (a, b) in enumerate(layout.periods):
            highest = rates[a:b].max(axis=0)
            for k, threshold in enumerate(run.thresholds):
                error = (chance[p, k] - (highest >= threshold)) ** 2
                by_wetness.setdefault((kind, p, k), []).append(error[cast.judged[p]])
                squared[p, k] += error[cast.judged[p]].sum()
                cells[p, k] += cast.judged[p].sum()
    np.testing.assert_allclose(found.tallies["network"].brier, squared / cells, rtol=2e-3)
    np.testing.assert_array_equal(found.tallies["network"].cells, cells)
    for (kind, p, k), errors in by_wetness.items():
        brier = found.wetness["network"].tallies[kind].brier[p, k]
        assert brier == pytest.approx(np.concatenate(errors).mean(), rel=2e-3)
        assert found.wetness["network"].windows[kind] == len(errors)


def test_calibrated_advection_is_the_line_fitted_before_the_network_was(run, moving):
    """It is no baseline if it moves with what the network learns: the run keeps it as it was."""
    held = np.array(run.facts["reference"]["line"])
    straight = run.network.straight
    learned = np.concatenate([straight.weight.detach().numpy(), straight.bias.detach().numpy()[:, None]], axis=1)
    moved = np.abs(learned.reshape(held.shape) - held)
    assert 1e-3 < moved.max() < 1.0
    found = verify(run, run.archive())
    tally = found.tallies["calibrated"]
    # It is calibrated on another time, and beats what it is made of.
    assert (np.abs(tally.chance / tally.cells - tally.events / tally.cells) < 0.08).all()
    assert tally.brier.sum() < found.tallies["lagrangian"].brier.sum()


def test_yes_is_what_the_calibration_time_settled(run):
    found = verify(run, run.archive())
    for name, tally in found.tallies.items():
        np.testing.assert_array_equal(tally.decide, run.facts["decide"][name])
    assert len(set(np.array(run.facts["decide"]["network"]).ravel().tolist())) > 1


def test_climatology_is_how_often_it_rained_in_the_time_of_training(run):
    """Counted anew from the pixels, each window once."""
    from fastrain.samples.split import split_archive

    archive = run.archive()
    split = split_archive(archive)
    layout = run.layout.frames(archive.schema.axis.cadence)
    c = run.coarseness_on(archive)
    often = []
    for issue in split.issues["train"]:
        rates = synthetic.TABLE.rates[archive.level(issue + 1, issue + 1 + layout.ahead)]
        rates = rates.reshape(len(rates), rates.shape[1] // c, c, rates.shape[2] // c, c).max(axis=(2, 4))
        often.append([[(rates[a:b].max(axis=0) >= t).mean() for t in run.thresholds] for a, b in layout.periods])
    np.testing.assert_allclose(run.facts["reference"]["climatology"], np.mean(often, axis=0), atol=0.01)


def test_the_report_tells_scores_by_how_wet_the_map_is(run):
    from fastrain.rain.report_tables import wetness

    found = verify(run, run.archive())
    page = wetness(found)
    network, smoothed = found.wetness["network"], found.wetness["lagrangian"]
    shown = 0
    for kind, count in enumerate(network.windows):
        tally = network.tallies[kind]
        assert (f"{count:,} issue times" in page) == (count > 0)
        for p, k in np.ndindex(tally.cells.shape if count else (0, 0)):
            assert f">{tally.brier[p, k]:.4f}<" in page
            assert f">{int(tally.events[p, k]):,} of {int(tally.cells[p, k]):,}<" in page
            skill = 1 - tally.brier[p, k] / smoothed.tallies[kind].brier[p, k]
            assert f">{skill:+.0%}<" in page
            shown += 1
    assert shown == sum(1 for count in network.windows if count) * tally.cells.size


def test_too_little_memory_is_said_with_what_would_fit(moving, tmp_path):
    with pytest.raises(TooBig, match="may be used"):
        train(moving, tmp_path / "r", TrainSettings(coarseness=1, memory=100_000))
    assert not (tmp_path / "r").exists()


def test_a_dry_archive_is_refused(tmp_path):
    synthetic.write_archive(tmp_path / "a", np.zeros((96, 16, 16), np.float32))
    with pytest.raises(TooShort, match="too dry"):
        train(tmp_path / "a", tmp_path / "r", SMALL)


def test_the_default_cells_are_the_ones_nearest_to_four_kilometres(night, moving):
    assert default_coarseness(Archive.open(night)) == 4
    assert default_coarseness(Archive.open(moving)) == 1


def test_a_run_with_damaged_weights_is_refused(run, tmp_path):
    import shutil

    shutil.copytree(run.path, tmp_path / "r")
    raw = (tmp_path / "r" / "weights.pt").read_bytes()
    for content in (raw[: len(raw) // 2], b"", b"garbage"):
        (tmp_path / "r" / "weights.pt").write_bytes(content)
        with pytest.raises(RunError, match="weights cannot be read"):
            _ = open_run(tmp_path / "r").network
    (tmp_path / "r" / "run.json").write_text("{")
    with pytest.raises(RunError, match="cannot be read"):
        open_run(tmp_path / "r")
    with pytest.raises(RunError, match="no run is here"):
        open_run(tmp_path / "none")
