"""A palette proposed from pictures: the legend's colours if one is drawn, else the colours that come and go.

What is proposed is shown as a picture, to be looked at before anything is ingested: rain in its own colours, dry land
and water pale, what hides the rain magenta, what lies outside the map dark. Rates are never guessed: without `edges`
the palette waits for the user to write in what the legend's numbers say.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int
from numpy import ndarray
from PIL import Image, ImageDraw

from fastrain.core.errors import DamagedFile, SourceError
from fastrain.sources.image_file import TRANSPARENT, nearest, read_picture, snapped
from fastrain.sources.palette import Box

MOST_PICTURES = 24
MOST_COLOURS = 512  # more, and the picture was stored with loss
FEWEST_IN_LEGEND = 4
FAR_APART = 36.0  # in RGB, that colours of one legend are at least, in pictures stored with loss
WIDEST_FRAME, FRAME_SHARE = 4, 0.9  # pixels of a line around the map, and its share of an edge that labels leave
GROUND_SHARE = 0.02  # of the map, that a colour of ground covers
_PALE, _MAGENTA, _DARK = (232, 230, 222), (230, 0, 200), (40, 40, 46)


@dataclass(frozen=True)
class Proposal:
    """What the pictures seem to be.

    Attributes:
        size: rows and columns of the pictures.
        crop: of the map.
        colours: of rain, light to heavy, as 0xRRGGBB.
        ground: colours of land and water, and transparency.
        legend: where it is drawn; None where none was found.
        frame: width of the line around the map, pixels.
        tolerance: how far colours stray, for pictures stored with loss.
        notes: what the user should look at.
    """

    size: tuple[int, int]
    crop: Box
    colours: tuple[int, ...]
    ground: tuple[int, ...]
    legend: Box | None
    frame: int
    tolerance: float
    notes: tuple[str, ...]


def propose(pictures: Sequence[Path], crop: Box | None = None) -> Proposal:
    """Return the palette that pictures of one kind seem to have.

    Args:
        pictures: GIF, PNG or WebP, of one size; those with much rain tell most.
        crop: of the map, where the user knows it.

    Raises:
        DamagedFile: a picture cannot be read.
        SourceError: they are of different sizes, or no colour looks like rain.
    """
    stack, tolerance = _stack(pictures[:MOST_PICTURES])
    size = (int(stack.shape[1]), int(stack.shape[2]))
    notes = ["stored with loss: colours within the tolerance of a known one are taken for it"] if tolerance else []
    constant = (stack == stack[0]).all(axis=0)
    found = _legend(stack[0], constant)
    if crop is None:
        crop = _map(stack[0], found[1]) if found else (0, 0, *size)
    row, column, rows, columns = crop
    maps = stack[:, row : row + rows, column : column + columns]
    colours, counts = np.unique(maps, return_counts=True)
    share = dict(zip(colours.tolist(), (counts / maps.size).tolist(), strict=True))
    if found:
        rain = _light_first(found[0], share)
        notes.append(f"rain: the {len(rain)} colours of the legend at row {found[1][0]}, column {found[1][1]}")
    else:
        rain = _moving(maps, share)
        notes.append("no legend was found: rain is what comes and goes, ordered by how common it is; look at the order")
    if not rain:
        raise SourceError(
            f"{pictures[0].name}: no legend, and nothing that looks like rain; give pictures of different weather."
        )
    ground = tuple(
        colour
        for colour in sorted(share, key=lambda c: -share[c])
        if colour not in rain
        and (colour == TRANSPARENT or (share[colour] > GROUND_SHARE and _broad(maps[0] == colour)))
    )
    if not ground:
        notes.append("no ground was found: name its colours")
    frame = _frame(maps, rain)
    if frame:
        notes.append(f"frame: {frame} pixels around the map are of a colour of rain in every picture, and hidden")
    return Proposal(size, crop, tuple(rain), ground, found[1] if found else None, frame, tolerance, tuple(notes))


def _frame(maps: Int[ndarray, "picture y x"], rain: Sequence[int]) -> int:
    """Return the width of the line of one colour of rain that runs along an edge of the map in every picture."""
    for colour in rain:
        always = (maps == colour).all(axis=0)
        for turned in (always, always[::-1], always.T, always.T[::-1]):
            lines = turned[:WIDEST_FRAME].mean(axis=1) >= FRAME_SHARE
            if lines.any():
                return int(np.flatnonzero(lines)[-1]) + 1
    return 0


def as_toml(proposal: Proposal, name: str, edges: Sequence[float], position: tuple[float, float] | None) -> str:
    """Return the palette's TOML, with what the user still has to write in."""
    row, column, rows, columns = proposal.crop
    quoted = ", ".join(f'"{_hex(colour)}"' for colour in proposal.colours)
    lines = [
        f"# Proposed by `fastrain palette` from pictures of {proposal.size[1]}×{proposal.size[0]} pixels.",
        *(f"# {note}" for note in proposal.notes),
        f'name = "{name}"',
        f"size = [{proposal.size[0]}, {proposal.size[1]}]   # rows, columns of the whole picture",
        f"crop = [{row}, {column}, {rows}, {columns}]   # row, column, rows, columns of the map",
        f"ground = [{', '.join(f'{chr(34)}{_hex(c)}{chr(34)}' for c in proposal.ground)}]   # colours that mean dry",
        *([f"frame = {proposal.frame}   # width of the line around the map, pixels"] if proposal.frame else []),
        "hide = []   # boxes within the map (row, column, rows, columns) that show something else",
        '# mask = "mask.png"   # not black where the rain is hidden',
        "# range_km = 240.0   # beyond it nothing is observed",
    ]
    if proposal.tolerance:
        lines.append(f"tolerance = {proposal.tolerance:g}   # of a colour, in RGB")
    lines += [
        "",
        "[radar]",
        f"centre = [{rows // 2}, {columns // 2}]   # row and column, within the map, of the radar's pixel: check",
        "pixel_km = 1.0   # edge of a pixel: check",
        f"position = [{position[0]}, {position[1]}]   # latitude, longitude of the radar"
        if position
        else "# position = [45.04, -76.12]   # latitude, longitude of the radar; or give --centre LAT,LON",
        "",
        "[[legend]]",
        'name = "rain"',
        f"edges = [{', '.join(f'{edge:g}' for edge in edges)}]   # mm/h, the lower end of each colour, "
        "light to heavy: as the legend says",
        f"colours = [{quoted}]",
    ]
    return "\n".join(lines) + "\n"


def draw(proposal: Proposal, picture: Path, to: Path) -> None:
    """Write a picture of what is taken for what beside the original."""
    stack, _ = _stack([picture], proposal)
    row, column, rows, columns = proposal.crop
    shown = np.empty((*proposal.size, 3), np.uint8)
    shown[:] = _DARK
    inside = stack[0, row : row + rows, column : column + columns]
    classes = np.full((rows, columns, 3), _MAGENTA, np.uint8)
    for colour in proposal.ground:
        classes[inside == colour] = _PALE
    for colour in proposal.colours:
        classes[inside == colour] = _rgb(colour)
    if edge := proposal.frame:
        classes[:edge] = classes[-edge:] = classes[:, :edge] = classes[:, -edge:] = _MAGENTA
    shown[row : row + rows, column : column + columns] = classes
    height, width = proposal.size
    strip = 46
    with Image.open(picture) as image:
        original = image.convert("RGB")
    page = Image.new("RGB", (2 * width + 10, height + strip), (255, 255, 255))
    page.paste(original, (0, 0))
    page.paste(Image.fromarray(shown), (width + 10, 0))
    pen = ImageDraw.Draw(page)
    step = min(34, (2 * width) // max(1, len(proposal.colours)))
    for i, colour in enumerate(proposal.colours):
        pen.rectangle((i * step + 4, height + 6, i * step + step, height + 22), fill=_rgb(colour), outline=(0, 0, 0))
        pen.text((i * step + 8, height + 26), str(i + 1), fill=(0, 0, 0))
    left = len(proposal.colours) * step + 16
    for text, fill in (("dry", _PALE), ("hides rain", _MAGENTA), ("outside", _DARK)):
        pen.rectangle((left, height + 6, left + 16, height + 22), fill=fill, outline=(0, 0, 0))
        pen.text((left + 20, height + 8), text, fill=(0, 0, 0))
        left += 96
    page.save(to)


def _stack(pictures: Sequence[Path], like: Proposal | None = None) -> tuple[Int[ndarray, "picture y x"], float]:
    """Return the pictures' colours, and the tolerance that those stored with loss need."""
    shown: list[ndarray] = []
    for path in pictures:
        indices, colours = read_picture(path)
        packed = colours[indices].astype(np.int32)
        if shown and packed.shape != shown[0].shape:
            sizes = " and ".join(f"{s.shape[1]}×{s.shape[0]}" for s in (shown[0], packed))
            raise SourceError(f"{path.name}: pictures of {sizes} pixels; a palette is for one kind.")
        shown.append(packed)
    if not shown:
        raise DamagedFile("No picture was given.")
    stack = np.stack(shown)
    if like is not None and like.tolerance:
        return _nearest(stack, np.array([*like.colours, *like.ground]), like.tolerance), like.tolerance
    if len(np.unique(stack[0])) <= MOST_COLOURS:
        return stack, 0.0
    tolerance = 24.0
    return _nearest(stack, _main_colours(stack), tolerance), tolerance


def _main_colours(stack: Int[ndarray, "picture y x"]) -> Int[ndarray, n]:
    """Return the colours around which those of pictures stored with loss gather, commonest first."""
    colours, counts = np.unique(stack, return_counts=True)
    order = np.argsort(-counts)
    kept: list[int] = []
    for colour in colours[order][:4096].tolist():
        if nearest(np.array([colour]), kept)[1][0] > FAR_APART and colour != TRANSPARENT:
            kept.append(colour)
        if len(kept) == 64:
            break
    return np.array(kept)


def _nearest(stack: ndarray, known: Int[ndarray, n], tolerance: float) -> ndarray:
    colours, inverse = np.unique(stack, return_inverse=True)
    return np.asarray(snapped(colours, known.tolist(), tolerance)[inverse].reshape(stack.shape))


def _legend(picture: Int[ndarray, "y x"], constant: Bool[ndarray, "y x"]) -> tuple[list[int], Box] | None:
    """Return the colours and the place of the longest row or column of boxes of one width, each of one colour."""
    boxes = _boxes(picture, constant)
    best: list[tuple[int, Box]] = []
    for along, across in ((0, 1), (1, 0)):  # a column of boxes, a row of boxes
        lines: dict[tuple[int, int], list[tuple[int, Box]]] = {}
        for colour, box in boxes:
            lines.setdefault((box[across], box[across + 2]), []).append((colour, box))
        for line in lines.values():
            line.sort(key=lambda item: item[1][along])
            chain = [line[0]]
            for before, after in itertools.pairwise(line):
                gap = after[1][along] - before[1][along] - before[1][along + 2]
                chain = [*chain, after] if 0 <= gap <= 6 and after[0] not in [c for c, _ in chain] else [after]
                if len(chain) > len(best):
                    best = chain
    if len(best) < FEWEST_IN_LEGEND:
        return None
    top, left = min(b[0] for _, b in best), min(b[1] for _, b in best)
    bottom, right = max(b[0] + b[2] for _, b in best), max(b[1] + b[3] for _, b in best)
    return [colour for colour, _ in best], (top, left, bottom - top, right - left)


def _boxes(picture: Int[ndarray, "y x"], constant: Bool[ndarray, "y x"]) -> list[tuple[int, Box]]:
    """Return the full rectangles of one colour, of the size of a legend's."""
    from scipy.ndimage import find_objects, label

    boxes = []
    colours, counts = np.unique(picture[constant], return_counts=True)
    for colour in colours[np.argsort(-counts)][:MOST_COLOURS].tolist():
        mask = (picture == colour) & constant
        labelled, count = label(mask)
        if count > 20_000:
            continue
        sizes = np.bincount(labelled.reshape(-1))
        for i, part in enumerate(find_objects(labelled), start=1):
            if part is None or not 24 <= sizes[i] <= 0.02 * picture.size:
                continue
            rows, columns = part[0].stop - part[0].start, part[1].stop - part[1].start
            if min(rows, columns) >= 4 and rows * columns == sizes[i]:
                boxes.append((colour, (part[0].start, part[1].start, rows, columns)))
    return boxes


def _map(picture: Int[ndarray, "y x"], legend: Box) -> Box:
    """Return what lies beside the legend's panel, as far as a side is of the panel's colour from edge to legend."""
    rows, columns = picture.shape
    top, left, height, _ = legend
    beside = picture[top : top + height, max(0, left - 3) : left]
    if beside.size == 0:
        return 0, 0, rows, columns
    values, counts = np.unique(beside, return_counts=True)
    panel = values[counts.argmax()]
    if left > columns * 0.6:
        return 0, 0, rows, _panel_start(panel == picture.T, left)
    if top > rows * 0.6:
        return 0, 0, _panel_start(picture == panel, top), columns
    return 0, 0, rows, columns


def _panel_start(panel: Bool[ndarray, "lines along"], inside: int) -> int:
    """Return the first of the lines, up to the one that is inside, that are largely of the panel's colour."""
    first = inside
    while first > 0 and panel[first - 1].mean() > 0.4:
        first -= 1
    return first


def _light_first(colours: list[int], share: dict[int, float]) -> list[int]:
    """Return a legend's colours from light rain to heavy: there is more of the light."""
    half = len(colours) // 2
    first, last = (sum(share.get(c, 0.0) for c in part) for part in (colours[:half], colours[-half:]))
    return colours if first >= last else colours[::-1]


def _moving(maps: Int[ndarray, "picture y x"], share: dict[int, float]) -> list[int]:
    """Return the colours that come and go, commonest first."""
    if len(maps) < 2:
        return []
    changed = (maps != maps[0]).any(axis=0)
    found = []
    for colour in sorted(share, key=lambda c: -share[c]):
        here = maps == colour
        always = here.all(axis=0).sum()
        if here.sum() >= 16 and (here & changed).sum() > 0.9 * here.sum() and always < 0.02 * here[0].size:
            found.append(colour)
    return found[:254]


def _broad(mask: Bool[ndarray, "y x"]) -> bool:
    inner = mask[1:-1, 1:-1] & mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
    return bool(inner.sum() > 0.4 * max(1, mask.sum()))


def _rgb(colour: int) -> tuple[int, int, int]:
    return colour >> 16 & 255, colour >> 8 & 255, colour & 255


def _hex(colour: int) -> str:
    return "transparent" if colour == TRANSPARENT else f"{colour:06x}"


def described(proposal: Proposal) -> dict[str, Any]:
    """Return the proposal as plain values."""
    return {
        "size": list(proposal.size),
        "crop": list(proposal.crop),
        "colours": [_hex(colour) for colour in proposal.colours],
        "ground": [_hex(colour) for colour in proposal.ground],
        "legend": list(proposal.legend) if proposal.legend else None,
        "frame": proposal.frame,
        "tolerance": proposal.tolerance,
        "notes": list(proposal.notes),
    }
