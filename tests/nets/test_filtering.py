"""Convolutions by minimal filtering say what torch's say in double precision, and so do their gradients."""

import pytest
import torch
import torch.nn.functional as F

from fastrain.nets import filtering
from fastrain.nets.blocks import ConvNorm
from fastrain.nets.convolution import Convolution, convolved
from fastrain.nets.filtering import filtered

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
    assert filtered(x, weight, worth=True)
    for what in (x, x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()):
        weight.grad = bias.grad = None
        out = convolved(what, weight, bias, worth=True)
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
        out = convolved(x, weight, worth=True)
        return out, torch.autograd.grad(out, weight, gradient)[0]

    before = found()
    none = torch.full((20, 24, 16, 16), torch.nan)
    assert convolved(none, weight, worth=True).isnan().all()
    assert all(torch.equal(a, b) for a, b in zip(before, found(), strict=True))


def test_forecasts_of_small_maps_do_not_load_numba():
    x, weight = torch.randn(1, 8, 500, 500), torch.randn(16, 8, 3, 3)
    assert not filtered(x, weight, worth=False)
    assert filtered(x.expand(2, -1, -1, -1), weight, worth=False)


def test_without_a_gradient_nothing_of_the_input_is_changed():
    x, weight, bias = torch.randn(2, 24, 20, 20), torch.randn(24, 24, 3, 3), torch.randn(24)
    held = x.clone()
    with torch.no_grad():
        out = convolved(x, weight, bias, worth=True)
    assert torch.equal(x, held)
    assert torch.equal(out, convolved(x, weight, bias.requires_grad_(), worth=True))


@pytest.mark.parametrize(
    ("x", "weight"),
    [
        (torch.zeros(9, 12, 8, 8), torch.zeros(24, 12, 3, 3)),  # channels in that are no eights
        (torch.zeros(9, 24, 8, 8), torch.zeros(20, 24, 3, 3)),  # channels out that fill no panel
        (torch.zeros(2, 24, 8, 8), torch.zeros(24, 24, 3, 3)),  # few tiles
        (torch.zeros(9, 24, 8, 8, dtype=torch.double), torch.zeros(24, 24, 3, 3, dtype=torch.double)),
        (torch.zeros(9, 24, 8, 8, device="meta"), torch.zeros(24, 24, 3, 3, device="meta")),
    ],
)
def test_what_it_does_not_know_is_torchs(x, weight):
    assert not filtered(x, weight, worth=True)
    assert convolved(x, weight, worth=True).shape == (len(x), len(weight), *x.shape[2:])


def test_bfloat16_is_torchs():
    x, layer = torch.randn(9, 24, 8, 8), Convolution(24, 24)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not filtered(x, layer.weight, worth=True)
        assert layer(x).dtype == torch.bfloat16
    assert filtered(x, layer.weight, worth=True)


def test_without_numba_or_without_its_instruction_it_is_torchs(monkeypatch):
    x, layer = torch.randn(9, 24, 8, 8), ConvNorm(24, 24)
    mine = layer(x)
    monkeypatch.setattr(filtering, "_multiplies", lambda: False)
    assert not filtered(x, layer.conv.weight, worth=True)
    assert torch.allclose(layer(x), mine, atol=1e-4)
    monkeypatch.undo()
    monkeypatch.setattr(filtering, "winograd", lambda: None)
    assert not filtered(x, layer.conv.weight, worth=True)
