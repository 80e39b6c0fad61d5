"""Convolutions by minimal filtering say what torch's say in double precision, and so do their gradients."""

from __future__ import annotations

import copy
from functools import partial
from math import prod

import pytest
import torch
import torch.nn.functional as F

from fastrain.nets import blocks, convolution, filtering
from fastrain.nets.blocks import ConvNorm
from fastrain.nets.convolution import Convolution
from fastrain.nets.filtering import convolve, convolve_halved, convolved, filtered
from fastrain.nets.image_net import Group, NetSettings
from fastrain.nets.plain import LARGE, forecasting, multiplies_pairs
from fastrain.nets.rain_net import RainNet
from fastrain.nets.turns import Maps, halved_convolution

pytestmark = pytest.mark.skipif(filtering.winograd() is None, reason="numba is not installed")

# By how much numbers may be off, the worst as a share of the largest, and in the mean as a share of what is usual.
WORST = {torch.float32: 1e-5, torch.bfloat16: 0.03}
USUAL = {torch.float32: 4e-6, torch.bfloat16: 0.015}
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


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def kind(request):
    """Compute in each of the numbers that there are instructions for."""
    if request.param == torch.bfloat16 and not multiplies_pairs():
        pytest.skip("this processor does not multiply pairs of bfloat16, or has a matrix unit for them")
    return request.param


def off(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return how far off the worst number is, as a share of the largest."""
    expected = expected.detach()
    return float((found.detach().double() - expected).abs().max() / expected.abs().max())


def counting(calls: list, function, *given, **named):
    """Call a function, and keep that it was called."""
    calls.append(0)
    return function(*given, **named)


def usually_off(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the root of the mean square of how far off numbers are, as a share of theirs."""
    expected = expected.detach()
    return float((found.detach().double() - expected).square().mean().sqrt() / expected.square().mean().sqrt())


@pytest.mark.parametrize("shape", SHAPES)
def test_it_gives_the_convolution_and_its_gradients_in_double_precision(shape, kind, threads):
    torch.manual_seed(0)
    images, channels_in, channels_out, height, width = shape
    x = torch.randn(images, channels_in, height, width).to(kind).requires_grad_()
    weight = torch.randn(channels_out, channels_in, 3, 3).to(kind).requires_grad_()
    bias = torch.randn(channels_out).to(kind).requires_grad_()
    gradient = torch.randn(images, channels_out, height, width).to(kind)
    assert filtered(x, weight, bias)
    for what in (x, x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()):
        weight.grad = bias.grad = None
        out = convolve(what, weight, bias)
        out.backward(gradient)
        exact = [one.detach().double().requires_grad_() for one in (x, weight, bias)]
        expected = F.conv2d(*exact, padding=1)
        expected.backward(gradient.double())
        assert out.is_contiguous(memory_format=torch.channels_last)
        pairs = [(out, expected)]
        pairs += [(mine.grad, theirs.grad) for mine, theirs in zip((what, weight, bias), exact, strict=True)]
        for mine, theirs in pairs:
            assert off(mine, theirs) < WORST[kind]
            assert usually_off(mine, theirs) < USUAL[kind]


def test_bfloat16_is_no_further_off_than_rounding_what_is_multiplied_makes_it(kind):
    """The transforms are worked out from polynomials, in double precision, and rounded where the loops round."""
    torch.manual_seed(3)
    x, weight = torch.randn(40, 64, 4, 4).to(kind), torch.randn(64, 64, 3, 3).to(kind)
    points = [0.0, 0.5**0.5, -(0.5**0.5), 2**0.5, -(2**0.5)]
    others = [[q for q in points if q != p] for p in points]
    far = torch.zeros(6, dtype=torch.double)
    far[5] = 1
    rows = [torch.tensor([*_polynomial(roots), 0.0], dtype=torch.double) for roots in others]
    of_cells = torch.stack([*rows, torch.tensor(_polynomial(points), dtype=torch.double)])
    scale = torch.tensor(
        [prod(p - q for q in roots) for p, roots in zip(points, others, strict=True)], dtype=torch.double
    )
    powers = torch.tensor([[p**k for k in range(4)] for p in points], dtype=torch.double)
    of_weights = torch.cat([powers[:, :3] / scale[:, None], far[None, 3:]])
    to_cells = torch.cat([powers, far[None, 2:]])
    cells = F.pad(x.double(), (1, 1, 1, 1))
    taken = torch.einsum("ik,bckl,jl->bcij", of_cells, cells, of_cells)
    by = torch.einsum("ik,ockl,jl->ocij", of_weights, weight.double(), of_weights)
    products = torch.einsum("bcij,ocij->boij", taken.to(kind).double(), by.to(kind).double())
    expected = torch.einsum("ik,boij,jl->bokl", to_cells, products, to_cells)
    assert torch.allclose(
        torch.einsum("ik,boij,jl->bokl", to_cells, torch.einsum("bcij,ocij->boij", taken, by), to_cells),
        F.conv2d(x.double(), weight.double(), padding=1),
    )
    assert usually_off(convolve(x, weight), expected) < (2e-3 if kind == torch.bfloat16 else 2e-6)


def _polynomial(roots: list[float]) -> list[float]:
    """Return the coefficients of a product of (x − root), the lowest power first."""
    found = [1.0]
    for root in roots:
        found = [a - root * b for a, b in zip([0.0, *found], [*found, 0.0], strict=True)]
    return found


def test_what_lay_in_its_room_before_changes_nothing(kind, threads):
    """Maps of no numbers, then others: the room is filled up with what does not count."""
    torch.manual_seed(1)
    x, weight = torch.randn(7, 24, 10, 7).to(kind), torch.randn(24, 24, 3, 3).to(kind).requires_grad_()
    gradient = torch.randn(7, 24, 10, 7).to(kind)

    def found() -> tuple[torch.Tensor, torch.Tensor]:
        out = convolve(x, weight)
        return out, torch.autograd.grad(out, weight, gradient)[0]

    before = found()
    none = torch.full((20, 24, 16, 16), torch.nan, dtype=kind)
    assert convolve(none, weight).isnan().all()
    assert all(torch.equal(a, b) for a, b in zip(before, found(), strict=True))


def test_a_rain_network_says_the_same_by_it_as_by_torch(monkeypatch, kind):
    torch.manual_seed(2)
    network = RainNet(8, guesses=2, thresholds=3, conditions=6, width=24)
    torch.nn.init.normal_(network.head.weight)
    inputs = torch.randn(2, 8, 57, 66), torch.randn(2, 3, 2, 57, 66), torch.randn(2, 6)
    network.stem.fit(inputs[0], 1e-3)
    network(*inputs).square().mean().backward()  # some statistics
    network.zero_grad()
    found, asked, bent = [], [], []
    for module, name, calls in ((filtering, "convolve", asked), (blocks, "in_one_pass", bent)):
        counted = partial(counting, calls, getattr(module, name))
        monkeypatch.setattr(module, name, counted)
    for loops in (filtering.winograd, None):
        monkeypatch.setattr(filtering, "winograd", loops or (lambda: None))
        one = copy.deepcopy(network).eval()
        half = torch.autocast("cpu", torch.bfloat16, enabled=loops is not None and kind == torch.bfloat16)
        with torch.no_grad(), forecasting(LARGE[kind]), half:
            for maps in (slice(None), slice(1)):  # some at a time, and one, whose norms are folded
                found.append(one(*(given[maps] for given in inputs)))
        with half:
            out = one.train()(*inputs)
        out.square().mean().backward()
        found.append(one.fine.first.conv.weight.grad)
    assert len(asked) == 10 + 8 + 10  # all of the blocks' convolutions; one map's coarsest scale has few tiles
    assert len(bent) == 6 * 11  # and what follows each, and the stem, whosever convolutions they are
    for mine, theirs, near in zip(found[:3], found[3:], (0.02, 0.02, 0.1), strict=True):
        assert usually_off(mine, theirs.double()) < (1e-5 if kind == torch.float32 else near)


def test_a_way_back_within_autocast_is_that_of_the_way_there():
    x = torch.randn(3, 24, 20, 20, requires_grad=True)
    weight = torch.randn(24, 24, 3, 3, requires_grad=True)
    gradient = torch.randn(3, 24, 20, 20)
    expected = torch.autograd.grad(convolve(x, weight), (x, weight), gradient)
    out = convolve(x, weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = torch.autograd.grad(out, (x, weight), gradient)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("shape", [*SHAPES[:5], (40, 16, 32, 2, 2), (30, 64, 64, 3, 2), (2, 16, 32, 5, 41)])
def test_a_convolution_halved_in_one_go_is_the_largest_of_each_four(shape, kind, threads):
    torch.manual_seed(6)
    images, channels_in, channels_out, height, width = shape
    x = torch.randn(images, channels_in, height, width).to(kind).requires_grad_()
    weight = torch.randn(channels_out, channels_in, 3, 3).to(kind).requires_grad_()
    out = convolve_halved(x, weight)
    whole = convolve(x, weight)
    assert torch.equal(out, F.max_pool2d(whole, 2))
    assert out.is_contiguous(memory_format=torch.channels_last)
    gradient = torch.randn(out.shape).to(kind)
    found = torch.autograd.grad(out, (x, weight), gradient)
    _, which = halved_convolution(Maps.of(x.detach().contiguous(memory_format=torch.channels_last)), weight.detach())
    spread = Maps(gradient, which, height, width).whole()
    rows, columns = (2 * size for size in out.shape[2:])
    fours = [one[..., :rows, :columns].unflatten(3, (-1, 2)).unflatten(2, (-1, 2)) for one in (spread, whole)]
    assert torch.equal(fours[0].sum((3, 5)), gradient)
    assert torch.equal((fours[1] * (fours[0] != 0)).sum((3, 5)), out)  # each at a cell that holds the largest
    assert not spread[..., rows:, :].any() and not spread[..., columns:].any()
    expected = torch.autograd.grad(whole, (x, weight), spread)
    assert all(off(mine, theirs.double()) < 1e-6 for mine, theirs in zip(found, expected, strict=True))


def test_what_is_no_number_is_not_lost_where_it_is_halved(kind):
    x = torch.zeros(3, 16, 16, 16).to(kind)
    x[1, 3, 6, 7] = torch.nan
    weight = torch.ones(16, 16, 3, 3).to(kind)
    assert torch.equal(convolve_halved(x, weight).isnan(), F.max_pool2d(convolve(x, weight), 2).isnan())
    assert convolve_halved(x, weight)[1].isnan().any() and not convolve_halved(x, weight)[0].isnan().any()


def test_a_group_halves_in_one_go_only_where_that_is_worth_it(monkeypatch):
    torch.manual_seed(7)
    group = Group(16, 32, 2, "after", NetSettings())
    x = torch.randn(8, 16, 10, 10)
    asked = []
    monkeypatch.setattr(convolution, "convolve_halved", partial(counting, asked, convolve_halved))
    mine = group(x)
    assert len(asked) == 1
    group.eval()(x)
    assert len(asked) == 1
    monkeypatch.setattr(filtering, "winograd", lambda: None)
    theirs = group.train()(x)
    assert len(asked) == 1
    assert off(mine, theirs.double()) < 1e-4
    assert group.convolutions[0].halved(torch.randn(30, 16, 1, 9)) is None


@pytest.mark.parametrize(
    "of",
    [
        lambda bias: bias.repeat_interleave(2)[::2],
        lambda bias: bias[:1].expand(24),
        lambda bias: torch._neg_view(-bias),
    ],
    ids=["strided", "expanded", "negated"],
)
def test_a_bias_lies_as_it_likes(kind, of):
    torch.manual_seed(4)
    x, weight, bias = (torch.randn(shape).to(kind) for shape in ((3, 24, 20, 20), (24, 24, 3, 3), (24,)))
    given = of(bias)
    assert filtered(x, weight, given)
    expected = F.conv2d(*(one.double() for one in (x, weight, given)), padding=1)
    assert off(convolved(x, weight, given, training=True), expected) < WORST[kind]


@pytest.mark.parametrize("bias", [torch.zeros(16), torch.zeros(1), torch.zeros(0), torch.zeros(24, dtype=torch.double)])
def test_a_bias_that_torch_refuses_is_refused(bias):
    x, weight = torch.randn(3, 24, 20, 20), torch.randn(24, 24, 3, 3)
    assert not filtered(x, weight, bias)
    with pytest.raises(RuntimeError, match="bias"):
        convolved(x, weight, bias, training=True)


def test_maps_and_gradients_whose_sign_is_only_noted(kind):
    torch.manual_seed(8)
    x, weight, gradient = (torch.randn(shape).to(kind) for shape in ((3, 24, 20, 20), (24, 24, 3, 3), (3, 24, 20, 20)))
    expected = convolve(x, weight.requires_grad_())
    out = convolve(torch._neg_view(-x), weight)
    assert torch.equal(out, expected)
    for given in (gradient, gradient[:, :, ::2, ::2]):
        made = (convolve if given is gradient else convolve_halved)(x, weight)
        mine, theirs = (
            torch.autograd.grad(made, weight, one, retain_graph=True)[0] for one in (torch._neg_view(-given), given)
        )
        assert torch.equal(mine, theirs)


def test_a_bias_alone_has_its_gradient():
    x, weight = torch.randn(3, 24, 20, 20), torch.randn(24, 24, 3, 3)
    bias = torch.randn(24, requires_grad=True)
    convolve(x, weight, bias).sum().backward()
    assert torch.allclose(bias.grad, torch.full((24,), 1200.0))


def test_without_a_gradient_nothing_of_the_input_is_changed(kind):
    x, weight, bias = (torch.randn(shape).to(kind) for shape in ((2, 24, 20, 20), (24, 24, 3, 3), (24,)))
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
    ],
)
def test_what_it_does_not_know_is_torchs(x, weight):
    assert not filtered(x, weight)
    assert convolved(x, weight, training=True).shape == (len(x), len(weight), *x.shape[2:])


@pytest.mark.parametrize("edges", [(1, 9), (5, 5), (1, 1)])
def test_filters_of_other_edges_are_torchs(edges):
    assert not filtered(torch.zeros(9, 24, 8, 8), torch.zeros(24, 24, *edges))


def test_maps_of_no_channels_are_not_read():
    assert not filtered(torch.zeros(9, 0, 8, 8), torch.zeros(24, 0, 3, 3))


def test_within_autocast_it_computes_in_bfloat16(monkeypatch):
    x, layer = torch.randn(9, 24, 8, 8), Convolution(24, 24)
    expected = F.conv2d(x.double(), layer.weight.double(), padding=1)
    for can in {False, multiplies_pairs()}:
        monkeypatch.setattr(filtering, "multiplies_pairs", lambda can=can: can)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert filtered(x, layer.weight) == can
            out = layer(x)
        assert out.dtype == torch.bfloat16
        assert usually_off(out, expected) < 0.02
        (gradient,) = torch.autograd.grad(out.float().square().sum(), layer.weight)
        assert gradient.dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.float16):
        assert not filtered(x, layer.weight)
    assert filtered(x, layer.weight)


def test_numbers_of_two_kinds_are_torchs():
    assert not filtered(torch.zeros(9, 24, 8, 8, dtype=torch.bfloat16), torch.zeros(24, 24, 3, 3))


def test_without_numba_or_without_its_instruction_it_is_torchs(monkeypatch):
    x, layer = torch.randn(9, 24, 8, 8), ConvNorm(24, 24)
    mine = layer(x)
    monkeypatch.setattr(filtering, "multiplies_and_adds", lambda: False)
    assert not filtered(x, layer.conv.weight)
    assert torch.allclose(layer(x), mine, atol=1e-4)
    monkeypatch.undo()
    monkeypatch.setattr(filtering, "winograd", lambda: None)
    assert not filtered(x, layer.conv.weight)
