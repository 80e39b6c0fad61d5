"""The convolution on tiles says what torch's says, and so do its gradients; elsewhere it is torch's."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from fastrain.nets import convolution, filtering
from fastrain.nets.convolution import Convolution, gradient_of_weights, on_tiles

with_unit = pytest.mark.skipif(not convolution.usable(), reason="this processor has no matrix unit")
SHAPES = [  # images, channels in, channels out, y, x
    (40, 32, 32, 7, 7),
    (26, 64, 96, 15, 14),
    (33, 16, 32, 31, 31),
    (31, 24, 64, 9, 20),
    (32, 96, 32, 1, 1),
    (24, 33, 32, 3, 5),
    (70, 64, 256, 15, 15),
]


def halves(*shape: int) -> torch.Tensor:
    """Return random bfloat16 numbers, channels last."""
    return torch.randn(shape).bfloat16().contiguous(memory_format=torch.channels_last)


def close(found: torch.Tensor, expected: torch.Tensor, share: float) -> bool:
    """Tell whether no number is further off than a share of the largest."""
    return bool((found.double() - expected).abs().max() <= share * expected.abs().max())


@with_unit
@pytest.mark.parametrize("shape", SHAPES)
def test_tiles_give_the_convolution_and_its_gradients_in_double_precision_of_the_same_numbers(shape, one_thread):
    torch.manual_seed(0)
    images, channels_in, channels_out, height, width = shape
    x, gradient = halves(images, channels_in, height, width), halves(images, channels_out, height, width)
    layer = Convolution(channels_in, channels_out)
    with torch.no_grad():
        layer.weight.copy_(layer.weight.bfloat16())
    mine = x.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert on_tiles(mine, layer.weight)
        out = layer(mine)
    out.backward(gradient)
    exact, weight = x.double().requires_grad_(), layer.weight.detach().double().requires_grad_()
    expected = F.conv2d(exact, weight, padding=1)
    expected.backward(gradient.double())
    assert out.dtype == torch.bfloat16
    assert close(out, expected, 2**-8)  # half a unit in the last place of the largest
    assert close(mine.grad, exact.grad, 2**-8)
    assert layer.weight.grad.dtype == torch.float32
    assert close(layer.weight.grad, weight.grad, 1e-5)


@with_unit
def test_images_beyond_the_last_sixteen_or_thirty_two_and_rows_at_once_change_nothing(monkeypatch):
    torch.manual_seed(1)
    x, gradient, weight = halves(70, 32, 6, 9), halves(70, 64, 6, 9), torch.randn(64, 32, 3, 3)
    out, whole = convolution.convolve(x, weight), gradient_of_weights(x, gradient)
    parts = [convolution.convolve(halves_of, weight) for halves_of in x.split(27)]
    assert torch.equal(torch.cat(parts), out)
    gradients = [gradient_of_weights(a, b) for a, b in zip(x.split(27), gradient.split(27), strict=True)]
    assert close(sum(gradients), whole.double(), 1e-6)
    monkeypatch.setattr(convolution, "AT_ONCE", 27)
    monkeypatch.setattr(convolution, "MANY", 0)
    assert torch.equal(convolution.convolve(x, weight), out)
    assert close(gradient_of_weights(x, gradient), whole.double(), 1e-6)


@with_unit
def test_what_torch_multiplies_in_turns_with_it_stays_right(one_thread):
    torch.manual_seed(2)
    a, b = torch.randn(200, 300).bfloat16(), torch.randn(300, 100).bfloat16()
    x, weight = halves(33, 32, 9, 9), torch.randn(32, 32, 3, 3).bfloat16()
    product, map_ = a @ b, F.conv2d(x, weight, padding=1)
    for _ in range(3):
        convolution.convolve(x, weight)
        assert torch.equal(a @ b, product)
        gradient_of_weights(x, x)
        assert torch.equal(F.conv2d(x, weight, padding=1), map_)


@with_unit
def test_a_frozen_layer_gets_no_gradient_and_what_is_not_asked_for_is_not_computed(monkeypatch, one_thread):
    layer = Convolution(32, 32).bfloat16()
    layer.weight.requires_grad_(False)
    monkeypatch.setattr(convolution, "gradient_of_weights", lambda *_: pytest.fail("not asked for"))
    x = halves(24, 32, 5, 5).requires_grad_()
    assert on_tiles(x, layer.weight)
    layer(x).sum().backward()
    assert layer.weight.grad is None
    assert x.grad is not None


@with_unit
def test_maps_of_any_layout_and_precision_are_taken_and_what_is_no_number_stays_none(one_thread):
    torch.manual_seed(6)
    layer = Convolution(32, 64)
    x = torch.randn(40, 32, 8, 20)[:, :, :, ::2]  # float32, channels first, with gaps
    x[3, 5, 2, 2] = torch.nan
    x[4, 5, 2, 2] = torch.inf
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert on_tiles(x, layer.weight)
        out = layer(x)
        out.sum().backward()
    expected = F.conv2d(x.bfloat16().double(), layer.weight.bfloat16().double(), padding=1)
    assert torch.equal(out.isfinite(), expected.isfinite())
    assert out.isnan().any()
    right = expected.isfinite()
    assert close(out[right], expected[right], 2**-8)
    assert not layer.weight.grad[:, 5].isfinite().any()


@pytest.mark.parametrize(
    ("x", "weight", "autocast"),
    [
        (torch.zeros(24, 32, 4, 4), torch.zeros(32, 32, 3, 3), None),
        (torch.zeros(24, 32, 4, 4).bfloat16(), torch.zeros(32, 32, 3, 3), None),
        (torch.zeros(24, 32, 4, 4).double(), torch.zeros(32, 32, 3, 3), torch.bfloat16),
        (torch.zeros(24, 32, 4, 4), torch.zeros(32, 32, 3, 3), torch.float16),
        (torch.zeros(20, 32, 4, 4), torch.zeros(32, 32, 3, 3), torch.bfloat16),
        (torch.zeros(24, 64, 4, 4), torch.zeros(32, 32, 3, 3), torch.bfloat16),
        (torch.zeros(24, 32, 4, 4), torch.zeros(40, 32, 3, 3), torch.bfloat16),
        (torch.zeros(32, 24, 4), torch.zeros(32, 32, 3, 3), torch.bfloat16),
        (torch.zeros(24, 32, 4, 4, device="meta"), torch.zeros(32, 32, 3, 3), torch.bfloat16),
    ],
    ids=str,
)
def test_what_tiles_do_not_know_is_torchs(x, weight, autocast, monkeypatch, one_thread):
    monkeypatch.setattr(convolution, "tiles", lambda: SimpleNamespace(usable=lambda: True))
    known = torch.zeros(24, 32, 4, 4), torch.zeros(32, 32, 3, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert on_tiles(*known)
        torch.set_num_threads(2)
        assert not on_tiles(*known)
        torch.set_num_threads(1)
    with torch.autocast("cpu", dtype=autocast or torch.bfloat16, enabled=autocast is not None):
        assert not on_tiles(x, weight)


def test_channels_that_do_not_fit_are_refused_as_torch_refuses_them(one_thread):
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(RuntimeError, match="expected input"):
        Convolution(64, 32)(halves(24, 32, 4, 4))


def test_without_numba_it_is_torchs(monkeypatch, one_thread):
    monkeypatch.setattr(convolution, "tiles", lambda: None)
    monkeypatch.setattr(filtering, "winograd", lambda: None)
    x = halves(24, 32, 4, 4)
    layer = Convolution(32, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not on_tiles(x, layer.weight)
        assert torch.equal(layer(x), F.conv2d(x, layer.weight.bfloat16(), padding=1))


def test_a_processor_without_the_unit_is_told_before_its_instructions_end_the_process(monkeypatch):
    monkeypatch.setattr(convolution, "tiles", lambda: SimpleNamespace(usable=lambda: False))
    with pytest.raises(RuntimeError, match="no matrix unit"):
        gradient_of_weights(halves(32, 32, 4, 4), halves(32, 32, 4, 4))
