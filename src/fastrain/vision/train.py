"""Training an image network by a recipe, and what it says of images."""

from __future__ import annotations

import os
import time
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
from fastrain.engine.averaging import MovingAverage
from fastrain.engine.batches import Batch, Batches, normalised
from fastrain.engine.fit import FitSettings, fit
from fastrain.engine.optimizers import SGD, Muon, Optimiser, Schedule, Steering
from fastrain.engine.precision import Precision, computing, number_of
from fastrain.engine.schedule import falling, triangle
from fastrain.nets.image_net import ImageNet, make_ready
from fastrain.vision.datasets import Dataset, Split
from fastrain.vision.judge import Views, logits_of
from fastrain.vision.recipes import Averages, MuonRates, Recipe, SgdRates

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
        running, took = _compiled(
            network,
            recipe,
            (recipe.batch, *values.shape[1:]),
            loss,
            precision,
            stages_of(recipe, steps, per_epoch),
        )
        compile_seconds += took
    clock = _Clock(device)
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
        raise TooShort(
            f"{data.name}: {len(data.train.labels)} images to train on, the recipe's batch is {recipe.batch}; take "
            "one of smaller batches (--recipe cpu has 500), or `fastrain vision train`, which goes by the number of "
            "images."
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


BACKEND = "inductor"  # of torch.compile


def stages_of(recipe: Recipe, steps: int, per_epoch: int) -> list[tuple[bool, bool]]:
    """Return whether stem's bias and first group learn, in each part of a run in turn.

    What is not differentiated is another program, so each has to be compiled before the clock starts.
    """
    stem_until, first_until = stem_settled_from(recipe, per_epoch), settled_from(recipe, steps)
    starts = sorted({0, stem_until, first_until})
    return [(step < stem_until, step < first_until) for step in starts if step < steps]


def _compiled(
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
    first = _first_group(network)
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


def steering_of(
    network: ImageNet, recipe: Recipe, steps: int, per_epoch: int, precision: Precision = "float32"
) -> Steering:
    """Return the optimisers of a recipe, with the rates that each of their groups follows."""
    stem = [network.stem.bias]
    stem_steps = stem_settled_from(recipe, per_epoch)
    rest = [p for name, p in network.named_parameters() if p.requires_grad and not name.startswith("stem.")]
    if isinstance(recipe.rates, MuonRates):
        parts = _muon(network, recipe.rates, recipe.batch, stem, stem_steps, rest, steps, precision)
    else:
        parts = _sgd(recipe.rates, recipe.batch, stem, stem_steps, rest, steps)
    if recipe.first_group_until >= 1:
        return Steering(parts)
    return Steering(parts, (_first_group(network), settled_from(recipe, steps)))


def stem_settled_from(recipe: Recipe, per_epoch: int) -> int:
    """Return the step from which the stem's bias is not trained any more."""
    return round(recipe.stem_bias_epochs * per_epoch)


def settled_from(recipe: Recipe, steps: int) -> int:
    """Return the step from which the first group is not trained any more."""
    return round(min(1.0, recipe.first_group_until) * steps)


def _first_group(network: ImageNet) -> list[nn.Parameter]:
    """Return the weights that are trained up to the first group's end, but for the stem's bias."""
    return [p for part in (network.project, network.groups[0]) for p in part.parameters() if p.requires_grad]


Parts = list[tuple[Optimiser, list[Schedule]]]


def _muon(
    network: ImageNet,
    rates: MuonRates,
    batch: int,
    stem: list[nn.Parameter],
    stem_steps: int,
    rest: list[nn.Parameter],
    steps: int,
    precision: Precision,
) -> Parts:
    head = [network.head.weight]
    filters = [p for p in rest if p.ndim == 4]
    biases = [p for p in rest if p.ndim == 1]
    decay = rates.decay * batch
    groups = [
        {"params": part, "lr": rate, "weight_decay": decay / rate}
        for part, rate in ((stem, rates.biases), (biases, rates.biases), (head, rates.head))
    ]
    sgd = SGD(groups, lr=rates.biases, momentum=rates.momentum, nesterov=True)
    fall: Schedule = partial(falling, steps=steps)
    schedules: list[Schedule] = [partial(falling, steps=stem_steps), fall, fall]
    muon = Muon(filters, lr=rates.filters, momentum=rates.filters_momentum, precision=precision)
    return [(sgd, schedules), (muon, [fall])]


def _sgd(
    rates: SgdRates, batch: int, stem: list[nn.Parameter], stem_steps: int, rest: list[nn.Parameter], steps: int
) -> Parts:
    decay = rates.decay * batch
    biases = [p for p in rest if p.ndim == 1]
    groups = [
        {"params": [p for p in rest if p.ndim > 1], "lr": rates.weights, "weight_decay": decay},
        *(
            {"params": part, "lr": rates.biases, "weight_decay": decay * rates.weights / rates.biases}
            for part in (biases, stem)
        ),
    ]
    sgd = SGD(groups, lr=rates.weights, momentum=rates.momentum, nesterov=True)
    rise = partial(triangle, steps=round(rates.until * steps), peak_at=rates.peak_at, end=rates.end)
    return [(sgd, [rise, rise, partial(falling, steps=stem_steps)])]


def average_of(network: nn.Module, averages: Averages | None, steps: int, per_epoch: int) -> MovingAverage | None:
    """Return the average of a recipe, None where it keeps none."""
    if averages is None:
        return None

    def decay(step: int) -> float:
        share = 1.0 if averages.power is None else ((step + 1) / steps) ** averages.power
        return averages.decay * share

    start = round(averages.start * per_epoch)
    return MovingAverage(network, decay, every=averages.every, start=start, copy_back=averages.copy_back)


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


class _Clock:
    """Seconds of training, on the wall and of the process's processors; a GPU's queue is waited for."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds = self.cpu_seconds = 0.0
        self.start()

    def start(self) -> None:
        """Go on."""
        self._wait()
        self._began, self._spent = time.perf_counter(), _cpu()

    def stop(self) -> None:
        """Stand still."""
        self._wait()
        self.seconds += time.perf_counter() - self._began
        self.cpu_seconds += _cpu() - self._spent
        self._began, self._spent = time.perf_counter(), _cpu()

    @property
    def seconds_now(self) -> float:
        """Seconds so far, while it runs."""
        self._wait()
        return self.seconds + time.perf_counter() - self._began

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _cpu() -> float:
    spent = os.times()
    return spent.user + spent.system
