"""Training an image network by a recipe, and what it says of images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import ceil
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastrain.core.errors import RunError, SettingError, TooBig, TooShort
from fastrain.core.shapes import Float, Int
from fastrain.engine.ahead import Ahead
from fastrain.engine.batches import Batch, Batches, normalised
from fastrain.engine.fit import FitSettings, fit
from fastrain.engine.precision import Precision, number_of
from fastrain.nets.image_net import ImageNet, make_ready
from fastrain.vision.clock import Clock
from fastrain.vision.compiled import compiled, stages_of
from fastrain.vision.datasets import Dataset
from fastrain.vision.judge import Views, logits_of
from fastrain.vision.recipes import RECIPES, Recipe
from fastrain.vision.splits import Split
from fastrain.vision.steering import average_of, steering_of

FOR_WHITENING = 5000  # images whose patches the stem is whitened by, as the peers do; fewer of larger ones


@dataclass(frozen=True)
class Epoch:
    """How a run stands at an epoch's end.

    Attributes:
        epoch: done, from 1; a fraction at the end of a run that ends within one.
        loss: smoothed, per sample.
        accuracy: on what is not trained on, without the views; None where it was not looked at.
        seconds: of training so far.
        cpu_seconds: of the process since training began.
    """

    epoch: float
    loss: float
    accuracy: float | None
    seconds: float
    cpu_seconds: float


@dataclass(frozen=True)
class Trained:
    """A trained network and its figures.

    Attributes:
        network: in evaluation mode.
        mean: of each channel, of values 0 to 1.
        spread: of each channel.
        accuracy: on the test images, one view each.
        accuracy_views: with the recipe's views.
        seconds: of training and of judging with the views: the peers' rule, data on the device.
        cpu_seconds: of the same.
        views_seconds: of judging with the views alone.
        compile_seconds: of compiling, before the clock started: of our loops, and by torch, with a first step at each
            size.
        epochs: how it went.
    """

    network: ImageNet
    mean: Float[Tensor, channel]
    spread: Float[Tensor, channel]
    accuracy: float
    accuracy_views: float
    seconds: float
    cpu_seconds: float
    views_seconds: float
    compile_seconds: float
    epochs: tuple[Epoch, ...]


def train(
    data: Dataset,
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device,
    precision: Precision | None = None,
    look: bool = False,
    state: Path | None = None,
    progress: Callable[[Epoch], None] = lambda _: None,
) -> Trained:
    """Return a network trained by a recipe.

    Args:
        data: what to train and to test on.
        recipe: see there.
        seed: of everything that is drawn.
        device: that trains.
        precision: that the network computes in; as the recipe has it if None.
        look: judge the test images after every epoch too; its time is not counted.
        state: file of the checkpoint; a killed run of the same data and recipe goes on from it.
        progress: called at every epoch's end.

    Raises:
        TooShort: fewer images than a batch.
        RunError: the loss is no number any more.
        TooBig: it does not fit into memory.
    """
    with told_plainly(data.name):
        return _train(data, recipe, seed, device, precision or recipe.precision_on(device), look, state, progress)


def _train(
    data: Dataset,
    recipe: Recipe,
    seed: int,
    device: torch.device,
    precision: Precision,
    look: bool,
    state: Path | None,
    progress: Callable[[Epoch], None],
) -> Trained:
    torch.manual_seed(seed)
    require_a_batch(data, recipe)
    values, labels = _on(data.train, device)
    test = _on(data.test, device)
    per_epoch = len(labels) // recipe.batch
    steps = ceil(recipe.epochs * per_epoch)
    network = ImageNet(data.train.images.shape[-1], len(data.classes), recipe.net).to(device)
    smallest = min(round(share_of_edge(recipe.edges, steps, 0) * edge) for edge in values.shape[1:3])
    if not network.edge_left(smallest):
        raise SettingError(
            f"{data.name}: images of {smallest} pixels (the recipe's smallest) are too small for its network."
        )
    loss = partial(loss_of, smoothing=recipe.smoothing, scale=recipe.loss_scale)
    running: nn.Module = network
    compile_seconds = make_ready(number_of(precision)) if device.type == "cpu" else 0.0
    if recipe.compile:
        running, took = compiled(
            network,
            recipe,
            (recipe.batch, *values.shape[1:]),
            loss,
            precision,
            stages_of(recipe, steps, per_epoch),
        )
        compile_seconds += took
    clock = Clock(device)
    batches = batches_of(recipe, values, labels, steps, seed)
    whiten(network, recipe, values, batches)
    average = average_of(network, recipe.averages, steps, per_epoch)
    epochs: list[Epoch] = []

    def at(done: int, total: int, loss: float) -> None:
        clock.stop()
        judged = network if average is None or not average.started else cast(ImageNet, average.model)
        accuracy = None
        if look:
            accuracy = _accuracy(judged, test, batches, "one")
            network.train()
        mean = loss / (recipe.batch * recipe.loss_scale)
        epochs.append(Epoch(done / per_epoch, mean, accuracy, clock.seconds, clock.cpu_seconds))
        progress(epochs[-1])
        clock.start()

    with Ahead(batches.batch, steps, batches.alone, device) as draw:
        fitted = fit(
            network,
            draw,
            lambda _, batch: loss(running, batch, saw=batches.saw if recipe.skipping else None),
            steering_of(network, recipe, steps, per_epoch, precision),
            FitSettings(steps, precision=precision, look_every=per_epoch),
            average=average,
            drawn=batches,
            state=state,
            progress=at,
        )
    before = clock.seconds_now
    accuracy_views = _accuracy(fitted, test, batches, recipe.views)
    clock.stop()
    views_seconds = clock.seconds - before
    accuracy = _accuracy(fitted, test, batches, "one")
    return Trained(
        network=cast(ImageNet, fitted),
        mean=batches.mean,
        spread=batches.spread,
        accuracy=accuracy,
        accuracy_views=accuracy_views,
        seconds=clock.seconds,
        cpu_seconds=clock.cpu_seconds,
        views_seconds=views_seconds,
        compile_seconds=compile_seconds,
        epochs=tuple(epochs),
    )


def require_a_batch(data: Dataset, recipe: Recipe) -> None:
    """See that there are as many images to train on as a step takes.

    Raises:
        TooShort: there are fewer.
    """
    if len(data.train.labels) < recipe.batch:
        images = len(data.train.labels)
        fitting = [name for name, other in RECIPES.items() if other.batch <= images]
        instead = f"take --recipe {' or '.join(fitting)}, or " if fitting else ""
        raise TooShort(
            f"{data.name}: {images} images to train on, the recipe's batch is {recipe.batch}; {instead}"
            "`fastrain vision train`, which goes by the number of images."
        )


def whiten(network: ImageNet, recipe: Recipe, values: Tensor, batches: Batches) -> None:
    """Fit a network's stem to images, (image, y, x, channel) bytes.

    Args:
        network: see there.
        recipe: see there.
        values: images, of which some are looked at.
        batches: that tell how images are normalised.
    """
    count = for_whitening(tuple(values.shape))
    # Evenly spread: the images of a folder come class by class.
    chosen = torch.linspace(0, len(values) - 1, count, device=values.device).long()
    sample = normalised(values[chosen].to(batches.mean.device), batches.mean, batches.spread)
    network.stem.fit(sample, recipe.net.whitening_floor)


def for_whitening(shape: tuple[int, ...]) -> int:
    """Return how many images of some, (image, y, x, channel), the stem is whitened by."""
    images, height, width, _ = shape
    return min(max(100, FOR_WHITENING * 32 * 32 // (height * width)), FOR_WHITENING, images)


@contextmanager
def told_plainly(name: str) -> Iterator[None]:
    """Say what befell a training in words of ours: it went astray, or memory is out.

    Raises:
        RunError: the loss is no number any more.
        TooBig: it does not fit into memory.
    """
    try:
        yield
    except FloatingPointError as error:
        raise RunError(f"{name}: training went astray, {error}; try another --recipe.") from None
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        raise TooBig(
            f"{name}: training takes more memory than there is; try --device cpu, or smaller images."
        ) from None


def _accuracy(network: nn.Module, split: tuple[Tensor, Tensor], batches: Batches, views: Views) -> float:
    """Return the share of images whose class is found."""
    images, labels = split
    found = logits_of(network, images, batches.mean, batches.spread, views).argmax(dim=1)
    return float((found == labels).double().mean())


def loss_of(
    network: nn.Module,
    batch: Batch,
    *,
    smoothing: float,
    scale: float = 1.0,
    saw: Callable[[Batch, Tensor], None] | None = None,
) -> Tensor:
    """Return the loss summed over the batch, as the peers' rates expect it, times a scale.

    Args:
        network: see there.
        batch: see there.
        smoothing: of the labels.
        scale: see there.
        saw: told of the loss of each sample, by its own label as it is.
    """
    out = network(batch.values).float()
    if saw is not None:
        saw(batch, F.cross_entropy(out.detach(), batch.labels, reduction="none"))
    cross = partial(F.cross_entropy, out, label_smoothing=smoothing, reduction="sum")
    loss = cross(batch.labels)
    if batch.others is not None:
        loss = (1 - batch.mixed) * loss + batch.mixed * cross(batch.others)
    return loss * scale


def batches_of(recipe: Recipe, values: Tensor, labels: Tensor, steps: int, seed: int) -> Batches:
    """Return the batches of a run by a recipe, of bytes on the device; smaller ones where there are few images."""
    return Batches(
        values,
        labels,
        size=min(recipe.batch, len(values)),
        steps=steps,
        seed=seed,
        augmentation=recipe.augmentation,
        share=partial(share_of_edge, recipe.edges, steps) if recipe.edges else None,
        skipping=recipe.skipping,
    )


def share_of_edge(edges: tuple[tuple[float, float], ...], steps: int, step: int) -> float:
    """Return the images' edge at a step, as a share of their own."""
    return max((pair for pair in edges if pair[0] <= step / steps), default=(0.0, 1.0))[1]


def _on(split: Split, device: torch.device) -> tuple[Tensor, Int[Tensor, image]]:
    return torch.from_numpy(split.images).to(device), torch.from_numpy(split.labels).to(device)
