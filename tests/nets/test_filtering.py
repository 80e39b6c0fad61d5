"""Convolutions by minimal filtering say what torch's say in double precision, and so do their gradients."""

import copy
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from fastrain.nets import filtering
from fastrain.nets.blocks import ConvNorm
from fastrain.nets.convolution import Convolution
from fastrain.nets.filtering import convolve, convolved, filtered
from fastrain.nets.plain import LARGE, forecasting, worth_it
from fastrain.nets.rain_net import RainNet

pytestmark = pytest.mark.skipif(filtering.winograd() is None, reason="numba is not installed")

SHAPES = [  # images, channels in, channels out, y, x
    (5, 24, 48, 9, 14),
    (3, 8, 16, 31, 29),  # the way back to 8 channels is torch's
    (30, 64, 72, 3, 3),
    (2, 72, 24, 50, 61),
    (1, 48, 32, 4, 400),  # a row of tiles is more than is multiplied at a turn
    (24, 16, 16, 1, 1),
    (1, 256, 256, 33, 17),
]


@pytest.fixture(params=[1, 3])
def threads(request):
    """Let one thread compute, or some."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def off(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return how far off the worst number is, as a share of the largest."""
    expected = expected.detach()
    return float((found.detach().double() - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("shape", SHAPES)
def test_it_gives_the_convolution_and_its_gradients_in_double_precision(shape, threads):
    torch.manual_seed(0)
    images, channels_in, channels_out, height, width = shape
    x = torch.randn(images, channels_in, height, width, requires_grad=True)
    weight = torch.randn(channels_out, channels_in, 3, 3, requires_grad=True)
    bias = torch.randn(channels_out, requires_grad=True)
    gradient = torch.randn(images, channels_out, height, width)
    assert filtered(x, weight)
    for what in (x, x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()):
        weight.grad = bias.grad = None
        out = convolve(what, weight, bias)
        out.backward(gradient)
        exact = [one.detach().double().requires_grad_() for one in (x, weight, bias)]
        expected = F.conv2d(*exact, padding=1)
        expected.backward(gradient.double())
        assert out.is_contiguous(memory_format=torch.channels_last)
        assert off(out, expected) < 2e-5
        for mine, theirs in zip((what, weight, bias), exact, strict=True):
            assert off(mine.grad, theirs.grad) < 2e-5


def test_what_lay_in_its_room_before_changes_nothing(threads):
    """Maps of no numbers, then others: the room is filled up with what does not count."""
    torch.manual_seed(1)
    x, weight = torch.randn(7, 24, 10, 7), torch.randn(24, 24, 3, 3, requires_grad=True)
    gradient = torch.randn(7, 24, 10, 7)

    def found() -> tuple[torch.Tensor, torch.Tensor]:
        out = convolve(x, weight)
        return out, torch.autograd.grad(out, weight, gradient)[0]

    before = found()
    none = torch.full((20, 24, 16, 16), torch.nan)
    assert convolve(none, weight).isnan().all()
    assert all(torch.equal(a, b) for a, b in zip(before, found(), strict=True))


def test_forecasts_of_small_maps_do_not_load_numba():
    asked = """
import sys
import torch
from fastrain.nets.image_net import ImageNet
from fastrain.nets.rain_net import RainNet

rain = RainNet(8, guesses=2, thresholds=3, conditions=6, width=24).eval()
rain(torch.zeros(1, 8, 200, 200), torch.zeros(1, 3, 2, 200, 200), torch.zeros(1, 6))
ImageNet(3, 10).eval()(torch.zeros(60, 3, 32, 32))
print("numba" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_forecasts_of_large_maps_go_by_it(monkeypatch):
    asked = []
    monkeypatch.setattr(filtering, "convolve", lambda x, *_: asked.append(x.shape) or torch.zeros(1))
    x, weight = torch.randn(1, 24, 40, 40), torch.randn(24, 24, 3, 3)
    convolved(x, weight, training=False)
    assert not asked
    with forecasting(LARGE):
        with forecasting(1):  # within many, few are among many
            convolved(x, weight, training=False)
        assert len(asked) == 1
    assert not worth_it(training=False)
    with forecasting(LARGE - 1):
        convolved(x, weight, training=False)
    convolved(x, weight, training=True)
    assert len(asked) == 2


def test_a_rain_network_says_the_same_by_it_as_by_torch(monkeypatch):
    torch.manual_seed(2)
    network = RainNet(8, guesses=2, thresholds=3, conditions=6, width=24)
    torch.nn.init.normal_(network.head.weight)
    inputs = torch.randn(2, 8, 57, 66), torch.randn(2, 3, 2, 57, 66), torch.randn(2, 6)
    network.stem.fit(inputs[0], 1e-3)
    network(*inputs).square().mean().backward()  # some statistics
    network.zero_grad()
    found = []
    for loops in (filtering.winograd, lambda: None):
        monkeypatch.setattr(filtering, "winograd", loops)
        one = copy.deepcopy(network).eval()
        with torch.no_grad(), forecasting(LARGE):
            for maps in (slice(None), slice(1)):  # some at a time, and one, whose norms are folded
                found.append(one(*(given[maps] for given in inputs)))
        one.train()(*inputs).square().mean().backward()
        found.append(one.fine.first.conv.weight.grad)
    for mine, theirs in zip(found[:3], found[3:], strict=True):
        assert off(mine, theirs.double()) < 1e-4


def test_a_way_back_within_autocast_is_that_of_the_way_there():
    x = torch.randn(3, 24, 20, 20, requires_grad=True)
    weight = torch.randn(24, 24, 3, 3, requires_grad=True)
    gradient = torch.randn(3, 24, 20, 20)
    expected = torch.autograd.grad(convolve(x, weight), (x, weight), gradient)
    out = convolve(x, weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = torch.autograd.grad(out, (x, weight), gradient)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_bias_alone_has_its_gradient():
    x, weight = torch.randn(3, 24, 20, 20), torch.randn(24, 24, 3, 3)
    bias = torch.randn(24, requires_grad=True)
    convolve(x, weight, bias).sum().backward()
    assert torch.allclose(bias.grad, torch.full((24,), 1200.0))


def test_without_a_gradient_nothing_of_the_input_is_changed():
    x, weight, bias = torch.randn(2, 24, 20, 20), torch.randn(24, 24, 3, 3), torch.randn(24)
    held = x.clone()
    with torch.no_grad():
        out = convolve(x, weight, bias)
    assert torch.equal(x, held)
    assert torch.equal(out, convolve(x, weight, bias.requires_grad_()))


@pytest.mark.parametrize(
    ("x", "weight"),
    [
        (torch.zeros(9, 12, 8, 8), torch.zeros(24, 12, 3, 3)),  # channels in that are no eights
        (torch.zeros(9, 24, 8, 8), torch.zeros(20, 24, 3, 3)),  # channels out that fill no panel
        (torch.zeros(2, 24, 8, 8), torch.zeros(24, 24, 3, 3)),  # few tiles
        (torch.zeros(9, 24, 8, 8, dtype=torch.double), torch.zeros(24, 24, 3, 3, dtype=torch.double)),
        (torch.zeros(9, 24, 8, 8, device="meta"), torch.zeros(24, 24, 3, 3, device="meta")),
        (torch._neg_view(torch.zeros(9, 24, 8, 8)), torch.zeros(24, 24, 3, 3)),
    ],
)
def test_what_it_does_not_know_is_torchs(x, weight):
    assert not filtered(x, weight)
    assert convolved(x, weight, training=True).shape == (len(x), len(weight), *x.shape[2:])


def test_maps_of_no_channels_are_not_read():
    assert not filtered(torch.zeros(9, 0, 8, 8), torch.zeros(24, 0, 3, 3))


def test_bfloat16_is_torchs():
    x, layer = torch.randn(9, 24, 8, 8), Convolution(24, 24)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not filtered(x, layer.weight)
        assert layer(x).dtype == torch.bfloat16
    assert filtered(x, layer.weight)


def test_without_numba_or_without_its_instruction_it_is_torchs(monkeypatch):
    x, layer = torch.randn(9, 24, 8, 8), ConvNorm(24, 24)
    mine = layer(x)
    monkeypatch.setattr(filtering, "multiplies_and_adds", lambda: False)
    assert not filtered(x, layer.conv.weight)
    assert torch.allclose(layer(x), mine, atol=1e-4)
    monkeypatch.undo()
    monkeypatch.setattr(filtering, "winograd", lambda: None)
    assert not filtered(x, layer.conv.weight)
