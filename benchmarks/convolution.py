"""3×3 convolutions, there and back: torch's beside those by minimal filtering, taken in turns.

    python benchmarks/convolution.py [--precision float32] [--rounds 9] [--to records/convolution.json]

CPU microseconds an image, one thread, medians and the least, of the layers of the image network (500 images) and of the
rain network (four maps of FMI's size): forward, the gradient of the maps, the gradient of the weights. Beside them what
the multiplications that are left would take at the rate of a product of matrices of torch's, measured in the same run;
and CPU seconds of a whole training step of the rain network on four maps of 160×160 cells, and of its forecast of one
lead of FMI's map, GELU in one pass or as torch does it, too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from math import ceil
from pathlib import Path

import torch
import torch.nn.functional as F
from machine import machine
from ways import WAYS, Way, going

from fastrain.core.memory import keep_all_memory
from fastrain.engine.precision import Precision, computing, fast_precision, number_of
from fastrain.nets import filtering
from fastrain.nets.plain import LARGE, forecasting
from fastrain.nets.rain_net import RainNet
from fastrain.rain.inputs import CONDITIONS, channels_of
from fastrain.rain.smoothing import GUESSES

LAYERS = {  # images, channels in, channels out, y, x
    "image 16 → 64, 31×31": (500, 16, 64, 31, 31),
    "image 64 → 64, 15×15": (500, 64, 64, 15, 15),
    "image 64 → 256, 15×15": (500, 64, 256, 15, 15),
    "image 256 → 256, 7×7": (500, 256, 256, 7, 7),
    "image 256 → 256, 3×3": (500, 256, 256, 3, 3),
    "rain 24 → 24, 306×189": (4, 24, 24, 306, 189),
    "rain 48 → 48, 153×95": (4, 48, 48, 153, 95),
}
PASSES = ("forward", "maps", "weights")


def main() -> None:
    """Print the figures and keep them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default=fast_precision("cpu"))
    parser.add_argument("--to", type=Path)
    given = parser.parse_args()
    keep_all_memory()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    kind = number_of(given.precision)
    left = torch.randn(1024, 1024).to(kind)
    rate = 2 * 1024**3 / min(_seconds(lambda: left @ left) for _ in range(given.rounds))
    rows = {}
    for name, shape in LAYERS.items():
        rows[name] = _row(shape, kind, given.rounds, rate)
        print(name, json.dumps(rows[name]))
    network = RainNet(channels_of(3), guesses=GUESSES, thresholds=3, conditions=CONDITIONS, width=24)
    whole = {
        "a training step": _whole(network.train(), given.precision, (4, 160, 160), given.rounds),
        "a forecast's lead": _whole(network.eval(), given.precision, (1, 307, 190), given.rounds),
    }
    print(json.dumps(whole))
    record = {
        **machine(),
        "precision": given.precision,
        "rounds": given.rounds,
        "gflops": round(rate / 1e9, 1),
        "layers": rows,
        "rain network": whole,
    }
    if given.to:
        given.to.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _row(shape: tuple[int, int, int, int, int], kind: torch.dtype, rounds: int, rate: float) -> dict[str, object]:
    """Return microseconds an image of a layer's passes, either way."""
    images, channels, out, height, width = shape
    x, weight, gradient = (
        torch.randn(sizes).to(kind).contiguous(memory_format=torch.channels_last)
        for sizes in ((images, channels, height, width), (out, channels, 3, 3), (images, out, height, width))
    )
    ways: dict[str, Callable[..., torch.Tensor]] = {"torch": partial(F.conv2d, padding=1), "ours": filtering.convolve}
    spent: dict[str, dict[str, list[float]]] = {way: {part: [] for part in PASSES} for way in ways}
    for _ in range(rounds + 1):
        for way, convolve in ways.items():
            spent[way]["forward"].append(_seconds(lambda: convolve(x, weight)))  # noqa: B023
            # One at a time: an autograd function of ours cannot tell which of two gradients is asked for.
            for part, given in (
                ("maps", (x.clone().requires_grad_(), weight)),
                ("weights", (x, weight.clone().requires_grad_())),
            ):
                made = convolve(*given)
                spent[way][part].append(_seconds(lambda: made.backward(gradient)))  # noqa: B023
    row: dict[str, object] = {}
    for said, of in (("median", statistics.median), ("least", min)):
        each = {way: [round(1e6 * of(parts[part][1:]) / images, 1) for part in PASSES] for way, parts in spent.items()}
        row[said] = {**each, "ratio": round(sum(each["ours"]) / sum(each["torch"]), 3)}
    # Each of the three passes multiplies as often.
    row["products_alone"] = round(1e6 * 2 * 36 * channels * out * ceil(height / 4) * ceil(width / 4) / rate, 1)
    return row


def _whole(network: RainNet, precision: Precision, shape: tuple[int, int, int], rounds: int) -> dict[str, object]:
    """Return CPU seconds of the rain network either way: of a training step where it is in training."""
    batch, height, width = shape
    x = torch.rand(batch, channels_of(3), height, width)
    guess = torch.randn(batch, 3, GUESSES, height, width)
    known = torch.rand(batch, CONDITIONS)

    def work() -> None:
        # As if it were one of many, for which loading numba is worth it.
        many = forecasting(max(LARGE.values()))
        with torch.set_grad_enabled(network.training), computing("cpu", precision), many:
            out = network(x, guess, known)
        if network.training:
            out.square().mean().backward()

    spent: dict[Way, list[float]] = {way: [] for way in WAYS}
    for _ in range(rounds + 1):
        for way, seconds in spent.items():
            with going(way):
                seconds.append(_seconds(work))
    row: dict[str, object] = {}
    for said, of in (("median", statistics.median), ("least", min)):
        each = {way: round(of(seconds[1:]), 4) for way, seconds in spent.items()}
        row[said] = {**each, "ratio": round(each["ours"] / each["torch"], 3)}
    return row


def _seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


if __name__ == "__main__":
    main()
