"""What a training starts from."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
import synthetic
import torch
from program import refused

from fastrain.archive.store import Archive
from fastrain.archive.writer import writing
from fastrain.core.errors import RunError, SettingError
from fastrain.rain.new_run import TrainSettings
from fastrain.rain.run import make_network, open_run
from fastrain.rain.smoothing import GUESSES
from fastrain.rain.start import start_of
from fastrain.rain.straight import fit_straight
from fastrain.rain.train import train
from fastrain.samples.split import split_archive

SHAPE = {"thresholds": 3, "width": 24}


@pytest.fixture(scope="module")
def base():
    return open_run("base")


def test_a_short_archive_starts_from_base(base, moving, tmp_path):
    said = []
    settings = TrainSettings(thresholds=(0.1, 1.0, 5.0), cells=600_000)
    made = train(moving, tmp_path / "run", settings, say=said.append)
    assert made.facts["start"] == base.identity and any("starts from the run base" in line for line in said)
    assert made.thresholds == (0.1, 1.0, 5.0)  # none is left out for want of rain: the network knows them
    # What base saw is not to be judged on, either.
    assert len(made.learned) == len(base.learned) + 1
    assert torch.equal(made.network.stem.weight, base.network.stem.weight)  # the whitening is kept as it was
    assert made.identity != base.identity


def test_a_day_is_long_enough_to_start_from_nothing(tmp_path):
    rates = synthetic.moving_rain(300, size=32)
    synthetic.write_archive(tmp_path / "a", rates)
    archive = Archive.open(tmp_path / "a")
    split = split_archive(archive)
    assert start_of(archive, split, "auto", **SHAPE)[0] is None
    assert start_of(archive, split, "base", **SHAPE)[0] is not None


def test_what_base_has_seen_is_not_trained_on_from_it(night):
    archive = Archive.open(night)
    split = split_archive(archive)
    found, why = start_of(archive, split, "auto", **SHAPE)
    assert found is None and "has learned from this very weather" in why
    with pytest.raises(RunError, match="learned from this very weather; start from nothing"):
        start_of(archive, split, "base", **SHAPE)


def test_the_same_ground_on_another_day_is_none_of_it(night, moving, monkeypatch):
    archive = Archive.open(moving)
    split = split_archive(archive)
    assert start_of(archive, split, "auto", **SHAPE)[0] is not None
    # The Netherlands, but a year later.
    monkeypatch.setattr(type(archive.schema.grid), "overlaps", lambda *_: True)
    assert start_of(archive, split, "auto", **SHAPE)[0] is not None
    knmi = Archive.open(night)
    assert start_of(knmi, split_archive(knmi), "auto", **SHAPE)[0] is None


@pytest.mark.parametrize("minutes", [4, 7, 20])
def test_a_cadence_that_base_does_not_fit_may_still_be_trained_on(tmp_path, minutes):
    rates = synthetic.moving_rain(150, size=24)
    cadence = timedelta(minutes=minutes)
    with writing(tmp_path / "a", synthetic.schema(24, 24, cadence=cadence)) as writer:
        writer.write(synthetic.frames_of(rates[: 20 * 60 // minutes], cadence=cadence))
        writer.commit("synthetic")
    archive = Archive.open(tmp_path / "a")
    assert start_of(archive, split_archive(archive), "auto", **SHAPE)[0] is not None


def test_a_network_of_another_shape_starts_from_nothing(moving):
    archive = Archive.open(moving)
    split = split_archive(archive)
    for shape in ({**SHAPE, "width": 12}, {**SHAPE, "thresholds": 2}):
        found, why = start_of(archive, split, "auto", **shape)
        assert found is None and "3 thresholds and width 24" in why
        with pytest.raises(SettingError, match="3 thresholds and width 24"):
            start_of(archive, split, "base", **shape)
    assert start_of(archive, split, "nothing", **SHAPE)[0] is None


def test_a_wrong_start_is_wrong_usage(moving, tmp_path):
    said = refused(2, "train", moving, "--run", tmp_path / "r", "--from", "scratch")
    assert "--from scratch: expected auto, base, nothing" in said


def test_the_line_is_held_near_the_one_that_it_begins_from():
    draw = np.random.default_rng(0)
    network = make_network(1, 8)
    with torch.no_grad():
        network.straight.bias.copy_(torch.tensor([0.9, 0.1, *(GUESSES - 2) * [0.0], -0.4]))
    guess = torch.from_numpy(draw.normal(size=(4, 1, GUESSES, 500))).float()
    honest = 0.9 * guess[:, 0, 0] + 0.1 * guess[:, 0, 1] - 0.4
    outcome = (torch.rand(honest.shape) < torch.sigmoid(honest)).to(torch.int8)
    fit_straight(network, guess, torch.zeros(4, network.straight.in_features), outcome, torch.ones(4))
    assert network.straight.bias.detach().numpy() == pytest.approx([0.9, 0.1, *(GUESSES - 2) * [0.0], -0.4], abs=0.15)
