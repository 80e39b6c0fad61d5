"""Layers against their references and invariants."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from fastrain.nets.blocks import add_convolved
from fastrain.nets.rain_net import RainNet
from fastrain.nets.squeeze_excite import SqueezeExcite
from fastrain.nets.whitening import Whitening, moments, whitening_filters


def coloured(channels=3, size=64, seed=0):
    """Correlated noise, as pictures are."""
    torch.manual_seed(seed)
    noise = F.avg_pool2d(torch.randn(8, channels, size + 4, size + 4), 5, stride=1)
    return noise + 0.3 * noise.roll(1, dims=1)


def test_whitened_patches_have_unit_covariance():
    sample = coloured()
    filters = whitening_filters(moments(sample, 2)[1], 2, 12, floor=0.0)
    assert filters.shape == (12, 3, 2, 2)
    out = F.conv2d(sample, filters).transpose(0, 1).flatten(1)
    torch.testing.assert_close(torch.cov(out), torch.eye(12), atol=2e-3, rtol=0)


def test_whitening_takes_a_row_and_a_column_and_gives_both_signs():
    layer = Whitening(3, filters=8)
    layer.fit(coloured())
    out = layer(coloured(seed=1))
    assert out.shape == (8, 16, 63, 63)
    bias = layer.bias[:8].view(1, -1, 1, 1)
    torch.testing.assert_close(out[:, :8] - bias, -(out[:, 8:] + bias), atol=1e-5, rtol=1e-4)
    assert not layer.weight.requires_grad
    assert layer.bias.requires_grad


def test_whitening_outputs_are_centred_by_the_fitted_bias():
    sample = coloured() + 5.0
    layer = Whitening(3, filters=8)
    layer.fit(sample)
    assert layer(sample).mean(dim=(0, 2, 3)).abs().max() < 1e-3


def test_squeeze_and_excite_is_a_gate_of_each_channel_by_the_whole_map():
    layer = SqueezeExcite(6, compression=16)
    x = torch.randn(2, 6, 5, 7)
    out = layer(x)
    gate = out / x
    torch.testing.assert_close(gate, gate.mean((-2, -1), keepdim=True).expand_as(gate), atol=1e-4, rtol=1e-3)
    assert ((gate > 0) & (gate < 1)).all()
    context = x.mean((2, 3))
    w1, b1 = layer.squeeze.weight.flatten(1), layer.squeeze.bias
    w2, b2 = layer.excite.weight.flatten(1), layer.excite.bias
    by_hand = torch.sigmoid(F.relu(context @ w1.T + b1) @ w2.T + b2)
    torch.testing.assert_close(out, x * by_hand[:, :, None, None])


def net(width=8):
    torch.manual_seed(0)
    return RainNet(7, guesses=2, thresholds=3, conditions=4, width=width)


def test_the_rain_net_says_something_for_every_cell_of_any_size_of_map():
    model = net().eval()
    model.stem.fit(torch.randn(4, 7, 20, 20))
    for size in ((16, 16), (17, 23), (33, 12), (9, 9)):
        x, guess = torch.randn(2, 7, *size), torch.randn(2, 3, 2, *size)
        assert model(x, guess, torch.zeros(2, 4)).shape == (2, 3, *size)


def test_an_untrained_rain_net_says_the_mean_of_the_first_guesses():
    model = net().eval()
    guess = torch.randn(2, 3, 2, 16, 16)
    out = model(torch.randn(2, 7, 16, 16), guess, torch.randn(2, 4))
    torch.testing.assert_close(out, guess.mean(dim=2), atol=1e-5, rtol=1e-5)


def test_shrinking_keeps_a_share_of_what_was_learned():
    model = net().eval()
    model.stem.fit(torch.randn(4, 7, 20, 20))
    torch.nn.init.normal_(model.head.weight)
    x, guess, known = torch.randn(1, 7, 16, 16), torch.randn(1, 3, 2, 16, 16), torch.randn(1, 4)
    with torch.no_grad():
        straight, learned = model.parts(x, guess, known)
    model.shrink(0.25)
    torch.testing.assert_close(model(x, guess, known), straight + 0.25 * learned, atol=1e-5, rtol=1e-4)
    assert float(learned.abs().max()) > 0


@pytest.mark.parametrize("compression", [16, None])
@pytest.mark.parametrize("size", [(21, 18), (20, 19), (22, 24), (23, 27), (9, 8), (2, 3)])
@pytest.mark.parametrize("learning", [False, True])
def test_one_map_alone_is_forecast_as_it_is_among_others(compression, size, learning):
    """One map takes the way of folded norms and coarse filters, several the way of training."""
    torch.manual_seed(0)
    network = RainNet(5, guesses=2, thresholds=3, conditions=4, width=8, compression=compression)
    for module in network.modules():
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            if tensor.is_floating_point():
                tensor.data.normal_().mul_(0.3)
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_var.abs_().add_(0.5)
    network.eval()
    x, guess, known = torch.randn(3, 5, *size), torch.randn(3, 3, 2, *size), torch.randn(3, 4)
    with torch.set_grad_enabled(learning):
        among = network(x, guess, known)
        each = [network(x[i : i + 1], guess[i : i + 1], known[i : i + 1]) for i in range(3)]
    assert among.std() > 0.1
    for i, alone in enumerate(each):
        torch.testing.assert_close(alone, among[i : i + 1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [(8, 10), (7, 10), (8, 9), (7, 9), (1, 1), (2, 1)])
def test_a_filter_over_an_enlarged_map_is_four_over_the_coarse_one(size):
    torch.manual_seed(1)
    coarse, weight, into = (
        torch.randn(1, 4, -(-size[0] // 2), -(-size[1] // 2)),
        torch.randn(3, 4, 3, 3),
        torch.ones(1, 3, *size),
    )
    expected = 1 + F.conv2d(F.interpolate(coarse, size=size, mode="nearest"), weight, padding=1)
    add_convolved(into, coarse, weight)
    torch.testing.assert_close(into, expected, atol=1e-5, rtol=1e-5)
