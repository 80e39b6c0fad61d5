"""The price of coarse-graining: the same windows and truth whatever the cut, and figures that can be trusted."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import synthetic
import torch

import fastrain.rain.ablate as module
from fastrain.archive.store import Archive
from fastrain.core.errors import RunError, SettingError, TooShort
from fastrain.rain.ablate import ablate, price_figure, summary, table_of, variants_of
from fastrain.rain.coarse import Drawn, measure, network_of
from fastrain.rain.cut_times import left_out, own_time
from fastrain.rain.cuts import Scale, Variant, blocked_frames, radar_of, seen_frames, shown, window_of
from fastrain.rain.inputs import channels_of
from fastrain.rain.radar import rain_rates
from fastrain.samples.frames import load_frames
from fastrain.samples.split import evenly, split_archive

SMALL = Scale(cell=6, width=4, steps=20, train=8, calibrate=2, test=4, crop=4, periods=2)


@pytest.fixture(scope="module")
def cut(tmp_path_factory):
    """An archive of moving rain, part of it not observed, at coarseness 2 and 3."""
    path = tmp_path_factory.mktemp("cut") / "archive"
    rates = synthetic.moving_rain(frames=96, seed=3)
    rates[:, 40:52, 30:] = np.nan
    synthetic.write_archive(path, rates, coarseness=(2, 3))
    return path


COUNTS = {"train": SMALL.train, "calibrate": SMALL.calibrate, "test": SMALL.test}


def times(path):
    return own_time(Archive.open(path), COUNTS)


def windows(path, scale=SMALL, variants=None):
    archive = Archive.open(path)
    split = split_archive(archive)
    issue = int(split.issues["train"][5])
    chosen = variants or [Variant(c, "both", False) for c in (1, 2, 3)]
    return [window_of(archive, issue, radar_of(archive, split.layout, v, scale), v, scale) for v in chosen]


def test_the_truth_is_the_same_whatever_the_cut(cut):
    first, *others = windows(cut)
    assert first.outcome.max() > 0
    assert (first.outcome < 0).any()
    for other in others:
        np.testing.assert_array_equal(other.outcome, first.outcome)
        assert other.guess.shape == first.guess.shape


def test_the_truth_is_the_highest_of_the_pixels(cut):
    archive = Archive.open(cut)
    split = split_archive(archive)
    issue = int(split.issues["train"][5])
    (window,) = windows(cut, variants=[Variant(3, "both", False)])
    layout = radar_of(archive, split.layout, Variant(3, "both", False), SMALL).layout
    a, b = layout.periods[0]
    level = archive.level(issue + a + 1, issue + b + 1)[:, :60, :60]  # ten cells of six pixels of 64
    first = archive.schema.table.first_level(0.1)
    wet = ((level >= first) & (level != 255)).any(axis=0).reshape(10, 6, 10, 6).any(axis=(1, 3))
    seen = (level != 255).mean(axis=0).reshape(10, 6, 10, 6).mean(axis=(1, 3)) >= 0.75
    judged = window.outcome[0] >= 0
    assert (seen >= judged).all()
    np.testing.assert_array_equal(window.outcome[0][judged] >= 1, wet[judged])


def test_a_network_that_sees_one_value_sees_each_once(cut):
    archive = Archive.open(cut)
    radar = radar_of(archive, split_archive(archive).layout, Variant(2, "both", False), SMALL)
    frames = load_frames(archive, 2, np.arange(10) + (archive.span or (0, 0))[0])
    highest, mean, _ = rain_rates(frames, np.arange(10), radar)
    one, same, _ = rain_rates(seen_frames(frames, radar, "maximum"), np.arange(10), radar)
    torch.testing.assert_close(one, highest)
    torch.testing.assert_close(same, highest)
    one, same, _ = rain_rates(seen_frames(frames, radar, "mean"), np.arange(10), radar)
    torch.testing.assert_close(one, same)
    wet = mean > 0.1
    np.testing.assert_allclose(one[wet] / mean[wet], 1, atol=0.07)  # bins of half a decibel
    assert (one <= highest + 1e-6).all()
    assert len(shown(Variant(2, "both", True), 3)) == channels_of(3)
    for lone in (Variant(2, "maximum", True), Variant(2, "mean", False), Variant(1, "both", True)):
        assert len(shown(lone, 3)) == channels_of(3) - 6


def test_blocks_of_blocks_count_what_is_observed(cut):
    archive = Archive.open(cut)
    frames = load_frames(archive, 2, np.array([(archive.span or (0, 0))[0]]))
    blocks = blocked_frames(frames, 2)
    level = archive.level(int(frames.slots[0]), int(frames.slots[0]) + 1)[0]
    share = (level != 255).reshape(16, 4, 16, 4).mean(axis=(1, 3))
    np.testing.assert_array_equal(blocks.observed[0], np.floor(share * 255 + 1e-9))


def test_batches_of_a_cut_show_the_cells_that_they_judge(cut):
    scale = SMALL
    for variant, window in zip((Variant(1, "both", False), Variant(3, "both", False)), windows(cut)[::2], strict=True):
        drawn = Drawn([window], variant, scale)
        x, guess, known, outcome, weight = drawn.batch(0)
        fine = scale.crop * scale.cell // variant.coarseness
        assert x.shape[-2:] == (fine, fine)
        assert outcome.shape == (4, scale.crop, scale.crop) == guess.shape[:1] + guess.shape[-2:]
        assert len(known) == len(weight) == 4


def test_a_network_of_fine_inputs_speaks_of_coarse_cells(cut):
    archive = Archive.open(cut)
    variant = Variant(2, "both", True)
    radar = radar_of(archive, split_archive(archive).layout, variant, SMALL)
    network = network_of(variant, SMALL, radar).eval()
    (window,) = windows(cut, variants=[variant])
    out = network(window.x.float(), window.guess.float(), window.known)
    assert out.shape == (2, len(radar.thresholds), 10, 10)
    torch.testing.assert_close(out, window.guess.float().mean(dim=2))  # at the start the guesses alone


def test_all_is_measured_once_and_told(cut, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        module, "variants_of", lambda coarseness: [Variant(3, "maximum", True), Variant(3, "both", False)]
    )
    found = ablate(cut, tmp_path, (2, 3), SMALL, progress=lambda done, total, text: seen.append((done, total, text)))
    assert seen[0] == (0, 2, "3×3, maximum, squeeze-and-excite")
    assert [row["lost"] == 0 for row in found["rows"]] == [False, True]
    assert all(row["peak_bytes"] > 1e8 and row["seconds_an_epoch"] > 0 for row in found["rows"])
    assert "Cells of 6 pixels" in (tmp_path / "ablation.txt").read_text()
    assert (tmp_path / "ablation.png").read_bytes().startswith(b"\x89PNG")
    ratios = {row["name"]: row["cpu_ratio"] for row in found["rows"]}
    assert ratios["3×3, maximum and mean"] == 1
    assert ratios["3×3, maximum, squeeze-and-excite"] > 0.1
    monkeypatch.setattr(module, "measure", None)  # nothing is measured again but the steps
    again = ablate(cut, tmp_path, (2, 3), SMALL)
    for row in (*again["rows"], *found["rows"]):
        del row["cpu_ratio"], row["seconds_an_epoch"]
    assert again["rows"] == found["rows"]
    with pytest.raises(RunError, match="another archive or scale"):
        ablate(cut, tmp_path, (2, 3), Scale(cell=6, width=5))
    with pytest.raises(SettingError, match="holds coarseness 1, 2, 3, not 4"):
        ablate(cut, tmp_path / "other", (2, 4), SMALL)


@pytest.mark.parametrize(
    ("rate", "words"), [(0.0, "no cell reaches"), (20.0, "every cell reaches"), (np.nan, "nothing is observed")]
)
def test_where_no_cut_could_be_told_from_another_none_is_trained(tmp_path, monkeypatch, rate, words):
    synthetic.write_archive(tmp_path / "a", np.full((96, 48, 48), rate, np.float32), coarseness=(2, 3))
    monkeypatch.setattr("fastrain.rain.coarse.fit", None)
    with pytest.raises(TooShort, match=f"{words}.* the training time"):
        measure(times(tmp_path / "a"), Variant(2, "both", False), SMALL)


def test_the_picture_has_ticks_for_ratios_that_lie_near_each_other():
    row = {"coarseness": 2, "sees": "both", "excite": False, "skill": 0.3}
    for ratios, scale in (((1.0, 1.3), "linear"), ((0.05, 1.0), "log")):
        figure = price_figure({"rows": [{**row, "cpu_ratio": ratio} for ratio in ratios]})
        axes = figure.axes[0]
        assert axes.get_xscale() == scale
        low, high = axes.get_xlim()
        assert sum(low <= tick <= high for tick in axes.get_xticks()) >= 3


def test_the_scores_are_those_of_the_window_by_hand(cut):
    found = measure(times(cut), Variant(3, "both", False), SMALL)
    archive = Archive.open(cut)
    split = split_archive(archive)
    radar = radar_of(archive, split.layout, Variant(3, "both", False), SMALL)
    last = window_of(archive, int(evenly(split.issues["test"], 4)[-1]), radar, Variant(3, "both", False), SMALL)
    assert np.array(found["cells"])[-1, 0, 0] == (last.outcome[0] >= 0).sum()
    assert np.array(found["events"])[-1, 1, 0] == (last.outcome[1] >= 1).sum()


def test_the_table_is_right_by_hand():
    def one(squared):
        return {
            "squared": squared, "cells": [[[10]], [[10]]],
            "events": [[[5]], [[5]]], "cpu_seconds_a_window": 1.0,
            "peak_bytes": 2**30, "bytes_a_frame": 1000, "weights": 5, "periods_min": [[0, 10]], "sharing": 1,
            "thresholds_mm_h": [0.1], "windows": {"train": 1, "calibrate": 1, "test": 2},
        }  # fmt: skip

    plain, excited = Variant(1, "both", False), Variant(1, "both", True)
    kept = {plain: [one([[[1.0]], [[2.0]]])], excited: [one([[[1.4]], [[2.3]]]), one([[[1.6]], [[1.9]]])]}
    spent = {"ratios": {plain.name: 1.0, excited.name: 0.25}, "seconds_an_epoch": 8.0}
    found = summary(kept, spent)
    assert found["rows"][0]["skill"] == pytest.approx(1 - (3 / 20) / 0.25)
    assert found["rows"][1]["lost"] == pytest.approx(3.6 / 3 - 1)
    assert found["rows"][1]["cpu_ratio"] == 0.25
    assert found["rows"][1]["seconds_an_epoch"] == 2.0
    found |= {"scale": {"cell": 12}, "seeds": 2, "learn_from": []}
    text = table_of(found)
    assert "mean of 2 seeds" in text
    assert "+20.0%" in text
    assert json.loads(json.dumps(found))["rows"][1]["name"] == excited.name
    assert "say nothing" not in text
    worse = [{**row, "skill": -abs(row["skill"]) - 0.01} for row in found["rows"]]
    assert "These differences say nothing" in table_of({**found, "rows": worse})


def test_pixels_know_neither_maximum_nor_mean():
    names = [variant.name for variant in variants_of((4, 1))]
    assert names[:2] == ["1×1, the pixels", "1×1, the pixels, squeeze-and-excite"]
    assert len(names) == 8


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """Archives of three other radars, one with smaller maps."""
    folder = tmp_path_factory.mktemp("others")
    for seed, name, rows in ((5, "wide", 64), (6, "small", 40), (7, "last", 64)):
        rates = synthetic.moving_rain(frames=40, seed=seed)[:, :rows]
        synthetic.write_archive(folder / name, rates, coarseness=(2, 3))
    return [folder / "wide", folder / "small", folder / "last"]


def test_a_radar_left_out_is_judged_whole_and_learned_from_never(cut, others):
    archives = [Archive.open(path) for path in others]
    found = left_out(Archive.open(cut), archives, {"train": 12, "calibrate": 4, "test": 400})
    assert [(part.path, len(part.issues)) for part in found.train] == [(others[0], 6), (others[1], 6)]
    assert [(part.path, len(part.issues)) for part in found.calibrate] == [(others[2], 4)]
    layout = found.layout.frames(archives[0].schema.axis.cadence)
    every = 96 - layout.length + 1
    assert [(part.path, len(part.issues)) for part in found.test] == [(cut, every)]


def test_what_is_learned_from_radars_of_other_sizes_is_scored_on_the_one_left_out(cut, others):
    variant = Variant(3, "both", False)
    apart = left_out(Archive.open(cut), [Archive.open(path) for path in others], COUNTS)
    found = measure(apart, variant, SMALL)
    assert found["windows"] == {"train": 8, "calibrate": 2, "test": 4}
    radar = radar_of(Archive.open(cut), apart.layout, variant, SMALL)
    judged = [window_of(Archive.open(cut), i, radar, variant, SMALL).outcome >= 0 for i in apart.test[0].issues]
    np.testing.assert_array_equal(np.array(found["cells"])[..., 0], np.sum(judged, axis=(2, 3)))
    assert 0 < np.array(found["squared"]).sum() < 0.5 * np.array(found["cells"]).sum()


def test_frames_without_rain_are_alike_and_no_frames_of_another(cut, tmp_path):
    for seed, name in ((11, "a"), (12, "b")):
        rates = synthetic.moving_rain(frames=40, seed=seed)
        rates[7] = 0.0
        synthetic.write_archive(tmp_path / name, rates, coarseness=(2, 3))
    assert left_out(Archive.open(cut), [Archive.open(tmp_path / n) for n in "ab"], COUNTS)


def test_seeds_are_trained_each_and_told_together(cut, others, tmp_path, monkeypatch):
    trained = []

    def told(times, variant, scale):
        trained.append((variant.excite, scale.seed))
        error = 1.0 + scale.seed + variant.excite
        return {
            "squared": [[[error]], [[error]]], "cells": [[[10]], [[10]]], "events": [[[5]], [[5]]], "sharing": 1,
            "cpu_seconds_a_window": 1.0, "peak_bytes": 1, "bytes_a_frame": 1, "weights": 1, "periods_min": [[0, 10]],
            "thresholds_mm_h": [0.1], "windows": {"train": 1, "calibrate": 1, "test": 2},
        }  # fmt: skip

    monkeypatch.setattr(module, "variants_of", lambda _: [Variant(3, "both", False), Variant(3, "both", True)])
    monkeypatch.setattr(module, "measure", told)
    spent = {"ratios": {"3×3, maximum and mean": 1.0, "3×3, maximum and mean, squeeze-and-excite": 1.2}}
    monkeypatch.setattr(module, "costs", lambda *_: {**spent, "seconds_an_epoch": 1.0})
    monkeypatch.setattr(module, "_alone", lambda name, task, path, *given: task(*given))
    found = ablate(cut, tmp_path, (3,), SMALL, learn_from=others, seeds=2)
    assert trained == [(False, 0), (True, 0), (False, 1), (True, 1)]
    assert found["rows"][1]["lost"] == pytest.approx((2 + 3) / (1 + 2) - 1)
    assert found["seeds"] == 2
    assert len(found["learn_from"]) == 3
    ablate(cut, tmp_path, (3,), SMALL, learn_from=others, seeds=3)
    assert trained[4:] == [(False, 2), (True, 2)]  # the others are kept
    with pytest.raises(RunError, match="another archive or scale"):
        ablate(cut, tmp_path, (3,), SMALL, learn_from=others[::-1], seeds=2)


def test_what_does_not_fit_together_is_refused(cut, others, tmp_path):
    with pytest.raises(SettingError, match=r"a holds frames that .* holds, too"):
        ablate(cut, tmp_path / "to", (2, 3), SMALL, learn_from=[*others, shutil.copytree(cut, tmp_path / "a")])
    for same in ([others[0], cut], [cut, others[0]], [others[0], others[1], others[0]]):
        with pytest.raises(SettingError, match="holds, too"):
            ablate(cut, tmp_path / "to", (2, 3), SMALL, learn_from=same)
    with pytest.raises(SettingError, match="name two archives or more"):
        ablate(cut, tmp_path / "to", (2, 3), SMALL, learn_from=others[:1])
    rain = synthetic.moving_rain(frames=24, seed=8)
    synthetic.write_archive(tmp_path / "coarse", rain, coarseness=(2,))
    with pytest.raises(SettingError, match="coarse: holds coarseness 1, 2, not 3"):
        ablate(cut, tmp_path / "to", (2, 3), SMALL, learn_from=[others[0], tmp_path / "coarse"])
    synthetic.write_archive(tmp_path / "short", rain, coarseness=(2, 3))
    synthetic.write_archive(tmp_path / "shortest", rain[:12], coarseness=(2, 3))
    with pytest.raises(TooShort, match=r"shortest: holds 5 windows of .* 10 min after them, 8 are needed"):
        ablate(cut, tmp_path / "to", (2, 3), SMALL, learn_from=[tmp_path / "shortest", others[0]])
    archives = [Archive.open(tmp_path / "short"), Archive.open(others[0])]
    assert left_out(Archive.open(cut), archives, COUNTS).layout.periods[-1][1] < 60  # as far as there are windows for
    assert not (tmp_path / "to").exists()
