"""A recipe settled for a data set: steps, batch and network follow from how many images there are, and how large.

The recipes are made for 50,000 images of 32×32. Fewer images want smaller batches and more epochs, so that there are
steps enough; smaller ones fewer halvings, larger ones a stem that takes wider strides.
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil, isfinite, log2
from typing import cast

from fastrain.core.errors import SettingError, TooShort
from fastrain.nets.image_net import NetSettings, Pool
from fastrain.vision.judge import all_alike
from fastrain.vision.recipes import MuonRates, Recipe

SMALLEST_BATCH = 32
MADE_FOR = 50_000  # images
STEPS_AN_EPOCH = 25  # that are wanted at least, where there are too few images for the recipe's batch
FEWEST_STEPS = 300  # of a run: fewer leave a network unsettled, however few the images


def settled(recipe: Recipe, images: int, shape: tuple[int, int], *, epochs: float | None = None) -> Recipe:
    """Return a recipe for a number of images of a shape (rows, columns).

    Args:
        recipe: for CIFAR-10.
        images: to train on.
        shape: of each.
        epochs: that the user asks for; None takes the recipe's, or more of a small set.

    Raises:
        TooShort: there are fewer than two images.
        SettingError: the epochs are no number above nothing.
    """
    if epochs is not None and not (isfinite(epochs) and epochs > 0):
        raise SettingError(f"--epochs {epochs}: expected a number above 0.")
    if images < 2:
        raise TooShort(f"{images} image to train on: expected two at least.")
    batch = recipe.batch
    if images < STEPS_AN_EPOCH * batch:
        batch = min(batch, images, max(SMALLEST_BATCH, 2 ** int(log2(max(1.0, images / STEPS_AN_EPOCH)))))
    per_epoch = max(1, images // batch)
    if epochs is None:
        fewest = min(FEWEST_STEPS, recipe.epochs * MADE_FOR / recipe.batch)
        epochs = max(recipe.epochs, fewest / per_epoch)
    longer = epochs / recipe.epochs
    share = batch / recipe.batch
    rates = recipe.rates
    if isinstance(rates, MuonRates):
        # An orthogonal update is as long for a small batch as for a large one, but noisier: as the root of its size.
        rates = replace(rates, filters=rates.filters * share**0.5)
    # Statistics of a small batch are noisy: their average spans as many images as with the recipe's own batch, but no
    # more than a tenth of the steps, so that it has settled at the end.
    steps = max(1, ceil(epochs * per_epoch))
    norm = max(1 - (1 - recipe.net.norm_share) ** share, min(recipe.net.norm_share, 10 / steps))
    net = _fitting(replace(recipe.net, norm_share=norm), min(shape))
    edges = recipe.edges if net == replace(recipe.net, norm_share=norm) and min(shape) >= 28 else ()
    augmentation = replace(recipe.augmentation, translate=min(recipe.augmentation.translate, max(0, min(shape) // 8)))
    if augmentation.cutmix is not None and augmentation.cutmix > min(shape):
        augmentation = replace(augmentation, cutmix=None)
    averages = recipe.averages and replace(recipe.averages, start=recipe.averages.start * longer)
    return replace(
        recipe,
        batch=batch,
        epochs=epochs,
        rates=rates,
        stem_bias_epochs=recipe.stem_bias_epochs * longer,
        averages=averages,
        net=net,
        edges=edges,
        skipping=None,  # the images of largest loss are, in people's own folders, those with wrong labels
        augmentation=augmentation,
        # Every image alike: what is exported takes no choices, and says the same.
        views=all_alike(recipe.views),
    )


def unmirrored(recipe: Recipe) -> Recipe:
    """Return a recipe for images whose mirrors are something else: letters, hands, street signs."""
    return replace(recipe, augmentation=replace(recipe.augmentation, flip=None), views="one")


def _fitting(net: NetSettings, edge: int) -> NetSettings:
    """Return a network whose last map holds something: fewer halvings of small images, wider strides of large ones."""
    stride = min(4, max(1, edge // 32)) if net.stride == 1 else net.stride
    if stride > net.stride:
        stride = 2 ** int(log2(stride))
        # Of larger patches other directions are noise, and where they do not overlap none can be spared.
        net = replace(net, stride=stride, kernel=max(net.kernel, 4), padding=0, directions=None)
    pools = list(net.pools)
    while _left(net, tuple(pools), edge) < 1 and any(pool != "none" for pool in pools):
        pools[max(i for i, pool in enumerate(pools) if pool != "none")] = "none"
    return replace(net, pools=cast(tuple[Pool, ...], tuple(pools)))


def _left(net: NetSettings, pools: tuple[Pool, ...], edge: int) -> int:
    return max(0, (edge + 2 * net.padding - net.kernel) // net.stride + 1) >> sum(pool != "none" for pool in pools)
