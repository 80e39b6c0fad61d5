import numpy as np
import pytest

from fastrain.archive.coarsen import average_weights, coarsen
from fastrain.core.errors import SettingError
from fastrain.core.levels import LevelTable
from fastrain.sources.rpbin import read_payloads

LEVELS = average_weights("level", LevelTable.binned())
RATES = average_weights("rain_rate", LevelTable.binned())
FILES = ("franktown_201206031700", "franktown_201308080330", "franktown_202508292100",
         "franktown_202508292100_crop_101x67", "franktown_202509020142_clutter")  # fmt: skip


def obvious(level, c, weights):
    """The slow version: a loop over blocks, exact means."""
    frames, height, width = level.shape
    shape = (frames, -(-height // c), -(-width // c))
    maximum, mean, observed = np.full(shape, 255), np.zeros(shape), np.zeros(shape, int)
    for t, row, column in np.ndindex(*shape):
        block = level[t, row * c : (row + 1) * c, column * c : (column + 1) * c].ravel()
        seen = block[block != 255]
        observed[t, row, column] = len(seen)
        if len(seen):
            maximum[t, row, column] = seen.max()
            mean[t, row, column] = weights[seen].mean()
    return maximum, mean, observed


def random_levels(shape, seed, unseen=0.2, highest=144):
    draw = np.random.default_rng(seed)
    level = draw.integers(0, highest + 1, shape).astype(np.uint8)
    level[draw.random(shape) < 0.5] = 0
    level[draw.random(shape) < unseen] = 255
    return level


@pytest.mark.parametrize("coarseness", [1, 2, 3, 4, 7, 15])
@pytest.mark.parametrize("weights", [LEVELS, RATES], ids=["level", "rain_rate"])
@pytest.mark.parametrize("shape", [(3, 24, 24), (2, 31, 17), (1, 1, 5), (2, 28, 588), (1, 13, 661)])
def test_the_kernel_agrees_with_the_obvious_version(coarseness, weights, shape):
    level = random_levels(shape, seed=coarseness)
    maximum, ratio, observed = coarsen(level, coarseness, weights=weights)
    top, mean, seen = obvious(level, coarseness, weights)
    np.testing.assert_array_equal(maximum, top)
    np.testing.assert_array_equal(observed, seen)
    has = (top != 255) & (top > 0)
    said = weights[top[has]] * ratio[has] / 255
    assert (np.abs(said - mean[has]) <= weights[top[has]] / 510 * (1 + 1e-9)).all()
    assert (ratio[~has] == 0).all()


def test_not_observed_never_becomes_dry_and_dry_never_not_observed():
    level = np.full((1, 4, 4), 255, np.uint8)
    level[0, 0, 0] = 0
    maximum, _, observed = coarsen(level, 2, weights=LEVELS)
    assert maximum[0].tolist() == [[0, 255], [255, 255]]
    assert observed[0].tolist() == [[1, 0], [0, 0]]


def test_a_block_at_the_edge_counts_only_pixels_inside():
    level = np.full((1, 5, 5), 10, np.uint8)
    maximum, ratio, observed = coarsen(level, 4, weights=LEVELS)
    assert (maximum == 10).all()
    assert (ratio == 255).all()
    assert observed[0].tolist() == [[16, 4], [4, 1]]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("coarseness", [1, 2, 3, 4])
def test_the_ancestor_is_matched(data, name, coarseness):
    """Maximum exact; mean within max/510 of the exact mean and within max/255 of the ancestor's."""
    held = np.load(data / "rpbin" / f"{name}.npz")
    level = held["max_1"][None]
    maximum, ratio, _ = coarsen(level, coarseness, weights=LEVELS)
    np.testing.assert_array_equal(maximum[0], held[f"max_{coarseness}"])
    mean = maximum[0].astype(float) * ratio[0] / 255
    _, exact, _ = obvious(level, coarseness, LEVELS)
    assert (np.abs(mean - exact[0]) <= maximum[0] / 510 + 1e-9).all()
    assert (np.abs(mean - held[f"mean_{coarseness}"]) <= maximum[0] / 255 + 1e-9).all()
    payload = read_payloads(data / "rpbin" / f"{name}.bin")[coarseness]
    np.testing.assert_array_equal(payload.maximum, held[f"max_{coarseness}"])
    np.testing.assert_array_equal(payload.ratio, held[f"ratio_{coarseness}"])


@pytest.mark.parametrize("coarseness", [0, -1, 16])
def test_an_impossible_coarseness_is_refused(coarseness):
    with pytest.raises(SettingError, match="1 to 15"):
        coarsen(np.zeros((1, 4, 4), np.uint8), coarseness, weights=LEVELS)


def test_levels_that_are_no_bytes_are_refused():
    with pytest.raises(SettingError, match="int16: expected bytes"):
        coarsen(np.zeros((1, 4, 4), np.int16), 2, weights=LEVELS)
