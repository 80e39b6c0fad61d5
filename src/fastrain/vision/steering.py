"""What trains an image network by a recipe: optimisers, the rates of their groups, the average of the weights."""

from __future__ import annotations

from functools import partial

from torch import nn

from fastrain.engine.averaging import MovingAverage
from fastrain.engine.optimizers import SGD, Muon, Optimiser, Schedule, Steering
from fastrain.engine.precision import Precision
from fastrain.engine.schedule import falling, triangle
from fastrain.nets.image_net import ImageNet
from fastrain.vision.recipes import Averages, MuonRates, Recipe, SgdRates


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
    return Steering(parts, (first_group(network), settled_from(recipe, steps)))


def stem_settled_from(recipe: Recipe, per_epoch: int) -> int:
    """Return the step from which the stem's bias is not trained any more."""
    return round(recipe.stem_bias_epochs * per_epoch)


def settled_from(recipe: Recipe, steps: int) -> int:
    """Return the step from which the first group is not trained any more."""
    return round(min(1.0, recipe.first_group_until) * steps)


def first_group(network: ImageNet) -> list[nn.Parameter]:
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
