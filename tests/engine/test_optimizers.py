"""Optimisers against linear algebra and against steps by hand."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from fastrain.engine.averaging import MovingAverage
from fastrain.engine.optimizers import SGD, AdamW, Muon, Steering, adamw, orthogonalised
from fastrain.engine.schedule import falling


@pytest.mark.parametrize("shape", [(16, 40), (40, 16), (12, 12)])
def test_an_orthogonalised_matrix_keeps_its_singular_vectors_and_evens_its_values(shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    out = orthogonalised(matrix)
    inner = left.T @ out @ right.T
    assert (inner - torch.diag(torch.diag(inner))).abs().max() < 0.05  # bfloat16
    # Values within a tenth of the largest come out near one.
    well = values > 0.1 * values[0]
    assert ((torch.diag(inner)[well] > 0.4) & (torch.diag(inner)[well] < 1.6)).all()


def test_a_step_of_muon_is_the_orthogonal_update_of_a_weight_of_fixed_norm():
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(8, 3, 2, 2))
    before = weight.detach().clone()
    weight.grad = torch.randn_like(weight)
    gradient = weight.grad.clone()
    Muon([weight], lr=0.1, momentum=0.6).step()
    ahead = gradient * 1.6  # the first momentum is the gradient
    update = orthogonalised(ahead.reshape(8, -1)).view_as(before)
    torch.testing.assert_close(weight.detach(), before * 8**0.5 / before.norm() - 0.1 * update)


def test_each_group_follows_its_schedule_and_one_without_a_rate_is_not_differentiated():
    first, second = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    sgd = SGD([{"params": [first], "lr": 1.0}, {"params": [second], "lr": 2.0}], lr=1.0)
    steering = Steering([(sgd, [lambda step: falling(step, 2), lambda step: 0.5])])
    for step, (rate, other) in enumerate([(1.0, 1.0), (0.5, 1.0), (0.0, 1.0)]):
        steering.prepare(step)
        assert [group["lr"] for group in sgd.param_groups] == [rate, other]
        assert first.requires_grad == (rate > 0)
        loss = (first * 1.0 + second * 3.0).sum()
        loss.backward()
        before = first.detach().clone(), second.detach().clone()
        steering.step()
        assert first.item() == pytest.approx(before[0].item() - rate)
        assert second.item() == pytest.approx(before[1].item() - 3 * other)
        assert first.grad is None and second.grad is None


def test_settled_weights_stay_as_they_are_and_cost_no_way_back():
    torch.manual_seed(0)
    first, second = torch.nn.Linear(3, 4), torch.nn.Linear(4, 1)
    optimiser = SGD([*first.parameters(), *second.parameters()], lr=0.1, momentum=0.9)
    steering = Steering([(optimiser, [lambda step: 1.0])], (list(first.parameters()), 2))
    seen = []
    for step in range(4):
        steering.prepare(step)
        out = second(first(torch.ones(2, 3)))
        seen.append((first.weight.clone(), second.weight.clone(), first.weight.requires_grad))
        out.sum().backward()
        assert (first.weight.grad is None) == (step >= 2)
        steering.step()
    assert [learns for *_, learns in seen] == [True, True, False, False]
    assert not torch.equal(seen[1][0], seen[2][0]) and torch.equal(seen[2][0], first.weight)
    assert not torch.equal(seen[3][1], second.weight)
    steering.prepare(0)
    assert first.weight.requires_grad


def test_a_moving_average_starts_late_decays_and_is_copied_back():
    network = nn.Linear(1, 1, bias=False)
    average = MovingAverage(network, lambda step: 0.75, every=2, start=2, copy_back=True)
    own = []
    for value in range(7):
        assert average.started == (value > 2)
        nn.init.constant_(network.weight, float(value))
        average.update(network)
        own.append(network.weight.item())
    # It starts at 2; at 4 it takes a quarter of 4, at 6 a quarter of 6; the network goes on from it.
    at_4 = 0.75 * 2 + 0.25 * 4
    at_6 = 0.75 * at_4 + 0.25 * 6
    assert own == pytest.approx([0, 1, 2, 3, at_4, 5, at_6])
    assert float(average.model.weight) == pytest.approx(at_6)


def test_a_moving_average_goes_on_from_its_state():
    network = nn.Linear(1, 1, bias=False)
    one = MovingAverage(network, lambda step: 0.9, start=1)
    for value in (1.0, 2.0, 3.0):
        nn.init.constant_(network.weight, value)
        one.update(network)
    other = MovingAverage(nn.Linear(1, 1, bias=False), lambda step: 0.9, start=1)
    other.load_state_dict(one.state_dict())
    nn.init.constant_(network.weight, 5.0)
    one.update(network)
    other.update(network)
    assert float(one.model.weight) == pytest.approx(float(other.model.weight))


def weights_and_gradients(seed):
    torch.manual_seed(seed)
    shapes = [(5, 3, 2, 2), (7,), (4, 6)]
    return [nn.Parameter(torch.randn(shape)) for shape in shapes], [torch.randn(shape) for shape in shapes]


@pytest.mark.parametrize(
    ("own", "torchs", "options"),
    [
        (AdamW, torch.optim.AdamW, {"betas": (0.9, 0.98), "weight_decay": 0.02}),
        (SGD, torch.optim.SGD, {}),
        (SGD, torch.optim.SGD, {"momentum": 0.6}),
        (SGD, torch.optim.SGD, {"momentum": 0.85, "nesterov": True, "weight_decay": 0.1}),
    ],
)
def test_steps_are_those_of_torchs_optimisers_also_when_gone_on_with(own, torchs, options):
    mine, gradients = weights_and_gradients(0)
    theirs, _ = weights_and_gradients(0)
    optimiser, reference = own(mine, lr=0.1, **options), torchs(theirs, lr=0.1, **options)
    for step in range(6):
        if step == 3:
            kept = optimiser.state_dict()
            optimiser = own(mine, lr=0.1, **options)
            optimiser.load_state_dict(kept)
        for weight, other, gradient in zip(mine, theirs, gradients, strict=True):
            # The second weight is learned from the third step on.
            given = None if weight.ndim == 1 and step < 2 else gradient * (step + 1)
            weight.grad, other.grad = (None if given is None else given.clone() for _ in range(2))
        optimiser.step()
        reference.step()
        for weight, other in zip(mine, theirs, strict=True):
            torch.testing.assert_close(weight, other, rtol=1e-5, atol=1e-6)


def test_a_training_does_not_load_torchs_compiler():
    """It takes two seconds and 72 MB, and nothing of it is used."""
    program = """
import sys, torch
from fastrain.engine.fit import FitSettings, fit
from fastrain.engine.optimizers import adamw
from fastrain.engine.lean import compute_again
model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
compute_again(model, (torch.nn.Linear,))
draw = lambda step: torch.ones(4, 2)
fit(model, draw, lambda model, x: model(x).square().mean(), adamw(model, 3), FitSettings(steps=3, clip=1.0))
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_decay_is_of_filters_and_matrices_alone():
    steering = adamw(nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)), 10)
    ((optimiser, _),) = steering.parts
    assert [(group["weight_decay"], [w.ndim for w in group["params"]]) for group in optimiser.param_groups] == [
        (0.02, [4]),
        (0.0, [1, 1, 1]),
    ]
