"""Recipes train, the figures are what they say, and the whole half runs where the radar half is not installed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from math import ceil
from pathlib import Path

import numpy as np
import pytest
import torch
from blobs import CPU, blobs, dataset, small
from images import write_parquet
from program import BARE, PROGRAM, call

from fastrain.core.errors import RunError, SettingError, TooShort
from fastrain.engine.batches import Skipping, moments, normalised
from fastrain.nets.image_net import ImageNet, NetSettings
from fastrain.vision.compiled import stages_of
from fastrain.vision.datasets import Dataset, open_dataset
from fastrain.vision.judge import UNSURE, logits
from fastrain.vision.recipes import RECIPES, Recipe, SgdRates, recipe_of
from fastrain.vision.splits import Split
from fastrain.vision.steering import steering_of
from fastrain.vision.train import train

COMPILED = """
import sys, time
from dataclasses import replace
import torch
import fastrain.vision.compiled as compiling
import fastrain.vision.train as module
from fastrain.nets import filtering, norm_gelu
from fastrain.vision.recipes import recipe_of
from blobs import CPU, dataset, small
# What is compiled is torch's, to which this is compared; so nothing of ours is made ready.
filtering.winograd = norm_gelu.passes = lambda: None
module.make_ready = lambda kind: 0.0
sizes, called = set(), set()

def backend(program, example):  # stands for the compiler, which takes minutes on a CPU
    called.update(str(node.target) for node in program.graph.nodes)
    sizes.update(e.shape[-1] for e in example if isinstance(e, torch.Tensor) and e.ndim == 4 and len(e) == 50)
    time.sleep(0.2)
    return program.forward

compiling.BACKEND = backend
torch.set_num_threads(1)
edges = ((0.0, 0.75), (0.5, 1.0))
recipe = replace(small(recipe_of("airbench94")), epochs=4.0, edges=edges, first_group_until=0.8)
plain = module.train(dataset(), recipe, seed=0, device=CPU, precision="float32")
assert plain.compile_seconds == 0 and not sizes
compiled = module.train(dataset(), replace(recipe, compile=True), seed=0, device=CPU, precision="float32")
# Two sizes, with and without the stem's bias, and without the first group.
assert compiled.compile_seconds > 0.2 * 6, compiled.compile_seconds
assert sizes == {12, 16}, sizes
# A compiler's gradient of amax is no number in bfloat16: what it computes again never equals the highest it kept.
assert called and not any("amax" in one for one in called), called
for a, b in zip(plain.network.state_dict().values(), compiled.network.state_dict().values(), strict=True):
    torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-2)
for a, b in zip(plain.epochs, compiled.epochs, strict=True):
    assert abs(a.loss - b.loss) < 1e-2, (a, b)
compiled = module.train(dataset(), replace(recipe, compile=True), seed=0, device=CPU, precision="bfloat16")
for a, b in zip(plain.epochs, compiled.epochs, strict=True):
    assert abs(a.loss - b.loss) < 0.1, (a, b)
"""


@pytest.mark.parametrize(
    ("stem", "first", "expected"),
    [
        (2.0, 1.0, [(True, True), (False, True)]),
        (2.0, 0.8, [(True, True), (False, True), (False, False)]),
        (3.0, 0.5, [(True, True), (True, False), (False, False)]),
        (2.0, 0.5, [(True, True), (False, False)]),
        (0.0, 1.0, [(False, True)]),
        (9.0, 1.0, [(True, True)]),
    ],
)
def test_every_mixture_of_what_learns_is_compiled_before_the_clock(stem, first, expected):
    recipe = replace(recipe_of("airbench94"), epochs=4.0, stem_bias_epochs=stem, first_group_until=first)
    assert stages_of(recipe, 100, 25) == expected


@pytest.mark.parametrize("per_epoch", [25, 97])
def test_what_rounding_leaves_of_the_last_step_is_compiled_too(per_epoch):
    recipe = replace(recipe_of("airbench94"), epochs=2.5, stem_bias_epochs=2.5, first_group_until=0.25)
    steps = ceil(2.5 * per_epoch)
    network = ImageNet(3, 10, recipe.net)
    steering = steering_of(network, recipe, steps, per_epoch)
    seen = set()
    for step in range(steps):
        steering.prepare(step)
        seen.add((network.stem.bias.requires_grad, network.groups[0].convolutions[0].weight.requires_grad))
    assert seen == set(stages_of(recipe, steps, per_epoch))


def test_a_compiled_run_learns_the_same_with_its_compiling_off_the_clock():
    # In a process of its own: the checks of shapes that tests run under cannot be compiled.
    done = subprocess.run(
        [sys.executable, "-c", COMPILED],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=Path(__file__).parent,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_learns_what_can_be_learned(name):
    recipe = small(recipe_of(name))
    if isinstance(recipe.rates, SgdRates):  # made for a batch of 512 and more, summed
        recipe = replace(recipe, rates=replace(recipe.rates, weights=4e-3, biases=0.05, until=1.0), loss_scale=1.0)
    if recipe.averages:
        recipe = replace(recipe, averages=replace(recipe.averages, start=3.0))
    trained = train(dataset(), recipe, seed=0, device=CPU)
    assert trained.accuracy > 0.8
    assert len(trained.epochs) == recipe.epochs
    assert trained.seconds >= trained.epochs[-1].seconds > 0


def test_a_seed_gives_the_same_network_and_another_seed_another():
    recipe = replace(small(Recipe()), epochs=1.0)
    one, same, other = (train(dataset(), recipe, seed=seed, device=CPU) for seed in (0, 0, 1))
    weights = [torch.cat([p.flatten() for p in t.network.parameters()]) for t in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_accuracy_is_the_share_of_test_images_told_right():
    data = dataset()
    trained = train(data, replace(small(Recipe()), epochs=2.0, views="mirrored"), seed=0, device=CPU)
    x = normalised(torch.from_numpy(data.test.images), trained.mean, trained.spread)
    one = logits(trained.network, x, "one")
    assert trained.accuracy == np.mean(one.argmax(dim=1).numpy() == data.test.labels)
    mirrored = 0.5 * one + 0.5 * logits(trained.network, x.flip(-1), "one")
    torch.testing.assert_close(mirrored, logits(trained.network, x, "mirrored"), atol=1e-4, rtol=1e-3)
    assert trained.accuracy_views == np.mean(mirrored.argmax(dim=1).numpy() == data.test.labels)


def test_the_views_are_the_image_its_mirror_and_both_moved_to_two_corners():
    torch.manual_seed(0)
    x = torch.randn(3, 3, 8, 8)
    seen = []

    class Spy(torch.nn.Module):
        def forward(self, y):
            seen.append(y)
            return y.mean((2, 3))

    out = logits(Spy(), x, "mirrored and moved")
    assert len(seen) == 6
    weights = [0.25, 0.25, 0.125, 0.125, 0.125, 0.125]
    torch.testing.assert_close(out, sum(w * y.mean((2, 3)) for w, y in zip(weights, seen, strict=True)))
    torch.testing.assert_close(seen[2][..., 1:, 1:], x[..., :-1, :-1])
    torch.testing.assert_close(seen[4][..., :-1, :-1], x[..., 1:, 1:])


def test_only_what_is_unsure_is_looked_at_moved_too():
    """By a network that says how bright the halves are: of some images one is by far, of some not."""

    class Halves(torch.nn.Module):
        def forward(self, x):
            return 2 * x.unflatten(2, (2, -1)).mean((1, 3, 4))

    x = torch.randn(40, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    x[:20, :, :4] += 3
    mirrored, all_views, found = (
        logits(Halves(), x, views) for views in ("mirrored", "mirrored and moved", "moved where unsure")
    )
    leading = mirrored.sort(dim=1).values
    unsure = leading[:, -1] - leading[:, -2] < UNSURE
    assert 10 < unsure.sum() < 40
    torch.testing.assert_close(found[unsure], all_views[unsure])
    assert torch.equal(found[~unsure], mirrored[~unsure])
    assert not torch.allclose(mirrored[unsure], all_views[unsure], atol=1e-3)


def test_runs_may_begin_with_small_images_of_the_same_shape(monkeypatch):
    seen = []
    forward = ImageNet.forward
    monkeypatch.setattr(ImageNet, "forward", lambda net, x: seen.append(tuple(x.shape[-2:])) or forward(net, x))
    tall = [Split(np.repeat(s.images, 2, axis=1), s.labels) for s in (blobs(600, 1), blobs(200, 2))]
    recipe = replace(small(Recipe()), edges=((0.0, 0.625), (0.5, 1.0)), epochs=2.0)
    train(Dataset("tall", ("a", "b", "c", "d"), *tall), recipe, seed=0, device=CPU)
    assert seen[:24] == [(20, 10)] * 12 + [(32, 16)] * 12


def steering_at(name, step):
    """Rates and decays of a recipe's groups at a step of 50,000 images' run, by what they are of."""
    recipe = recipe_of(name)
    per_epoch = 50_000 // recipe.batch
    network = ImageNet(3, 10, recipe.net)
    steering = steering_of(network, recipe, ceil(recipe.epochs * per_epoch), per_epoch)
    steering.prepare(step)
    names = {id(p): n for n, p in network.named_parameters()}
    found = {}
    for optimiser, _ in steering.parts:
        for group in optimiser.param_groups:
            for weight in group["params"]:
                found[names[id(weight)]] = group["lr"], group.get("weight_decay", 0.0), group["momentum"]
    return network, found


def test_airbench94_is_the_peers():
    """Source: cifar10-airbench, airbench94_muon.py: 25 steps an epoch, 200 in all, 75 of the stem's bias."""
    network, at = steering_at("airbench94", 50)
    assert at["stem.bias"] == pytest.approx((0.053 * (1 - 50 / 75), 2e-6 * 2000 / 0.053, 0.85))
    assert at["groups.1.norms.0.bias"] == pytest.approx((0.053 * 0.75, 2e-6 * 2000 / 0.053, 0.85))
    assert at["head.weight"] == pytest.approx((0.67 * 0.75, 2e-6 * 2000 / 0.67, 0.85))
    assert at["groups.2.convolutions.1.weight"] == pytest.approx((0.24 * 0.75, 0.0, 0.6))
    assert network.head.weight.std().item() == pytest.approx(1.0, rel=1e-4)
    assert [tuple(p.shape) for n, p in network.named_parameters() if "convolutions" in n] == [
        (64, 24, 3, 3), (64, 64, 3, 3), (256, 64, 3, 3), (256, 256, 3, 3), (256, 256, 3, 3), (256, 256, 3, 3),
    ]  # fmt: skip
    network, at = steering_at("airbench94", 75)
    assert at["stem.bias"][0] == 0 and not network.stem.bias.requires_grad


def test_the_first_group_is_trained_until_the_asked_share_of_the_run():
    data, recipe = dataset(), replace(small(recipe_of("airbench94")), epochs=4.0)

    def keep(until):
        trained = train(data, replace(recipe, first_group_until=until), seed=0, device=CPU, precision="float32")
        return trained.network.state_dict()

    kept = {until: keep(until) for until in (0.0, 0.5, 1.0)}
    torch.manual_seed(0)
    start = ImageNet(3, 4, recipe.net).state_dict()
    name = "groups.0.convolutions.1.weight"
    assert torch.equal(kept[0.0][name], start[name])
    assert not torch.equal(kept[0.5][name], start[name]) and not torch.equal(kept[0.5][name], kept[1.0][name])
    name = "groups.1.convolutions.1.weight"
    assert not torch.equal(kept[0.0][name], start[name])


def test_fewer_directions_of_the_whitening_are_the_most_varied_ones():
    whole, fewer = (ImageNet(3, 10, replace(recipe_of("airbench94").net, directions=n)) for n in (None, 8))
    images = torch.from_numpy(dataset().train.images)
    sample = normalised(images, *moments(images))
    for network in (whole, fewer):
        network.stem.fit(sample, 5e-5)
    assert fewer.groups[0].convolutions[0].weight.shape == (64, 16, 3, 3)
    torch.testing.assert_close(fewer.stem.weight, whole.stem.weight[:8])
    assert ImageNet(1, 10, replace(recipe_of("airbench94").net, directions=8)).stem.width == 8  # four there are


@pytest.mark.parametrize(
    ("name", "batch", "weights", "biases", "decay", "steps", "peak", "end"),
    [
        ("hlb", 512, 1.15 * 1.35 / 512, 1.15 * 1.35 * 32 / 512, 0.85 * 4.8e-4 * 512, 97 * 8, 0.25, 0.135),
        ("hlb-0.7", 1024, 1.525 / 512, 1.525 * 64 / 512, 6.687e-4 * 1024, 581, 0.23, 0.07),
    ],
)
def test_the_hlb_recipes_are_the_peers(name, batch, weights, biases, decay, steps, peak, end):
    """Source: hlb-CIFAR10 0.3 and 0.7; both heads start as torch starts them, and the whitening learns no bias."""
    assert recipe_of(name).batch == batch
    assert recipe_of(name).loss_scale == 512 / batch
    network, at = steering_at(name, round(peak * steps) - 1)
    ratio = biases / weights
    assert at["head.weight"] == pytest.approx((weights, decay, 0.85), rel=0.01)
    assert at["groups.0.norms.0.bias"] == pytest.approx((biases, decay / ratio, 0.85), rel=0.01)
    assert at["stem.bias"][0] == 0 and not network.stem.bias.requires_grad
    assert network.head.weight.std().item() == pytest.approx((1 / 3 / 512) ** 0.5, rel=0.05)
    _, at = steering_at(name, steps)
    assert at["head.weight"][0] == pytest.approx(weights * end, rel=0.01)


def test_airbenchs_whitening_adds_half_a_thousandth_to_the_variances(data):
    """Source: cifar10-airbench, init_whiten: eps 5e-4 on normalised images; ours is a share of the largest variance."""
    held = open_dataset(data / "cifar10-jpeg")
    values = torch.from_numpy(held.train.images[:1000])
    x = normalised(values, *moments(values))
    patches = torch.nn.functional.unfold(x, 2).transpose(1, 2).reshape(-1, 12)
    largest = float(torch.linalg.eigvalsh(torch.cov(patches.T))[-1])
    assert recipe_of("airbench94").net.whitening_floor * largest == pytest.approx(5e-4, rel=0.1)
    assert recipe_of("hlb").net.whitening_floor * largest == pytest.approx(1e-2, rel=0.1)


def test_a_run_that_goes_astray_is_told_in_one_line():
    recipe = replace(small(Recipe()), rates=replace(Recipe().rates, head=1e30), epochs=2.0)
    with pytest.raises(RunError, match="blobs: training went astray, the loss became"):
        train(dataset(), recipe, seed=0, device=CPU)


class Killed(Exception):
    pass


def test_a_killed_run_that_passes_over_what_is_learned_goes_on_to_the_same_network(tmp_path, monkeypatch):
    monkeypatch.setattr("fastrain.engine.fit._Kept.due", True)
    recipe = replace(small(recipe_of("airbench94")), epochs=6.0, skipping=Skipping(keep=0.5, start=0.3, end=0.8))

    def kill(epoch):
        if epoch.epoch == 3:
            raise Killed

    def weights(**more):
        return train(dataset(), recipe, seed=1, device=CPU, precision="float32", **more).network.state_dict()

    whole = weights()
    with pytest.raises(Killed):
        weights(state=tmp_path / "state.pt", progress=kill)
    steps = []
    again = weights(state=tmp_path / "state.pt", progress=lambda epoch: steps.append(epoch.epoch))
    assert steps[0] == 3  # the state of the epoch before was kept
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    # Of another way of passing over, or of none, nothing is gone on with.
    for skipping in (replace(recipe.skipping, keep=0.6), None, recipe.skipping):
        recipe, steps = replace(recipe, skipping=skipping), []
        other = weights(state=tmp_path / "state.pt", progress=lambda epoch, steps=steps: steps.append(epoch.epoch))
        assert steps[0] == 1
        assert all(torch.equal(whole[name], other[name]) for name in whole) == (skipping == Skipping(0.5, 0.3, 0.8))


def test_too_few_or_too_small_images_are_refused_with_a_reason():
    with pytest.raises(TooShort, match=r"600 images .*batch is 2000; take --recipe hlb or cpu, or"):
        train(dataset(), Recipe(), seed=0, device=CPU)
    few = Dataset("few", ("a", "b"), blobs(60, 1, classes=2), blobs(10, 2, classes=2))
    with pytest.raises(TooShort, match="60 images to train on, the recipe's batch is 500; `fastrain vision train`"):
        train(few, recipe_of("cpu"), seed=0, device=CPU)
    tiny = Dataset("tiny", ("a", "b"), blobs(60, 1, edge=10, classes=2), blobs(10, 2, edge=10, classes=2))
    with pytest.raises(SettingError, match=r"images of 10 pixels .* are too small"):
        train(
            tiny,
            replace(small(Recipe()), net=NetSettings(widths=(8,) * 4, depths=(1,) * 4, pools=("after",) * 4)),
            seed=0,
            device=CPU,
        )


def test_an_unknown_recipe_is_answered_with_the_known_ones():
    with pytest.raises(SettingError, match="known recipes are airbench94, hlb"):
        recipe_of("resnet")


def test_the_command_runs_on_a_bare_machine_and_prints_one_json_object(tmp_path):
    for name, split in (("train", blobs(500, 1)), ("test", blobs(100, 2))):
        write_parquet(tmp_path / f"{name}.parquet", split.images, split.labels)
    command = [sys.executable, "-c", BARE, "speedrun", str(tmp_path), "--recipe", "cpu", "--device", "cpu"]
    done = subprocess.run(
        [*command, "--seeds", "2", "--look", "--to", str(tmp_path / "record.json"), "--json"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record == json.loads((tmp_path / "record.json").read_text())
    assert [seed["seed"] for seed in record["seeds"]] == [0, 1]
    accuracies = [seed["accuracy_views"] for seed in record["seeds"]]
    assert record["accuracy_views"]["mean"] == pytest.approx(np.mean(accuracies))
    assert record["accuracy_views"]["spread"] == pytest.approx(np.std(accuracies, ddof=1))
    assert record["data"] == tmp_path.name and record["images"] == [500, 100] and record["held_out"] is False
    lines = [line for line in done.stderr.splitlines() if "│" in line]
    assert len(lines) == 2 + 2 * 9  # the head, eight epochs and the end of each seed


@pytest.mark.parametrize(
    ("more", "status", "said"),
    [
        (["--recipe", "resnet"], 2, "known recipes"),
        (["--device", "meta"], 2, "expected cpu or cuda"),
        (["--to", "/nowhere/record.json"], 2, "there is no folder /nowhere"),
        (["--to", "/tmp"], 2, "--to /tmp: is a folder; name a file"),
        (["--device", "cuda:7"], 2, "--device cuda:7: not to be had"),
        (["--seeds", "0"], 2, "--seeds"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(tmp_path, more, status, said):
    command = [sys.executable, "-c", "from fastrain.cli.main import run; run()", "speedrun", str(tmp_path), *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == status
    assert said in done.stderr
    if "--seeds" not in more:  # that one is the parser's own, in a box
        assert len(done.stderr.strip().splitlines()) == 1


def test_what_is_held_out_is_said_and_too_few_images_are_told_before_the_table(tmp_path):
    split = blobs(650, 1)
    write_parquet(tmp_path / "mine.parquet", split.images, split.labels)
    command = [
        sys.executable,
        "-c",
        "from fastrain.cli.main import run; run()",
        "speedrun",
        str(tmp_path / "mine.parquet"),
    ]
    done = subprocess.run(
        [*command, "--recipe", "airbench94"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1
    assert "to test on (held out, as it has no test part)" in done.stderr
    assert "│" not in done.stderr and "`fastrain vision train`" in done.stderr


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_speedrun_gives_the_record_of_the_seeds_that_are_done(tmp_path, number, status):
    for name, split in (("train", blobs(500, 1)), ("test", blobs(50, 2))):
        write_parquet(tmp_path / f"{name}.parquet", split.images, split.labels)
    record = tmp_path / "r.json"
    command = [*PROGRAM, "speedrun", str(tmp_path), "--recipe", "cpu", "--seeds", "500", "--to", str(record)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        said = []
        for line in process.stderr:
            said.append(line)
            if "│     end │" in line:
                break
        process.send_signal(number)
        said += process.stderr.readlines()
        out = process.stdout.read()
    assert process.returncode == status, said
    held = json.loads(record.read_text())
    assert 1 <= len(held["seeds"]) < 500
    assert f"of 500 seeds {len(held['seeds'])} are done" in "".join(said)
    assert said[-1] == "fastrain: Interrupted; the same command begins anew.\n"
    assert "cpu: " in out


def test_more_threads_than_cores_are_refused(tmp_path):
    done = call("speedrun", tmp_path, "--threads", "1000")
    assert done.returncode == 2 and "--threads 1000: this process may use" in done.stderr
