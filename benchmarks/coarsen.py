"""The coarse-graining kernel beside memory copy and beside the plain one, on real frames out of cache.

    python benchmarks/coarsen.py [--to records/coarsen.json]

Bytes of frames per second, one thread, best of nine each, taken in turns; memory copy is numpy's into an array that is
there already.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from fastrain.archive.coarsen import _coarsen, average_weights
from fastrain.core.levels import NOT_OBSERVED
from fastrain.sources import ReadOptions, read_frames

sys.path.insert(0, str(Path(__file__).parent))
from sequences import RADAR


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--to", type=Path)
    asked = parser.parse_args()
    paths = sorted((RADAR / "eccc_2025-09-02").rglob("*.gif"))
    frames = [next(iter(read_frames(path, "eccc", ReadOptions(centre=(50.0, -100.0))))) for path in paths]
    level = np.concatenate([np.stack([frame.level for frame in frames])] * 8)
    copy = np.empty_like(level)
    copy[:] = 0
    record: dict[str, object] = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "megabytes": level.nbytes / 1e6}
    for average in ("level", "rain_rate"):
        weights = average_weights(average, frames[0].table)
        weights[NOT_OBSERVED] = 0.0
        for c in (2, 3, 4):
            shape = (len(level), -(-480 // c), -(-480 // c))
            out = [np.zeros(shape, np.uint8) for _ in range(3)]
            _coarsen(level[:2], c, weights, *(array[:2] for array in out))
            copies, kernels = [], []
            for _ in range(9):
                began = time.perf_counter()
                np.copyto(copy, level)
                copies.append(time.perf_counter() - began)
                began = time.perf_counter()
                _coarsen(level, c, weights, *out)
                kernels.append(time.perf_counter() - began)
            share = min(copies) / min(kernels)
            record[f"{average}, coarseness {c}"] = {
                "share_of_memory_copy": round(share, 3),
                "milliseconds_per_frame": round(min(kernels) / len(level) * 1e3, 4),
            }
            print(f"{average}, coarseness {c}: {share:.2f} of memory copy", flush=True)
    if asked.to:
        asked.to.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
