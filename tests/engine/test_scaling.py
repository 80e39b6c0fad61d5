"""Losses that are scaled, so that a network learns in float16."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from blobs import CPU, dataset, small
from torch import nn

from fastrain.engine import scaling
from fastrain.engine.fit import FitSettings, fit
from fastrain.engine.optimizers import SGD, Steering
from fastrain.engine.precision import NUMBERS, fast_precision
from fastrain.engine.scaling import FIRST, Scaling
from fastrain.vision.recipes import recipe_of
from fastrain.vision.train import train

SETTINGS = FitSettings(steps=60, precision="float16", checkpoint_seconds=0.0)


def network():
    torch.manual_seed(1)
    return nn.Linear(4, 1)


def draw(step):
    x = torch.randn(32, 4, generator=torch.Generator().manual_seed(step))
    return x, x[:, :1] * 2 - x[:, 1:2]


def fitted(size, settings=SETTINGS, **more):
    """Fit a line by a loss of some size, which its rate undoes; so in float32 the size changes nothing."""
    made = network()
    steering = Steering([(SGD(made.parameters(), lr=0.1 / size), [lambda step: 1.0])])

    def loss(model, batch):
        return size * (model(batch[0]) - batch[1].half()).square().float().mean()

    return fit(made, draw, loss, steering, settings, **more)


@pytest.mark.parametrize("size", [1e-7, 1e-4, 1.0, 1e3])
def test_gradients_too_small_or_too_large_for_float16_teach_all_the_same(size):
    found = fitted(size)
    assert (found.weight.detach() - torch.tensor([[2.0, -1.0, 0.0, 0.0]])).abs().max() < 0.05


def test_without_the_scale_they_would_not(monkeypatch):
    monkeypatch.setattr(scaling, "FIRST", 1.0)
    assert torch.equal(fitted(1e-7).weight, network().weight)


def test_a_step_whose_gradients_are_no_numbers_is_left_out_and_the_scale_halved():
    made, kept = network(), Scaling("float16")
    for i, (gradient, sound) in enumerate(((float("inf"), False), (float("nan"), False), (3.0, True))):
        made.weight.grad, made.bias.grad = torch.ones(1, 4), torch.full((1,), gradient)
        assert kept.sound(made) is sound
        assert kept.scale == FIRST / 2 ** min(i + 1, 2)
    assert float(made.bias.grad) == 3.0 * 4 / FIRST  # divided by what the scale was


def test_the_scale_grows_after_many_sound_steps(monkeypatch):
    monkeypatch.setattr(scaling, "PATIENCE", 10)
    made, kept = network(), Scaling("float16")
    for _ in range(25):
        made.weight.grad, made.bias.grad = torch.ones(1, 4), torch.ones(1)
        assert kept.sound(made)
    assert kept.scale == 4 * FIRST
    again = Scaling("float16")
    again.load_state_dict(kept.state_dict())
    assert (again.scale, again.steps) == (kept.scale, kept.steps) == (4 * FIRST, 5)


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_other_numbers_are_not_scaled(precision):
    kept, loss = Scaling(precision), torch.ones(1)
    assert kept.scaled(loss) is loss and kept.state_dict() == {}
    made = network()
    made.weight.grad = torch.full((1, 4), float("inf"))
    assert kept.sound(made)  # `fit` tells of a loss that is no number


class Killed(Exception):
    pass


@pytest.mark.parametrize("at", [1, 4, 37])
def test_a_killed_run_goes_on_with_the_scale_it_had(tmp_path, monkeypatch, at):
    monkeypatch.setattr(scaling, "PATIENCE", 10)
    scales = []
    sound = Scaling.sound

    def seen(self, model):
        found = sound(self, model)
        scales.append((self.scale, self.steps))
        return found

    monkeypatch.setattr(Scaling, "sound", seen)
    whole = fitted(1e3)
    expected = scales[:]
    scales.clear()
    assert len({scale for scale, _ in expected}) > 2

    def kill(done, total, value):
        if done == at + 1:
            raise Killed

    with pytest.raises(Killed):
        fitted(1e3, state=tmp_path / "state.pt", progress=kill)
    scales.clear()
    again = fitted(1e3, state=tmp_path / "state.pt")
    assert scales == expected[-len(scales) :] and len(scales) < len(expected)
    assert torch.equal(whole.weight, again.weight)


def test_an_image_network_learns_in_float16():
    recipe = replace(small(recipe_of("airbench94")), epochs=4.0)
    found = {name: train(dataset(), recipe, seed=0, device=CPU, precision=name) for name in ("float16", "float32")}
    half, single = (found[name].epochs for name in ("float16", "float32"))
    assert found["float16"].accuracy > 0.8
    for a, b in zip(half, single, strict=True):
        assert abs(a.loss - b.loss) < 0.05


@pytest.mark.parametrize(
    ("units", "capability", "expected"),
    [(True, (8, 0), "bfloat16"), (False, (7, 5), "float16"), (False, (7, 0), "float16"), (False, (6, 1), "float32")],
)
def test_a_card_without_units_for_bfloat16_computes_in_float16_if_it_is_fast_at_it(
    monkeypatch, units, capability, expected
):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: units)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    fast_precision.cache_clear()
    try:
        assert fast_precision("cuda") == expected
        assert expected in NUMBERS
    finally:
        fast_precision.cache_clear()
