"""Whether two archives hold the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fastrain.archive.store import Archive


def same(a: Path, b: Path) -> bool:
    """Compare everything two archives say; the first difference fails."""
    one, two = Archive.open(a), Archive.open(b)
    assert one.span == two.span
    assert one.schema == two.schema
    start, stop = one.span
    for name in ("status", "time_offset", "digest", "wet_pixels", "observed_pixels"):
        np.testing.assert_array_equal(one.slots(name, start, stop), two.slots(name, start, stop))
    np.testing.assert_array_equal(one.level(start, stop), two.level(start, stop))
    for c in one.schema.coarseness:
        for x, y in zip(one.blocks(c, start, stop).values(), two.blocks(c, start, stop).values(), strict=True):
            np.testing.assert_array_equal(x, y)
    return True
