"""How an image network is trained, by name: the peers' recipes, and ours.

A recipe is data: every trick is a switch.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch

from fastrain.core.errors import SettingError
from fastrain.engine.batches import Augmentation, Skipping
from fastrain.engine.precision import Precision, fast_precision
from fastrain.nets.image_net import NetSettings
from fastrain.vision.judge import Views


@dataclass(frozen=True)
class MuonRates:
    """Muon for the filters, SGD with Nesterov's momentum for the rest; rates fall in a line to nothing.

    Attributes:
        filters: learning rate of the filters.
        filters_momentum: of theirs.
        biases: learning rate of the norms' biases and the stem's.
        head: learning rate of the head.
        momentum: of biases and head.
        decay: weight decay of biases and head, per sample of a batch, as a product with the rate.
    """

    filters: float = 0.24
    filters_momentum: float = 0.6
    biases: float = 0.053
    head: float = 0.67
    momentum: float = 0.85
    decay: float = 2e-6


@dataclass(frozen=True)
class SgdRates:
    """SGD with Nesterov's momentum: rates up in a line and down in a line; biases many times faster than weights.

    Attributes:
        weights: learning rate of everything but biases, for a loss that is summed over the batch.
        biases: of the biases.
        momentum: of both.
        decay: weight decay per sample of a batch; the biases' is less by as much as their rate is more, as with the
            peers.
        peak_at: share of the run at which the peak is reached.
        end: share of the peak that is left at the end.
        until: share of the run after which the rate stays.
    """

    weights: float
    biases: float
    momentum: float
    decay: float
    peak_at: float
    end: float
    until: float = 1.0


@dataclass(frozen=True)
class Averages:
    """The average of the weights.

    Attributes:
        decay: share that stays, each time.
        every: steps between two times.
        start: epoch of the first.
        power: the decay grows from nothing with this power of the run's share; None keeps it.
        copy_back: go on from the average (lookahead).
    """

    decay: float
    every: int
    start: float
    power: float | None = None
    copy_back: bool = True


@dataclass(frozen=True)
class Recipe:
    """One way to train.

    Attributes:
        net: see `NetSettings`.
        epochs: of the whole run: steps, counted in as many as all images make; where what is learned is passed over,
            the images pass by more often.
        batch: samples of a step.
        rates: see there.
        stem_bias_epochs: for which the stem's bias is trained, at a rate that falls to nothing.
        first_group_until: share of the run for which the first group of convolutions is trained: it settles first, and
            on the largest maps the way back costs most. Source: Brock et al. (2017), arXiv:1706.04983.
        smoothing: of the labels.
        loss_scale: of the loss that is summed over a batch.
        augmentation: see there.
        averages: of the weights; None keeps the last.
        edges: pairs of the run's share from which on, and the images' edge then as a share of their own.
        skipping: of images that are learned; None shows all in every pass.
        views: that are averaged in the end.
        precision: that the network computes in; what the device is fast at if None.
        compile: the network by torch.compile, before the clock starts; gains on a GPU, loses on a CPU (LOG.md).
    """

    net: NetSettings = field(default_factory=NetSettings)
    epochs: float = 8.0
    batch: int = 2000
    rates: MuonRates | SgdRates = field(default_factory=MuonRates)
    stem_bias_epochs: float = 3.0
    first_group_until: float = 1.0
    smoothing: float = 0.2
    loss_scale: float = 1.0
    augmentation: Augmentation = field(default_factory=Augmentation)
    averages: Averages | None = None
    edges: tuple[tuple[float, float], ...] = ()
    skipping: Skipping | None = None
    views: Views = "mirrored and moved"
    precision: Precision | None = None
    compile: bool = False

    def precision_on(self, device: torch.device) -> Precision:
        """Return what the network computes in on a device."""
        return self.precision or fast_precision(device.type)


# Source: cifar10-airbench, airbench94_muon.py (2024).
AIRBENCH94 = Recipe(net=NetSettings(whitening_floor=5e-5))

# Source: hlb-CIFAR10 0.3 (2023): 94 % in under 10 s on an A100.
HLB = Recipe(
    net=NetSettings(
        widths=(128, 256, 512),
        depths=(3, 1, 3),
        both_signs=False,
        project=32,
        norm_share=0.8,
        excite_ratio=16,
        around=True,
        dirac=None,
        head_scale=0.1,
        head_spread=None,
    ),
    epochs=10.0,
    batch=512,
    rates=SgdRates(
        weights=1.5525 / 512,
        biases=1.5525 * 32 / 512,
        momentum=0.85,
        decay=4.08e-4,
        peak_at=0.25,
        end=0.135,
        until=0.8,
    ),
    stem_bias_epochs=0.0,
    augmentation=Augmentation(flip="random", translate=3),
    averages=Averages(decay=0.986**2, every=2, start=8.0, copy_back=False),
    views="mirrored",
)

# Source: hlb-CIFAR10 0.7 (2023): 6.3 s on an A100.
HLB_07 = Recipe(
    net=NetSettings(widths=(64, 256, 512), dirac="add", head_scale=1 / 9, head_spread=None),
    epochs=12.1,
    batch=1024,
    rates=SgdRates(
        weights=1.525 / 512,
        biases=1.525 * 64 / 512,
        momentum=0.85,
        decay=6.687e-4,
        peak_at=0.23,
        end=0.07,
    ),
    stem_bias_epochs=0.0,
    loss_scale=512 / 1024,
    augmentation=Augmentation(flip="random", translate=2, cutmix=3, cutmix_from=7 / 12.1),
    averages=Averages(decay=0.95**5, every=5, start=2.0, power=3.0),
    views="mirrored",
)

# Ours for a CPU. A small batch costs the same per image there and learns more; Muon's rate goes down with its root.
# After one look at all images, which are small then, the harder half is looked at more often; what costs much and gives
# little is left out. See docs/how-it-got-fast.md.
CPU = replace(
    AIRBENCH94,
    net=replace(AIRBENCH94.net, directions=8),
    epochs=8.0,
    batch=500,
    rates=MuonRates(filters=0.12),
    stem_bias_epochs=2.5,
    first_group_until=0.55,
    edges=((0.0, 0.75), (0.2, 1.0)),
    skipping=Skipping(keep=0.7, start=0.2, end=0.84),
    views="moved where unsure",
)

# For a GPU the peer's, until ours has been measured on one.
GPU = AIRBENCH94

RECIPES: dict[str, Recipe] = {
    "airbench94": AIRBENCH94,
    "hlb": HLB,
    "hlb-0.7": HLB_07,
    "cpu": CPU,
    "gpu": GPU,
}


def recipe_of(name: str) -> Recipe:
    """Return a recipe.

    Raises:
        SettingError: there is none of that name.
    """
    try:
        return RECIPES[name]
    except KeyError:
        raise SettingError(f"--recipe {name}: known recipes are {', '.join(RECIPES)}.") from None
