"""A year of GIF pictures made from the real ones: rain of 23 radars, moved and mixed over one map, no two the same.

python benchmarks/year.py FOLDER [PICTURES]
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from fastrain.sources import ReadOptions
from fastrain.sources.palette import load_palette
from fastrain.sources.pictures import learn

sys.path.insert(0, str(Path(__file__).parent))
from sequences import RADAR

YEAR = 52_560
START = datetime(2024, 1, 1, tzinfo=UTC)
STEP = timedelta(minutes=10)


def make(folder: Path, count: int = YEAR) -> None:
    """Write pictures into a folder, on both cores; those that are there already are left."""
    folder.mkdir(parents=True, exist_ok=True)
    if sum(1 for _ in folder.iterdir()) == count:
        return
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(_some, [(folder, first, min(first + 200, count)) for first in range(0, count, 200)]))


def _some(job: tuple[Path, int, int]) -> None:
    folder, first, last = job
    for i in range(first, last):
        time = START + i * STEP
        path = folder / f"{time:%Y%m%d%H%M}_CASFT_CAPPI_1.5_RAIN.gif"
        if not path.exists():
            _picture(i).save(path)


def _picture(i: int) -> Image.Image:
    base, hidden, rain, colours = _material()
    weather, hour = divmod(i, 144)  # another pair of radars' rain each day
    draw = np.random.default_rng(weather)
    first, second = draw.integers(len(rain), size=2)
    speed = draw.integers(-3, 4, size=4)
    start = draw.integers(480, size=4)
    moved = [
        np.roll(rain[which], tuple(start[2 * k : 2 * k + 2] + hour * speed[2 * k : 2 * k + 2]), (0, 1))
        for k, which in enumerate((first, second))
    ]
    level = np.maximum(*moved)
    level = np.where(np.arange(480)[:, None] + hour < 480 + 144, level, 0)
    # One pixel says the number of the picture, so that two of the same rain differ too.
    level[100 + i // 300 % 200, 100 + i % 300] = 1 + i // 60_000
    picture = base.copy()
    shown = (level > 0) & ~hidden
    picture[:, :480][shown] = colours[level[shown]]
    made = Image.fromarray(picture, "P")
    made.putpalette(_palette())
    return made


@cache
def _material() -> tuple[np.ndarray, np.ndarray, list[np.ndarray], np.ndarray]:
    palette = load_palette("eccc")
    pictures = sorted((RADAR / "eccc_2025-09-02" / "cappi").glob("*CASFT*"))
    background = learn("eccc", pictures, None, ReadOptions())
    with Image.open(pictures[0]) as image:
        base = np.array(image)
        flat = np.array(image.getpalette()).reshape(-1, 3)
    known = {int(r) << 16 | int(g) << 8 | int(b): i for i, (r, g, b) in reversed(list(enumerate(flat)))}
    level_of = np.zeros(256, np.uint8)
    index_of = np.zeros(15, np.uint8)
    for colour, level in palette.levels.items():
        if colour in known:
            index_of[level] = known[colour]
            level_of[known[colour]] = level
    rain = []
    for path in sorted((RADAR / "eccc_2025-09-02" / "cappi").glob("*0142*")):
        with Image.open(path) as image:
            other = np.array(image.convert("RGB")).astype(int)[:, :480]
        packed = other[..., 0] << 16 | other[..., 1] << 8 | other[..., 2]
        field = np.zeros(packed.shape, np.uint8)
        for colour, level in palette.levels.items():
            field[packed == colour] = level
        field[background.hidden] = 0
        rain.append(field)
    # The base without rain: where it shows some, land.
    land = known[palette.ground[1]]
    base[:, :480][(level_of[base[:, :480]] > 0) & ~background.hidden] = land
    rows, columns = np.ogrid[:480, :480]
    beyond = np.hypot(rows - 240, columns - 240) > 240
    return base, background.hidden | beyond, rain, index_of


@cache
def _palette() -> list[int]:
    with Image.open(sorted((RADAR / "eccc_2025-09-02" / "cappi").glob("*CASFT*"))[0]) as image:
        return list(image.getpalette() or [])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("frames", type=int, nargs="?", default=YEAR)
    asked = parser.parse_args()
    make(asked.folder, asked.frames)
