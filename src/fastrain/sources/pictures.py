"""Radar pictures: rain colours over a map, read by a palette; Environment Canada's, MeteoSwiss's, or a user's own.

What lines, labels, the logo and the frame hide is not observed, though it is the same in every picture; so is what
lies beyond the radar's range. Which pixels those are is learned by consensus: where most pictures show, whenever they
show no rain, a colour that is no ground, there the rain is hidden always, also in the pictures in which rain seems to
shine through.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int, Shaped, UInt8
from numpy import ndarray

from fastrain.core.errors import DamagedFile, SettingError, SourceError, UnknownTime
from fastrain.core.frame import Frame
from fastrain.core.grid import Grid
from fastrain.core.levels import NOT_OBSERVED
from fastrain.core.time import time_in_name
from fastrain.sources.image_file import MAGIC, TRANSPARENT, read_picture, snapped
from fastrain.sources.palette import Legend, Palette, load_palette
from fastrain.sources.reader import Average, Background, Reader, ReadOptions
from fastrain.sources.sites import S_BAND_RANGE, code_in_name, site_of

MOST_FOR_CONSENSUS = 48
ALWAYS_RAIN = 24  # pictures, over ALWAYS_RAIN_SPAN, that must all show rain at a pixel before it is taken as painted on
ALWAYS_RAIN_SPAN = timedelta(hours=12)
GROUND_SHARE = 0.2  # a colour the palette does not know is ground if it covers this share of the consensus


def picture_reader(packaged: str) -> Reader:
    """Return the reader of pictures of one of the package's palettes."""
    palette = load_palette(packaged)
    average: Average = palette.data.get("average", "level")
    return Reader(
        recognises=partial(_recognises, packaged),
        read=partial(read, packaged),
        average=average,
        site_of=code_in_name if palette.radar.get("sites") else None,
        learn=partial(learn, packaged),
        credit=palette.data["credit"],
        time_pattern=palette.data.get("time_pattern"),
        palette=partial(load_palette, packaged),
    )


def own_picture_reader() -> Reader:
    """Return the reader of pictures of a palette that the user gives."""
    return Reader(
        recognises=lambda path, head: False,
        read=partial(read, None),
        average="level",
        learn=partial(learn, None),
        credit="the maker of the pictures",
    )


def read(packaged: str | None, path: Path, options: ReadOptions) -> Iterator[Frame]:
    """Yield the one frame of a picture.

    Raises:
        DamagedFile: no such picture, or its legend is another palette's.
        UnknownTime: its name tells no time.
        SourceError: the radar is not in the table of sites and no centre is given.
        SettingError: no palette is given for pictures that need one.
    """
    palette = _palette(packaged, options)
    time = _time(path, options, palette)
    grid, range_km = _georeference(path.name, options, palette)
    indices, colours = read_picture(path, palette.size)
    background = options.background
    if palette.by_index:
        level, table = _by_index(indices, colours, palette, path), palette.table
    else:
        legend = _legend_of(indices, colours, palette, path.name)
        background = background or _learn(palette, [path], None, options)
        index = palette.legends.index(legend)
        level = _translated(palette.cut(indices), _lookup(palette, index, background.ground, colours.tobytes()))
        table = legend.table
    if background is not None:
        # A maximum, since 255 is not observed: ten times quicker than assigning by a mask.
        level = np.maximum(level, _unseen(palette, background, range_km, grid.cell_km))
    yield Frame(level, time, grid, table, path.name)


def learn(packaged: str | None, pictures: Sequence[Path], given: Path | None, options: ReadOptions) -> Background:
    """Return what the pictures show where no rain is.

    Args:
        packaged: name of the palette, or None for the one in the options.
        pictures: of one radar; at most MOST_FOR_CONSENSUS of them, spread evenly, are looked at.
        given: a picture without rain, taken instead of the consensus.
        options: of these, the time pattern, the palette and the mask are used.

    Raises:
        DamagedFile: the given picture cannot be read, or none of the pictures can.
    """
    return _learn(_palette(packaged, options), pictures, given, options)


def _learn(palette: Palette, pictures: Sequence[Path], given: Path | None, options: ReadOptions) -> Background:
    masked = palette.drawn_over | _mask(palette, options)
    if palette.by_index:
        return Background(ground=(), hidden=masked)
    chosen = [given] if given else _spread(pictures, MOST_FOR_CONSENSUS)
    shown, rain, times = [], [], []
    for path in chosen:
        try:
            indices, colours = read_picture(path, palette.size)
            legend = _legend_of(indices, colours, palette, path.name)
            level = palette.lookup(colours, legend, ())
            nearest = _nearest_ground(colours, palette).astype(np.int32)  # 48 pictures of these are held
            shown.append(nearest[palette.cut(indices)])
            rain.append((level != NOT_OBSERVED)[palette.cut(indices)])
            times.append(_time(path, options, palette))
        except UnknownTime:
            pass
        except SourceError:
            if given or len(chosen) == 1:
                raise
    if not shown:
        raise DamagedFile(f"{chosen[0].name} and {len(chosen) - 1} more: none is a picture of {palette.name}'s.")
    wet = np.stack(rain)  # (picture, y, x)
    consensus = _commonest(np.where(wet, -1, np.stack(shown)))
    ground = (*palette.ground, *_unknown_ground(consensus, palette))
    hidden = masked | ((consensus >= 0) & ~np.isin(consensus, ground))
    enough = len(times) >= ALWAYS_RAIN and max(times) - min(times) >= ALWAYS_RAIN_SPAN
    if given or enough:
        hidden |= wet.all(axis=0)
    return Background(ground=ground, hidden=hidden)


def _recognises(packaged: str, path: Path, head: bytes) -> bool:
    """Tell whether a file opens as a picture of the palette's size, and says what its palette looks for."""
    palette = load_palette(packaged)
    if not head.startswith(MAGIC[:2]):
        return False
    rows, columns = palette.size
    size = int.from_bytes(head[6:8], "little"), int.from_bytes(head[8:10], "little")
    comment = palette.data.get("comment")
    if comment:
        return size == (columns, rows) and comment.encode() in head.lower()
    # Any other GIF is taken for this palette's, which then says by its size why it is not.
    return b"meteoswiss" not in head.lower()


def _palette(packaged: str | None, options: ReadOptions) -> Palette:
    if options.palette is not None:
        return options.palette
    if packaged is None:
        raise SettingError("Pictures of your own need a palette: --palette FILE (`fastrain palette` proposes one).")
    return load_palette(packaged)


def _time(path: Path, options: ReadOptions, palette: Palette) -> datetime:
    return time_in_name(path.name, options.time_pattern or palette.data.get("time_pattern"))


def _by_index(indices: ndarray, colours: ndarray, palette: Palette, path: Path) -> UInt8[ndarray, "y x"]:
    if len(colours) != 256 or indices.dtype != np.uint8:
        raise DamagedFile(f"{path.name}: has no list of colours; its indices are lost, so it cannot be read as levels.")
    return _translated(palette.cut(indices), palette.index_lookup)


def _legend_of(indices: ndarray, colours: ndarray, palette: Palette, name: str) -> Legend:
    """Return the legend that a picture shows, by its colours, its title and its name."""
    if palette.legend_box is None:
        return palette.legends[0]
    title = palette.cut(indices, palette.title_box).tobytes() if palette.title_box else b""
    drawn = palette.cut(indices, palette.legend_box).tobytes()
    shown, white = _drawn(colours.tobytes(), drawn, title, indices.dtype.str)
    complete = [
        one for one in palette.legends if {v for c, v in one.levels.items() if c in shown} == {*one.levels.values()}
    ]
    for one in complete:
        if one.named and (one.named in name.lower() or one.title_white == white):
            return one
    for one in complete:
        if not one.named:
            return one
    known = palette.legends[0]
    found = sum(level in {known.levels.get(c) for c in shown} for level in set(known.levels.values()))
    raise DamagedFile(
        f"{name}: its legend shows {found} of the {known.table.count} rain colours; it is of another palette "
        f"than {', '.join(one.name for one in palette.legends)}: give one with --palette (`fastrain palette` proposes)."
    )


@lru_cache(maxsize=16)
def _drawn(colours: bytes, legend: bytes, title: bytes, dtype: str) -> tuple[frozenset[int], int]:
    """Return the colours of a legend and the white pixels of its title, which a radar's pictures have in common."""
    known = np.frombuffer(colours, dtype=np.int64)
    count = np.bincount(np.frombuffer(legend, dtype), minlength=len(known))
    white = int((known[np.frombuffer(title, dtype)] == 0xFFFFFF).sum()) if title else -1
    return frozenset(known[count > 0].tolist()), white


def _georeference(name: str, options: ReadOptions, palette: Palette) -> tuple[Grid, float | None]:
    range_km = palette.data.get("range_km")
    if options.pixel_km is not None and not palette.radar:
        raise SettingError(f"--pixel-size: palette {palette.name} names its own grid; leave it out.")
    if options.centre is None and (own := palette.grid(options.pixel_km)) is not None:
        return own, range_km
    if not palette.radar:
        raise SettingError(f"--centre: palette {palette.name} names its own map projection; leave it out.")
    site = None
    if palette.radar.get("sites"):
        code = options.site or code_in_name(name)
        site = site_of(code) if code else None
        range_km = site.range_km if site else S_BAND_RANGE
        position = f"the position of radar {code or '(no code in the name)'} is not in the table"
    else:
        position = f"palette {palette.name} has no position"
    centre = options.centre or ((site.latitude, site.longitude) if site else None)
    if centre is None:
        raise SourceError(f"{name}: {position}; give it: --centre LAT,LON --pixel-size KM.")
    pixel_km = palette.radar["pixel_km"] if options.pixel_km is None else options.pixel_km
    return _grid_around(centre, pixel_km, palette.shape, palette.centre), range_km


def _mask(palette: Palette, options: ReadOptions) -> Bool[ndarray, "y x"]:
    """Return where a mask, white or any other colour than black, hides the rain."""
    path = options.mask or (Path(palette.data["mask"]) if "mask" in palette.data else None)
    if path is None:
        return np.zeros(palette.shape, dtype=bool)
    indices, colours = read_picture(path)
    black = np.isin(colours, (0, TRANSPARENT))
    hidden = ~black[indices]
    if hidden.shape == palette.size:
        return np.asarray(palette.cut(hidden))
    if hidden.shape != palette.shape:
        found, wanted = (f"{s[1]}×{s[0]}" for s in (hidden.shape, palette.size))
        raise SettingError(f"{path.name}: a mask of {found} pixels, but the pictures have {wanted}.")
    return np.asarray(hidden)


def _translated(indices: Shaped[ndarray, "y x"], table: UInt8[ndarray, n]) -> UInt8[ndarray, "y x"]:
    """Return the table's entry for each index."""
    if indices.dtype != np.uint8:
        return np.asarray(table[indices])
    # Three times as fast as numpy, which makes eight bytes of every index first.
    entries = indices.tobytes().translate(np.resize(table, 256).tobytes())
    return np.frombuffer(entries, dtype=np.uint8).reshape(indices.shape)


@lru_cache(maxsize=64)
def _lookup(palette: Palette, legend: int, ground: tuple[int, ...], colours: bytes) -> UInt8[ndarray, n]:
    """Return the level of each colour; a radar's pictures share a few lists of colours."""
    return palette.lookup(np.frombuffer(colours, dtype=np.int64), palette.legends[legend], ground)


@lru_cache(maxsize=4)
def _unseen(palette: Palette, background: Background, range_km: float | None, pixel_km: float) -> UInt8[ndarray, "y x"]:
    """255 where the background hides the rain or a pixel's centre lies beyond the radar's range, else 0."""
    unseen = background.hidden
    if range_km is not None:
        unseen = unseen | palette.beyond(range_km, pixel_km)
    return np.asarray(unseen.astype(np.uint8) * np.uint8(255))


@lru_cache(maxsize=16)
def _grid_around(centre: tuple[float, float], pixel_km: float, shape: tuple[int, int], at: tuple[float, float]) -> Grid:
    return Grid.around(*centre, pixel_km, shape, at)


def _nearest_ground(colours: Int[ndarray, n], palette: Palette) -> Int[ndarray, n]:
    """Return each colour, or the ground colour it is within the palette's tolerance of."""
    if not palette.tolerance:
        return colours
    return snapped(colours, palette.ground, palette.tolerance)


def _commonest(stack: Int[ndarray, "picture y x"]) -> Int[ndarray, "y x"]:
    """Return the commonest colour of each pixel over the pictures, -1 where only rain was seen."""
    best = np.full(stack.shape[1:], -1, dtype=np.int32)
    most = np.zeros(stack.shape[1:], dtype=np.int16)
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
    known = {*palette.ground, *(colour for legend in palette.legends for colour in legend.levels)}
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
