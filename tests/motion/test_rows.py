"""Filters as products with matrices against scipy's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d

from fastrain.motion.rows import PIECE, filter_map


@pytest.mark.parametrize("outside", ["zeros", "border"])
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (PIECE, PIECE + 1), (7, 3 * PIECE + 5), (2 * PIECE, 4 * PIECE)])
@pytest.mark.parametrize("width", [1, 3, 31, 2 * PIECE + 1, 8 * PIECE + 3])
def test_a_filtered_map_is_what_a_correlation_along_both_axes_gives(outside, shape, width):
    draw = np.random.default_rng(width)
    field, taps = draw.normal(size=(2, 3, *shape)), draw.normal(size=width)
    mode = {"zeros": "constant", "border": "nearest"}[outside]
    expected = correlate1d(correlate1d(field, taps, axis=-1, mode=mode), taps, axis=-2, mode=mode)
    found = filter_map(torch.from_numpy(field).float(), tuple(taps.tolist()), outside)
    scale = 1e-5 * max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(found.numpy(), expected, atol=scale, rtol=1e-4)
