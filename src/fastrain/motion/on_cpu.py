"""Advection on a CPU: each cell looks once at the four cells around where it came from.

`torch.nn.functional.grid_sample` does the same by way of maps of where to look, for fields and for what is known of
them in turn, at twice the cost of one thread; over the leads of a nowcast of pixels that is most of what advection
takes. Numba itself takes 75 MB and half a second, so this is for large maps (LOG.md).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32
from numba import int32, njit, uintp
from numpy import ndarray

ZERO, HALF, ONE, LEAST = (np.float32(number) for number in (0, 0.5, 1, 1e-6))


@njit(nogil=True, cache=True, error_model="numpy")  # type: ignore[untyped-decorator]
def gather(
    field: Float32[ndarray, "maps cells"],
    seen: Float32[ndarray, "maps cells"],
    displacement: Float32[ndarray, "map 2 y x"],
    nearest: bool,
    carried: Float32[ndarray, "map channel y x"],
    known: Bool[ndarray, "map channel y x"],
) -> None:
    """Write the field carried by the displacement, and where half of what it is made of is known.

    Args:
        field: cells, row by row, with a rim of one cell: y + 2 rows and x + 2 columns; 0 where not observed. Of the
            channels of all maps in turn, or of one map, which all displacements carry.
        seen: of the same cells, 1 or 0, whether they are observed; 0 on the rim.
        displacement: (dy, dx) in cells.
        nearest: take the nearest cell instead of the four around.
        carried: is written.
        known: is written.
    """
    maps, channels, height, width = carried.shape
    across = int32(width + 2)
    bottom, end = np.float32(height + 1), np.float32(width + 1)
    corner = np.empty(width, np.int32)
    share = np.empty((4, width), np.float32)
    for m in range(maps):
        first = m * channels if len(field) > channels else 0
        for y in range(height):
            # In two goes over a row, as the first can be done many cells at a time.
            for x in range(width):
                at_y = np.float32(y + 1) - displacement[m, 0, y, x]
                at_x = np.float32(x + 1) - displacement[m, 1, y, x]
                # Beyond the rim all is unknown. Said so that what is no number ends on the rim as well.
                at_y = min(at_y, bottom) if at_y > ZERO else ZERO
                at_x = min(at_x, end) if at_x > ZERO else ZERO
                if nearest:
                    at_y, at_x = np.rint(at_y), np.rint(at_x)
                top, left = min(int32(at_y), int32(height)), min(int32(at_x), int32(width))
                down, right = at_y - np.float32(top), at_x - np.float32(left)
                corner[x] = top * across + left
                share[0, x], share[1, x] = (ONE - down) * (ONE - right), (ONE - down) * right
                share[2, x], share[3, x] = down * (ONE - right), down * right
            for c in range(channels):
                rain, sure = field[first + c], seen[first + c]
                for x in range(width):
                    # Whole numbers without a sign: else every index is looked at for being negative.
                    i = uintp(corner[x])
                    j = i + uintp(across)
                    k, n = i + uintp(1), j + uintp(1)
                    w, e, s, o = share[0, x], share[1, x], share[2, x], share[3, x]
                    weight = w * sure[i] + e * sure[k] + s * sure[j] + o * sure[n]
                    value = w * rain[i] + e * rain[k] + s * rain[j] + o * rain[n]
                    carried[m, c, y, x] = value / max(weight, LEAST)
                    known[m, c, y, x] = weight >= HALF
