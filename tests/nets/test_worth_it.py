"""Numba is loaded, and minimal filtering gone by, where that is worth it and the processor has what it takes."""

import subprocess
import sys

import pytest
import torch

from fastrain.nets import filtering, plain
from fastrain.nets.filtering import convolved
from fastrain.nets.plain import LARGE, forecasting, worth_it

pytestmark = pytest.mark.skipif(filtering.winograd() is None, reason="numba is not installed")


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
    large = LARGE[torch.float32]
    with forecasting(large):
        with forecasting(1):  # within many, few are among many
            convolved(x, weight, training=False)
        assert len(asked) == 1
    assert not worth_it(False, torch.float32)
    with forecasting(large - 1):
        convolved(x, weight, training=False)
    convolved(x, weight, training=True)
    assert len(asked) == 2


@pytest.mark.parametrize("can", [False, True])
def test_forecasts_in_bfloat16_go_by_it_where_convolutions_gain(monkeypatch, can):
    """On a matrix unit torch's convolutions stay, and what is left would not win back loading numba."""
    monkeypatch.setattr(plain, "multiplies_pairs", lambda: can)
    few, many = LARGE[torch.float32], LARGE[torch.bfloat16]
    with forecasting(few):
        assert not worth_it(False, torch.bfloat16)
    with forecasting(many):
        assert worth_it(False, torch.bfloat16) == can
    assert worth_it(True, torch.bfloat16)


def test_which_processors_multiply_pairs(monkeypatch):
    said = [getattr(torch.cpu, f"_is_{name}_supported", lambda: False)() for name in ("avx512_bf16", "amx_tile")]
    assert plain.multiplies_pairs() == (said == [True, False])
    monkeypatch.setenv("NUMBA_CPU_NAME", "generic")
    assert not plain.multiplies_pairs.__wrapped__()
