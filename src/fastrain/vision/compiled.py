"""An image network compiled by torch for all that a run shows it, before the clock starts."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from fastrain.engine.batches import Batch
from fastrain.engine.precision import Precision, computing
from fastrain.nets.image_net import ImageNet
from fastrain.vision.recipes import Recipe
from fastrain.vision.steering import first_group, settled_from, stem_settled_from

BACKEND = "inductor"  # of torch.compile


def stages_of(recipe: Recipe, steps: int, per_epoch: int) -> list[tuple[bool, bool]]:
    """Return whether stem's bias and first group learn, in each part of a run in turn.

    What is not differentiated is another program, so each has to be compiled before the clock starts.
    """
    stem_until, first_until = stem_settled_from(recipe, per_epoch), settled_from(recipe, steps)
    starts = sorted({0, stem_until, first_until})
    return [(step < stem_until, step < first_until) for step in starts if step < steps]


def compiled(
    network: ImageNet,
    recipe: Recipe,
    shape: tuple[int, ...],
    loss: Callable[[nn.Module, Batch], Tensor],
    precision: Precision,
    stages: list[tuple[bool, bool]],
) -> tuple[nn.Module, float]:
    """Return a network compiled for every size of batch of a run, its weights untouched, and the seconds it took.

    Args:
        network: see there.
        recipe: see there.
        shape: of a batch of images: (image, y, x, channel).
        loss: of a network on a batch.
        precision: that it computes in.
        stages: see `stages_of`.
    """
    began = time.perf_counter()
    running = cast(nn.Module, torch.compile(network, backend=BACKEND, dynamic=False))
    kept = {name: value.clone() for name, value in network.state_dict().items()}
    device = network.head.weight.device
    size, height, width, channels = shape
    bias = network.stem.bias
    network.train()
    first = first_group(network)
    for stem_learns, first_learns in stages:
        bias.requires_grad_(stem_learns)
        for weight in first:
            weight.requires_grad_(first_learns)
        for _, edge in recipe.edges or ((0.0, 1.0),):
            values = torch.randn((size, channels, round(edge * height), round(edge * width)), device=device)
            zeros = torch.zeros(size, dtype=torch.long, device=device)
            batch = Batch(values.contiguous(memory_format=torch.channels_last), labels=zeros, chosen=zeros)
            with computing(device, precision):
                value = loss(running, batch)
            value.backward()  # type: ignore[no-untyped-call]
    for weight in (bias, *first):
        weight.requires_grad_(True)
    network.zero_grad(set_to_none=True)
    network.load_state_dict(kept)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return running, time.perf_counter() - began
