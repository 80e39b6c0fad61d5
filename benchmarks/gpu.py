"""The speedrun on a GPU, in one call of a few minutes: is it right, how fast is it, and how fast could it be?

    python benchmarks/gpu.py DATA [--seeds 10] [--device cuda] [--epochs-share 1.0] [--peer SCRIPT] [--to RECORD]

First the gradients of a step on the device, compiled ones too, are held against those of a CPU in float32: nothing is
timed that is not right. Then the recipes `airbench94` and `gpu`, the latter also compiled, are run in turns, seed by
seed, after a run that is not counted, so that what befalls the card befalls all. Beside them the floor: the work of a
run over the card's measured rate of matrix products, and the bytes that must pass its memory over its measured
bandwidth. A peer's own script may be named; it is run in the same call and its last lines are kept. It is not part of
this repository.

A rented card is paid by the minute: everything is written after each round, and `--epochs-share 0.1 --device cpu` on a
few thousand images tries the whole script where there is no card. It needs the image half alone (torch, numpy, pyarrow,
pillow, typer, rich) and runs from a copy of the repository: `PYTHONPATH=src python benchmarks/gpu.py DATA`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from machine import machine
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fastrain.core.errors import FastrainError, first_line
from fastrain.engine.batches import moments, normalised
from fastrain.engine.precision import Precision, computing, fast_precision, number_of
from fastrain.engine.scaling import Scaling
from fastrain.nets.image_net import ImageNet
from fastrain.vision.compiled import BACKEND
from fastrain.vision.datasets import Dataset, open_dataset
from fastrain.vision.recipes import Recipe, recipe_of
from fastrain.vision.speedrun import Outcome, device_name, device_of, record_of, speedrun

GRADIENTS_OF = 500  # images
# Departure of a gradient, as a share of its length: a CPU rounds by 0.09 in float16 and by 0.24 in bfloat16.
LARGEST = {"float32": 0.01, "float16": 0.15, "bfloat16": 0.35}
PASSES = 3  # over a layer's maps in a step: there, back to the maps, back to the weights
HALF = 2  # bytes of a bfloat16
GIB = 2**30
PEER_SECONDS = 240


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--epochs-share", type=float, default=1.0, help="of each recipe's epochs: to try the script")
    parser.add_argument("--peer", type=Path, help="another's script, run in the same call")
    parser.add_argument("--to", type=Path)
    asked = parser.parse_args()
    device = device_of(asked.device)
    data = open_dataset(asked.data)
    record: dict[str, Any] = {**machine(), "device": device_name(device), "precision": fast_precision(device.type)}

    def keep(**found: Any) -> None:
        record.update(found)
        print(json.dumps(found, indent=1), flush=True)
        if asked.to:
            asked.to.write_text(json.dumps(record, indent=1) + "\n")

    keep(gradients=gradients_off(data, recipe_of("gpu"), device))
    recipes = {"airbench94": recipe_of("airbench94"), "gpu": recipe_of("gpu")}
    if recipes["gpu"] == recipes["airbench94"]:
        del recipes["airbench94"]
    recipes["gpu, compiled"] = replace(recipes["gpu"], compile=True)
    recipes = {said: replace(recipe, epochs=recipe.epochs * asked.epochs_share) for said, recipe in recipes.items()}
    keep(floor={said: floor(data, recipe, device) for said, recipe in recipes.items()})
    outcomes: dict[str, tuple[Outcome, ...]] = dict.fromkeys(recipes, ())
    failed: dict[str, str] = {}
    # What starts the device and tries its algorithms is nobody's time.
    short = replace(recipes["gpu"], epochs=min(1.0, recipes["gpu"].epochs))
    speedrun(data, short, seeds=1, device=device)
    for seed in range(asked.seeds):
        for said, recipe in recipes.items():
            try:
                outcomes[said] += speedrun(data, recipe, seeds=1, first=seed, device=device)
            except (FastrainError, RuntimeError) as error:  # the others go on: the card is paid for
                failed.setdefault(said, f"seed {seed}: {type(error).__name__}: {first_line(error)}")
        ended = {said: found for said, found in outcomes.items() if found}
        runs = {said: record_of(data, said, recipes[said], found, device) for said, found in ended.items()}
        keep(runs=runs, failed=failed)
    if asked.peer:
        began = time.perf_counter()
        try:
            done = subprocess.run(
                [sys.executable, asked.peer], capture_output=True, text=True, check=False, timeout=PEER_SECONDS
            )
            lines, status = (done.stdout + done.stderr).splitlines()[-20:], done.returncode
        except subprocess.TimeoutExpired:
            lines, status = [], None
        seconds = round(time.perf_counter() - began, 2)
        keep(peer={"script": asked.peer.name, "seconds": seconds, "status": status, "said": lines})


def gradients_off(data: Dataset, recipe: Recipe, device: torch.device) -> dict[str, float]:
    """Return how far the gradient of a step is from that of a CPU in float32, as a share of its length.

    Ends the program where it is more than can be.
    """
    torch.manual_seed(0)
    values = torch.from_numpy(data.train.images[:GRADIENTS_OF])
    labels = torch.from_numpy(data.train.labels[:GRADIENTS_OF])
    x = normalised(values, *moments(values))
    network = ImageNet(x.shape[1], len(data.classes), recipe.net)
    network.stem.fit(x, recipe.net.whitening_floor)
    kept = {key: value.clone() for key, value in network.state_dict().items()}

    def found(where: torch.device, precision: Precision, compiled: bool = False) -> dict[str, Tensor]:
        network.load_state_dict(kept)
        network.to(where).zero_grad()
        running = torch.compile(network, backend=BACKEND, dynamic=False) if compiled else network
        with computing(where, precision):
            out = running(x.to(where).contiguous(memory_format=torch.channels_last)).float()
        scaling = Scaling(precision)
        scaling.scaled(F.cross_entropy(out, labels.to(where))).backward()
        scaling.sound(network)
        return {key: p.grad.float().cpu() for key, p in network.named_parameters() if p.grad is not None}

    # Else what a GPU calls float32 are products of ten binary digits.
    usual = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    right = found(torch.device("cpu"), "float32")
    fast = fast_precision(device.type)
    off: dict[str, float] = {}
    ways: list[tuple[str, Precision, bool]] = [
        ("float32", "float32", False),
        *((kind, kind, False) for kind in dict.fromkeys((fast, "float16"))),
        ("compiled", fast, True),
    ]
    for said, precision, compiled in ways:
        here = found(device, precision, compiled)
        # Of all weights together: some alone have next to none, which rounding drowns.
        both = ([here[k] - right[k] for k in right], list(right.values()))
        wrong, length = (torch.cat([v.flatten() for v in of]).norm() for of in both)
        off[said] = round(float(wrong / length), 4)
        if not off[said] <= LARGEST[precision]:  # no number is no less wrong
            sys.exit(f"{device}, {said}: gradients are off by {off[said]:.1%} of their length; nothing timed.")
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = usual
    return off


def floor(data: Dataset, recipe: Recipe, device: torch.device) -> dict[str, float]:
    """Return the work and the bytes of a run, the card's rates, and the seconds that neither can be beaten in."""
    height, width, channels = data.train.images.shape[1:]
    network = ImageNet(channels, len(data.classes), recipe.net)
    x = torch.randn(8, channels, height, width)
    maps = 0

    def count(_: nn.Module, given: tuple[Tensor, ...], gone: Tensor) -> None:
        nonlocal maps
        maps += given[0].numel() + gone.numel()

    hooks = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
    with FlopCounterMode(display=False) as counted:
        network(x).sum().backward()
    for hook in hooks:
        hook.remove()
    images = ceil(recipe.epochs * (len(data.train.labels) // recipe.batch)) * recipe.batch
    work = counted.get_total_flops() / len(x) * images
    moved = PASSES * HALF * maps / len(x) * images
    rate, bandwidth = matrix_rate(device), memory_rate(device)
    return {
        "petaflop": round(work / 1e15, 4),
        "gigabytes": round(moved / 1e9, 1),
        "teraflops_a_second": round(rate / 1e12, 2),
        "gigabytes_a_second": round(bandwidth / 1e9, 1),
        "seconds": round(max(work / rate, moved / bandwidth), 3),
    }


def matrix_rate(device: torch.device) -> float:
    """Return the floating-point operations a second of large matrix products, in the device's own numbers."""
    edge = 8192 if device.type == "cuda" else 1024
    kind = number_of(fast_precision(device.type))
    a, b = (torch.randn(edge, edge, device=device, dtype=kind) for _ in range(2))
    return 2 * edge**3 / least_seconds(device, lambda: a @ b)


def memory_rate(device: torch.device) -> float:
    """Return the bytes a second that a copy reads and writes."""
    size = 2 * GIB if device.type == "cuda" else GIB // 8
    a = torch.zeros(size, dtype=torch.uint8, device=device)
    b = torch.empty_like(a)
    return 2 * size / least_seconds(device, lambda: b.copy_(a))


def least_seconds(device: torch.device, act: Any, rounds: int = 12) -> float:
    """Return the least seconds that something takes."""

    def settled() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    taken = []
    for _ in range(rounds):
        began = settled()
        act()
        taken.append(settled() - began)
    return min(taken)


if __name__ == "__main__":
    main()
