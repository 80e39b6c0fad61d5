"""The switches of a recipe: each turns one trick on or off, and leaves the rest alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from fastrain.core.errors import SettingError
from fastrain.engine.batches import Skipping
from fastrain.vision.recipes import HLB, Averages, Recipe, SgdRates

BASE, PATIENCE = "base", "a quarter more epochs"

Turn = Callable[[Recipe], Recipe]


def _net(**settings: Any) -> Turn:
    return lambda recipe: replace(recipe, net=replace(recipe.net, **settings))


def _augmentation(**settings: Any) -> Turn:
    return lambda recipe: replace(recipe, augmentation=replace(recipe.augmentation, **settings))


def _recipe(**settings: Any) -> Turn:
    return lambda recipe: replace(recipe, **settings)


def _averaged(*, copy_back: bool) -> Turn:
    """Average over the last half of the run."""
    return lambda recipe: replace(
        recipe, averages=Averages(decay=0.9, every=2, start=recipe.epochs / 2, copy_back=copy_back)
    )


def _sgd(recipe: Recipe) -> Recipe:
    """Return the recipe with SGD's rates, of the peer that trains by it, for the recipe's own batch."""
    rates = HLB.rates
    return replace(recipe, rates=rates) if isinstance(rates, SgdRates) else recipe


# One entry for each switch that is looked at; what the base has already is turned off by its counterpart.
SWITCHES: dict[str, Turn] = {
    PATIENCE: lambda recipe: replace(recipe, epochs=1.25 * recipe.epochs),
    "whitening 3×3 of the same size": _net(kernel=3, padding=1, directions=None),
    "whitening 4×4 with stride 2": lambda r: replace(
        r, net=replace(r.net, kernel=4, stride=2, directions=None, pools=("none", *r.net.pools[1:]))
    ),
    "no negatives of the whitening": _net(both_signs=False),
    "eight directions of the whitening": _net(directions=8),
    "stem's bias not trained": _recipe(stem_bias_epochs=0.0),
    "first group settled early": _recipe(first_group_until=0.55),
    "squeeze-and-excite 4": _net(squeeze_excite=4),
    "squeeze-and-excite 8": _net(squeeze_excite=8),
    "squeeze-and-excite 16": _net(squeeze_excite=16),
    "squeeze-and-excite 32": _net(squeeze_excite=32),
    "ReLU": _net(activation="relu"),
    "SiLU": _net(activation="silu"),
    "halved before the second group": lambda r: replace(
        r, net=replace(r.net, pools=(r.net.pools[0], "before", *r.net.pools[2:]))
    ),
    "no dirac start": _net(dirac=None),
    "norms' momentum a quarter": lambda r: replace(r, net=replace(r.net, norm_share=r.net.norm_share / 4)),
    "average of the weights": _averaged(copy_back=False),
    "lookahead": _averaged(copy_back=True),
    "no smoothing of labels": _recipe(smoothing=0.0),
    "cutmix": _augmentation(cutmix=8, cutmix_from=0.5),
    "flips at random": _augmentation(flip="random"),
    "no flips": _augmentation(flip=None),
    "not moved": _augmentation(translate=0),
    "moved by 4 pixels": _augmentation(translate=4),
    "SGD for Muon": _sgd,
    "float32": _recipe(precision="float32"),
    "channels first": _net(channels_last=False),
    "half the batch": lambda r: replace(r, batch=r.batch // 2),
    "small images first": _recipe(edges=((0.0, 0.75), (0.5, 1.0))),
    "what is learned passed over": _recipe(skipping=Skipping(keep=0.6, start=0.25, end=0.86)),
    "one view": _recipe(views="one"),
    "image and mirror": _recipe(views="mirrored"),
}


def switches_of(names: Iterable[str]) -> tuple[str, ...]:
    """Return the switches of names; of a name's beginning, all that begin so.

    Raises:
        SettingError: nothing begins so.
    """
    chosen: list[str] = []
    for name in names:
        begins = name.lower().replace("×", "x")
        found = [switch for switch in SWITCHES if switch.lower().replace("×", "x").startswith(begins)]
        if not found:
            raise SettingError(f"--switches {name}: known are {', '.join(SWITCHES)}.")
        chosen += [switch for switch in found if switch not in chosen]
    return tuple(chosen)
