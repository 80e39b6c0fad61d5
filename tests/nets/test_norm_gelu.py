"""Halving, norm and GELU in few passes say what torch's say, and so do their gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastrain.nets import norm_gelu as module
from fastrain.nets.norm_gelu import gelu, in_passes, norm_gelu
from fastrain.nets.plain import LARGE, forecasting

SHAPES = [(True, (50, 64, 31, 30)), (False, (20, 32, 7, 9)), (True, (30, 16, 7, 7)), (True, (3, 16, 2, 2))]


pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(module.passes() is None, reason="numba is not installed"),
]


def maps(*shape: int, kind: torch.dtype = torch.bfloat16) -> torch.Tensor:
    """Return random maps of means that are not nothing, channels last."""
    return (2 * torch.randn(shape) + 1).to(kind).contiguous(memory_format=torch.channels_last)


def norms(channels: int) -> list[nn.BatchNorm2d]:
    """Return two norms of the same random weights."""
    found = []
    for _ in range(2):
        torch.manual_seed(3)
        norm = nn.BatchNorm2d(channels, momentum=0.3)
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
        found.append(norm)
    return found


def off(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return how far off the worst number is, as a share of the largest."""
    return float(((found.double() - expected.double()).abs().max() / expected.double().abs().max()).detach())


@pytest.mark.parametrize(("kind", "near"), [(torch.bfloat16, 2**-8), (torch.float32, 5e-6)])
@pytest.mark.parametrize(("halve", "shape"), SHAPES)
def test_the_passes_give_what_torch_gives_in_double_precision(halve, shape, kind, near):
    torch.manual_seed(0)
    mine, theirs = norms(shape[1])
    theirs = theirs.double()
    x = maps(*shape, kind=kind).requires_grad_()
    exact = x.detach().double().requires_grad_()
    assert in_passes(x, shape[1], training=True)
    out = norm_gelu(x, mine, halve=halve)
    expected = F.gelu(theirs(F.max_pool2d(exact, 2) if halve else exact))
    gradient = torch.randn(expected.shape).to(kind)
    out.backward(gradient)
    expected.backward(gradient.double())
    assert out.dtype == x.grad.dtype == kind
    assert off(out, expected) < near
    assert off(x.grad, exact.grad) < 2 * near
    assert off(mine.weight.grad, theirs.weight.grad) < min(1e-3, 10 * near)
    assert off(mine.bias.grad, theirs.bias.grad) < min(1e-3, 10 * near)
    assert off(mine.running_mean, theirs.running_mean) < 1e-5
    assert off(mine.running_var, theirs.running_var) < 1e-4
    assert mine.num_batches_tracked == 1
    with torch.no_grad(), forecasting(LARGE[torch.float32]):
        assert (
            off(
                norm_gelu(x, mine.eval(), halve=halve),
                F.gelu(theirs.eval()(F.max_pool2d(exact, 2) if halve else exact)),
            )
            < 2 * near
        )


def test_gelu_and_its_slope_are_right_everywhere():
    x = torch.linspace(-12, 12, 24 * 1024).bfloat16().view(-1, 24, 2, 2)
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    exact = x.detach().double().requires_grad_()
    gelu(x).sum().backward()
    expected = F.gelu(exact)
    expected.sum().backward()
    with torch.no_grad():
        wrong = (gelu(x).double() - expected).abs()
        assert (wrong - expected.abs() * 2**-8).max() < 3e-5
        assert wrong[x < -5.5].max() < 5e-6
        assert not gelu(torch.full((1, 16, 1, 1), -1e30).bfloat16()).any()
    # Half a unit in the last place of numbers beyond 1, and the polynomial.
    assert (x.grad.double() - exact.grad).abs().max() < 2**-8 + 1e-4


def test_in_float32_gelu_and_its_slope_are_off_by_a_few_millionths():
    x = torch.linspace(-12, 12, 24 * 1024).view(-1, 24, 2, 2)
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    exact = x.detach().double().requires_grad_()
    out, expected = gelu(x, training=True), F.gelu(exact)
    out.sum().backward()
    expected.sum().backward()
    assert (out - expected).abs().max() < 3e-6
    assert (x.grad - exact.grad).abs().max() < 1e-5


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float32])
def test_ties_go_to_the_first_and_what_a_last_odd_row_and_column_hold_gets_nothing(kind):
    norm = nn.BatchNorm2d(16)
    x = torch.ones(2, 16, 5, 5, dtype=kind)
    x[:, :, :2, :2] = 2.0
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    exact = x.detach().clone().float().requires_grad_()
    gradient = torch.randn(2, 16, 2, 2).to(kind)
    norm_gelu(x, norm, halve=True).backward(gradient)
    F.gelu(nn.BatchNorm2d(16)(F.max_pool2d(exact, 2))).backward(gradient.float())
    assert torch.equal(x.grad != 0, exact.grad != 0)


@pytest.mark.parametrize("at", [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("halve", [True, False])
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float32])
def test_what_is_no_number_stays_none(at, halve, kind):
    x = maps(2, 16, 4, 4, kind=kind)
    x[1, 3, at[0], at[1]] = torch.nan
    norm = nn.BatchNorm2d(16)
    out = norm_gelu(x, norm, halve=halve)
    assert out[:, 3].isnan().all()
    assert norm.running_mean[3].isnan()
    assert not out[:, 4:].isnan().any()
    assert gelu(x, training=True).isnan().sum() == 1


@pytest.mark.parametrize("ratio", [50, 200])
def test_a_mean_far_above_the_spread_costs_the_variance_no_digits(ratio):
    torch.manual_seed(7)
    x = (torch.randn(64, 32, 16, 16) + ratio).bfloat16().contiguous(memory_format=torch.channels_last)
    mine, theirs = norms(32)
    theirs = theirs.double()
    out = norm_gelu(x, mine, halve=False)
    expected = F.gelu(theirs(x.double()))
    assert off(mine.running_var, theirs.running_var) < 1e-5
    assert off(out, expected) < 2**-8


def test_another_standard_number_changes_nothing():
    x = maps(4, 16, 6, 6)
    expected = gelu(x), norm_gelu(x, norms(16)[0], halve=True)
    norm = norms(16)[0]
    torch.set_default_dtype(torch.float64)
    try:
        found = gelu(x), norm_gelu(x, norm, halve=True)
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


def test_without_the_instruction_float32_is_torchs(monkeypatch):
    x = maps(2, 16, 4, 4, kind=torch.float32)
    assert in_passes(x, 16, training=True)
    assert not in_passes(x, 16, training=False)
    monkeypatch.setattr(module, "multiplies_and_adds", lambda: False)
    assert not in_passes(x, 16, training=True)


def test_what_the_passes_do_not_know_is_torchs_and_refused_as_torch_refuses_it(monkeypatch):
    x = maps(2, 16, 4, 4)
    assert not in_passes(x.double(), 16, training=True)
    assert not in_passes(x, 20, training=True)
    assert not in_passes(x[:0], 16, training=True)
    norm = nn.BatchNorm2d(16, momentum=None)  # an average of all steps
    assert torch.equal(norm_gelu(x, norm, halve=True), F.gelu(nn.BatchNorm2d(16)(F.max_pool2d(x, 2))))
    with torch.no_grad(), pytest.raises(RuntimeError, match="16"):
        norm_gelu(x, nn.BatchNorm2d(64).eval(), halve=False)
    plain = nn.BatchNorm2d(16)
    with pytest.raises(ValueError, match="more than 1 value"):
        norm_gelu(x[:1, :, :1, :1], plain, halve=False)
    with pytest.raises(RuntimeError, match="too small"):
        norm_gelu(x[:, :, :1, :1], plain, halve=True)
    assert not plain.running_mean.any()
    half = nn.BatchNorm2d(16).bfloat16()
    assert norm_gelu(x, half, halve=False).dtype == torch.bfloat16
    monkeypatch.setattr(module, "passes", lambda: None)
    assert not in_passes(x, 16, training=True)
    assert torch.equal(gelu(x), F.gelu(x))
