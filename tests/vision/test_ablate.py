"""The worth of a recipe's switches."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from images import images, write_parquet
from program import call
from scipy import stats

from fastrain.core.errors import RunError, SettingError, TooShort
from fastrain.nets.image_net import ImageNet
from fastrain.vision.ablate import Scale, ablate, at_scale, fewer
from fastrain.vision.datasets import Dataset, open_dataset
from fastrain.vision.recipes import AIRBENCH94, RECIPES
from fastrain.vision.settle import settled
from fastrain.vision.splits import Split
from fastrain.vision.switches import PATIENCE, SWITCHES, switches_of

TINY = Scale(images=200, tests=100, epochs=2.0, batch=50, width=0.13)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    labels = np.arange(300) % 3
    pixels = images(300, edge=32).astype(int) // 3 + 60 * labels[:, None, None, None]
    made = np.clip(pixels, 0, 255).astype(np.uint8)
    order = rng.permutation(300)
    return Dataset(
        "three greys",
        ("a", "b", "c"),
        Split(made[order[:200]], labels[order[:200]]),
        Split(made[order[200:]], labels[order[200:]]),
    )


@pytest.mark.parametrize("name", SWITCHES)
def test_every_switch_changes_the_base_and_gives_a_network_that_works(name):
    base = at_scale(AIRBENCH94, TINY)
    turned = SWITCHES[name](base)
    assert turned != base
    changed = {key for key, value in asdict(turned).items() if value != asdict(base)[key]}
    assert len(changed) == 1  # one thing at a time
    network = ImageNet(3, 10, turned.net)
    assert torch.isfinite(network(torch.rand(4, 3, 32, 32))).all()


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_can_be_the_base(name):
    here = at_scale(RECIPES[name], TINY)
    assert here.batch == 50 and here.epochs == 2.0
    assert all(a <= b for a, b in zip(here.net.widths, RECIPES[name].net.widths, strict=True))


def test_a_part_of_a_data_set_holds_the_same_share_of_every_class():
    labels = np.array([0] * 600 + [1] * 300 + [2] * 100)
    split = Split(images(1000, edge=4), labels)
    part = fewer(Dataset("x", ("a", "b", "c"), split, split), Scale(images=100, tests=500, batch=50))
    assert np.bincount(part.train.labels).tolist() == [60, 30, 10]
    assert np.bincount(part.test.labels).tolist() == [300, 150, 50]
    with pytest.raises(TooShort, match="1000 images to train, 1001 are asked for"):
        fewer(Dataset("x", ("a", "b", "c"), split, split), Scale(images=1001))
    with pytest.raises(SettingError, match="--batch 150: a step takes no more than the images to train on, 100"):
        fewer(Dataset("x", ("a", "b", "c"), split, split), Scale(images=100, tests=500))


def test_switches_are_known_by_their_beginnings():
    assert switches_of(["squeeze", "relu"]) == (
        "squeeze-and-excite 4",
        "squeeze-and-excite 8",
        "squeeze-and-excite 16",
        "squeeze-and-excite 32",
        "ReLU",
    )
    assert all("," not in switch for switch in SWITCHES)  # by which a list of them is told apart
    assert switches_of(["whitening 3x3"]) == switches_of(["whitening 3×3 of the same size"])
    with pytest.raises(SettingError, match="--switches magic: known are"):
        switches_of(["magic"])


def test_a_measurement_goes_on_where_it_was_killed_and_says_the_same(data, tmp_path, monkeypatch):
    base = at_scale(AIRBENCH94, TINY)
    names = ("ReLU", "one view")
    whole = ablate(data, base, tmp_path / "whole", switches=names, seeds=2, device=torch.device("cpu"))
    assert [w.switch for w in whole.worths if w.switch == PATIENCE] == [PATIENCE]
    lines = (tmp_path / "whole" / "runs.jsonl").read_text().splitlines()
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "runs.jsonl").write_text("\n".join(lines[:4]) + "\n" + lines[4][:20])  # a line cut off
    seen = []
    again = ablate(
        data,
        base,
        tmp_path / "cut",
        switches=names,
        seeds=2,
        device=torch.device("cpu"),
        progress=lambda *p: seen.append(p),
    )
    assert seen[0][0] == 3  # the header and three runs were whole
    own = {w.switch: w.accuracy.mean for w in whole.worths}
    assert {w.switch: w.accuracy.mean for w in again.worths} == own  # times are another measurement
    assert again.base == whole.base
    with pytest.raises(RunError, match="of other images or another base"):
        ablate(data, SWITCHES["ReLU"](base), tmp_path / "cut", switches=names, seeds=1, device=torch.device("cpu"))


def test_a_folder_of_something_else_is_not_written_into(data, tmp_path):
    base = at_scale(AIRBENCH94, TINY)
    (tmp_path / "runs.jsonl").write_text('{"of": "ReLU", "time": 3}\n')
    with pytest.raises(RunError, match="of other images or another base"):
        ablate(data, base, tmp_path, switches=(), seeds=1, device=torch.device("cpu"))
    (tmp_path / "runs.jsonl").write_text("")  # a kill before the first line
    ablate(data, base, tmp_path, switches=(), seeds=1, device=torch.device("cpu"))
    assert json.loads((tmp_path / "runs.jsonl").read_text().splitlines()[0])["data"] == "three greys"


def test_a_switch_that_the_base_has_already_is_left_out(data, tmp_path):
    base = at_scale(replace(AIRBENCH94, views="one"), TINY)
    found = ablate(data, base, tmp_path, switches=("one view",), seeds=1, device=torch.device("cpu"))
    assert [worth.switch for worth in found.worths] == [PATIENCE]


def test_only_what_a_switch_touches_is_timed(data, tmp_path, monkeypatch):
    import fastrain.vision.ablate as module

    base = at_scale(AIRBENCH94, TINY)
    taken = []

    def twice(works, **_):
        taken.append(len(works))
        return [1.0, 2.0]

    monkeypatch.setattr(module, "ratios", twice)
    found = ablate(data, base, tmp_path, switches=("one view", "cutmix"), seeds=1, device=torch.device("cpu"))
    times = {w.switch: w.time for w in found.worths}
    steps = 2.0 * 200 // 50
    judged = 2.0 * 4  # the judgement takes twice as long as the four steps that were taken
    assert times[PATIENCE] == pytest.approx((1.25 * steps + judged) / (steps + judged))
    assert times["one view"] == pytest.approx((steps + 2 * judged) / (steps + judged))
    assert times["cutmix"] == pytest.approx((2 * steps + judged) / (steps + judged))
    assert len(taken) == 3  # the base's own, one judgement, one step


@pytest.mark.parametrize("name", ["hlb", "hlb-0.7"])
def test_an_average_begins_at_the_same_share_of_a_shorter_run(name):
    recipe = RECIPES[name]
    here = at_scale(recipe, TINY)
    assert here.averages.start / here.epochs == pytest.approx(recipe.averages.start / recipe.epochs)
    here = settled(recipe, 700, (32, 32))
    assert here.averages.start / here.epochs == pytest.approx(recipe.averages.start / recipe.epochs)


def test_the_figures_are_those_of_the_runs(data, tmp_path):
    found = ablate(data, at_scale(AIRBENCH94, TINY), tmp_path, switches=("ReLU",), seeds=2, device=torch.device("cpu"))
    lines = [json.loads(line) for line in (tmp_path / "runs.jsonl").read_text().splitlines()]
    held = {(line["switch"], line["seed"]): line for line in lines if "switch" in line}
    times = {line["of"]: line["time"] for line in lines if "time" in line}
    assert found.base == pytest.approx(100 * np.mean([held["base", s]["accuracy"] for s in (0, 1)]))
    relu = next(w for w in found.worths if w.switch == "ReLU")
    won = [100 * (held["ReLU", s]["accuracy"] - held["base", s]["accuracy"]) for s in (0, 1)]
    assert relu.accuracy.mean == pytest.approx(np.mean(won))
    assert relu.time == times["ReLU"]
    patience = [100 * (held[PATIENCE, s]["accuracy"] - held["base", s]["accuracy"]) for s in (0, 1)]
    share = (relu.time - 1) / (times[PATIENCE] - 1)
    beyond = stats.ttest_1samp(np.subtract(won, share * np.array(patience)), 0)
    low, high = beyond.confidence_interval(0.95)
    assert relu.beyond.mean == pytest.approx((low + high) / 2)
    assert relu.beyond.half == pytest.approx((high - low) / 2, rel=0.01)
    # Of the steps a quarter more, of the judgement none; the steps themselves are the same, and not measured.
    assert 1.05 < times[PATIENCE] < 1.25
    table = (tmp_path / "ablation.md").read_text()
    assert re.search(rf"\| ReLU \| \**{re.escape(format(np.mean(won), '+.2f'))} ±", table)
    picture = (tmp_path / "ablation.svg").read_text()
    assert picture.startswith("<svg") and ">ReLU</text>" in picture


def test_the_command_prints_one_json_object(tmp_path):
    write_parquet(tmp_path / "train.parquet", images(60), np.arange(60) % 2)
    write_parquet(tmp_path / "test.parquet", images(20, seed=1), np.arange(20) % 2)
    assert len(open_dataset(tmp_path).train.labels) == 60
    small = ["--images", "40", "--tests", "20", "--epochs", "1", "--batch", "20", "--width", "0.13", "--seeds", "1"]
    done = call("vision", "ablate", tmp_path, "--to", tmp_path / "out", "--switches", "relu", *small, "--json")
    assert done.returncode == 0, done.stderr
    assert [w["switch"] for w in json.loads(done.stdout)["worths"]].count("ReLU") == 1
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "ablation.json",
        "ablation.md",
        "ablation.svg",
        "runs.jsonl",
    ]
    done = call("vision", "ablate", tmp_path, "--to", tmp_path / "out", "--switches", "magic", *small)
    assert done.returncode == 2 and "known are" in done.stderr
