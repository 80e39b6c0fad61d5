"""Environment Canada's GIF pictures: 14 rain colours over a map, one radar a picture, the ancestor's own source.

What lines, labels, the logo and the frame hide is not observed, though it is the same in every picture; so is what
lies beyond the radar's range. Which pixels those are is learned by consensus: where most pictures show, whenever they
show no rain, a colour that is no ground, there the rain is hidden always, also in the pictures in which rain seems to
shine through.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int
from numpy import ndarray

from fastrain.core.errors import DamagedFile, SourceError, UnknownTime
from fastrain.core.frame import Frame
from fastrain.core.grid import Grid
from fastrain.core.levels import NOT_OBSERVED
from fastrain.core.time import time_in_name
from fastrain.sources.palette import Palette, load_palette
from fastrain.sources.picture import read_picture
from fastrain.sources.reader import Background, Reader, ReadOptions
from fastrain.sources.sites import S_BAND_RANGE, Site, code_in_name, site_of

MOST_FOR_CONSENSUS = 48
ALWAYS_RAIN = 24  # pictures, over ALWAYS_RAIN_SPAN, that must all show rain at a pixel before it is taken as painted on
ALWAYS_RAIN_SPAN = timedelta(hours=12)
GROUND_SHARE = 0.2  # a colour the palette does not know is ground if it covers this share of the consensus


def recognises(head: bytes) -> bool:
    """Tell whether a file opens as a GIF."""
    return head[:6] in (b"GIF87a", b"GIF89a")


def read(path: Path, options: ReadOptions) -> Iterator[Frame]:
    """Yield the one frame of a picture.

    Raises:
        DamagedFile: no such picture, or its legend is another palette's.
        UnknownTime: its name tells no time.
        SourceError: the radar is not in the table of sites and no centre is given.
    """
    palette = load_palette("eccc")
    time = time_in_name(path.name, options.time_pattern)
    site, grid = _georeference(path.name, options, palette)
    indices, colours = _checked(path, palette)
    background = options.background or learn([path], None, options)
    level = palette.lookup(colours, background.ground)[palette.cut(indices)]
    level[background.hidden] = NOT_OBSERVED
    level[palette.beyond(site.range_km if site else S_BAND_RANGE, grid.cell_km)] = NOT_OBSERVED
    yield Frame(level, time, grid, palette.table, path.name)


def learn(pictures: Sequence[Path], given: Path | None, options: ReadOptions) -> Background:
    """Return what the pictures show where no rain is.

    Args:
        pictures: of one radar; at most MOST_FOR_CONSENSUS of them, spread evenly, are looked at.
        given: a picture without rain, taken instead of the consensus.
        options: of these, the time pattern is used.

    Raises:
        DamagedFile: the given picture cannot be read, or none of the pictures can.
    """
    palette = load_palette("eccc")
    chosen = [given] if given else _spread(pictures, MOST_FOR_CONSENSUS)
    shown, times = [], []
    for path in chosen:
        try:
            indices, colours = _checked(path, palette)
            shown.append(colours[palette.cut(indices)])
            times.append(time_in_name(path.name, options.time_pattern))
        except UnknownTime:
            pass
        except SourceError:
            if given or len(chosen) == 1:
                raise
    if not shown:
        raise DamagedFile(f"{chosen[0].name} and {len(chosen) - 1} more: none is a picture of Environment Canada's.")
    stack = np.stack(shown)  # (picture, y, x)
    rain = np.isin(stack, list(palette.levels))
    consensus = _commonest(np.where(rain, -1, stack))
    ground = (*palette.ground, *_unknown_ground(consensus, palette))
    hidden = palette.drawn_over | ((consensus >= 0) & ~np.isin(consensus, ground))
    enough = len(times) >= ALWAYS_RAIN and max(times) - min(times) >= ALWAYS_RAIN_SPAN
    if given or enough:
        hidden |= rain.all(axis=0)
    return Background(ground=ground, hidden=hidden)


def _checked(path: Path, palette: Palette) -> tuple[ndarray, ndarray]:
    """Return the picture if its legend shows this palette's colours."""
    indices, colours = read_picture(path, palette.size)
    legend = set(np.unique(colours[indices[:, palette.crop[1] + palette.crop[3] :]]).tolist())
    shown = {level for colour, level in palette.levels.items() if colour in legend}
    if len(shown) < palette.table.count:
        raise DamagedFile(
            f"{path.name}: its legend shows {len(shown)} of the {palette.table.count} rain colours; "
            "it is of another palette (snow, accessible colours, accumulation), which is not read yet."
        )
    return indices, colours


def _georeference(name: str, options: ReadOptions, palette: Palette) -> tuple[Site | None, Grid]:
    code = options.site or code_in_name(name)
    site = site_of(code) if code else None
    centre = options.centre or ((site.latitude, site.longitude) if site else None)
    if centre is None:
        raise SourceError(
            f"{name}: the position of radar {code or '(no code in the name)'} is not in the table; "
            "give it: --centre LAT,LON --pixel-size KM."
        )
    pixel_km = options.pixel_km or palette.pixel_km
    return site, Grid.around(*centre, pixel_km, palette.shape, palette.centre)


def _commonest(stack: Int[ndarray, "picture y x"]) -> Int[ndarray, "y x"]:
    """Return the commonest colour of each pixel over the pictures, -1 where only rain was seen."""
    best = np.full(stack.shape[1:], -1, dtype=np.int64)
    most = np.zeros(stack.shape[1:], dtype=np.int64)
    for colour in np.unique(stack):
        if colour < 0:
            continue
        count = (stack == colour).sum(axis=0)
        better = count > most
        best[better], most[better] = colour, count[better]
    return best


def _unknown_ground(consensus: Int[ndarray, "y x"], palette: Palette) -> list[int]:
    """Return colours that the palette does not know but that cover broad land or water."""
    colours, counts = np.unique(consensus[consensus >= 0], return_counts=True)
    known = {*palette.ground, *palette.levels}
    broad = [int(c) for c, n in zip(colours, counts, strict=True) if n > GROUND_SHARE * consensus.size]
    return [c for c in broad if c not in known and _thick(consensus == c)]


def _thick(mask: Bool[ndarray, "y x"]) -> bool:
    """Tell whether a mask covers areas, not lines: most of it has its eight neighbours."""
    inner = mask[1:-1, 1:-1].copy()
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            inner &= mask[1 + dy : mask.shape[0] - 1 + dy, 1 + dx : mask.shape[1] - 1 + dx]
    return bool(inner.sum() > 0.5 * mask.sum())


def _spread(pictures: Sequence[Path], most: int) -> list[Path]:
    if len(pictures) <= most:
        return list(pictures)
    return [pictures[i] for i in np.linspace(0, len(pictures) - 1, most).astype(int)]


READER = Reader(
    recognises=recognises,
    read=read,
    average="level",
    site_of=code_in_name,
    learn=learn,
    credit="Environment and Climate Change Canada (Data Servers End-use Licence)",
)
