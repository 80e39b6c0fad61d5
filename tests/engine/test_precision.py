"""In which numbers a network computes."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import pytest
import torch
from torch import nn

from fastrain.engine.fit import FitSettings, fit
from fastrain.engine.group import ALONE
from fastrain.engine.optimizers import _QUINTIC, adamw, orthogonalised
from fastrain.engine.precision import computing, fast_precision
from fastrain.rain.fitting import Bench


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_a_network_computes_in_what_it_is_told(precision, dtype):
    with computing("cpu", precision):
        assert nn.Linear(3, 2)(torch.zeros(1, 3)).dtype == dtype


def test_a_fit_computes_in_what_its_settings_say_and_its_weights_stay_float32():
    seen = []

    def loss(network, x):
        out = network(x)
        seen.append(out.dtype)
        return out.float().square().mean()

    for precision in ("float32", "bfloat16"):
        network = nn.Linear(3, 2)
        fitted = fit(network, lambda _: torch.ones(4, 3), loss, adamw(network, 1), FitSettings(1, precision=precision))
        assert {weight.dtype for weight in fitted.parameters()} == {torch.float32}
    assert seen == [torch.float32, torch.bfloat16]


@pytest.mark.skipif(platform.machine() != "x86_64" or not Path("/proc/cpuinfo").exists(), reason="x86 Linux tells")
def test_a_processor_without_units_for_bfloat16_computes_in_float32():
    flags = set(Path("/proc/cpuinfo").read_text().split("flags")[1].split("\n")[0].split())
    assert (fast_precision("cpu") == "bfloat16") == bool(flags & {"avx512_bf16", "amx_bf16"})


@pytest.mark.parametrize("kept", ["float32", "bfloat16"])
def test_a_run_goes_on_in_what_it_was_created_with_whatever_this_machine_is_fast_at(tmp_path, kept):
    bench = Bench(tmp_path, torch.device("cpu"), ALONE, print, lambda *_: None)
    assert bench.precision() == fast_precision("cpu")
    (tmp_path / "plan.json").write_text(json.dumps({"precision": kept}))
    assert bench.precision() == kept


def test_a_matrix_is_turned_in_the_precision_that_is_asked_for():
    torch.manual_seed(0)
    matrix = torch.randn(8, 20)
    a, b, c = _QUINTIC
    exact = matrix.double() / matrix.double().norm()
    for _ in range(3):
        square = exact @ exact.T
        exact = a * exact + (b * square + c * square @ square) @ exact
    fine, coarse = (orthogonalised(matrix, precision=name) for name in ("float32", "bfloat16"))
    assert (fine - exact).abs().max() < 1e-5 < 1e-3 < (coarse - exact).abs().max()
