"""Palettes as data: what a user writes is checked, what is proposed is right, what is kept reads later pictures."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastrain.archive.store import Archive
from fastrain.core.errors import ArchiveError, SettingError, SourceError
from fastrain.core.levels import NOT_OBSERVED
from fastrain.ingest.ingest import IngestSettings, ingest
from fastrain.sources import ReadOptions, read_frames
from fastrain.sources.image_file import TRANSPARENT
from fastrain.sources.palette import load_palette, palette_of, read_palette
from fastrain.sources.propose import as_toml, draw, propose

LAND, WATER, LINE = 0xE8E4D8, 0xA8C8E8, 0x404040
RAIN = (0xB0E0FF, 0x60A0FF, 0x2040D0, 0xFFE040, 0xFF3020)
EDGES = (0.1, 0.5, 2, 8, 30)
PALETTE = {
    "size": [120, 200],
    "crop": [0, 0, 120, 140],
    "ground": [f"{LAND:06x}", f"{WATER:06x}"],
    "radar": {"centre": [60, 70], "pixel_km": 2.0, "position": [48.0, 11.0]},
    "legend": [{"name": "rain", "edges": list(EDGES), "colours": [f"{c:06x}" for c in RAIN]}],
}


def rgb(colour: int) -> tuple[int, int, int]:
    return colour >> 16, colour >> 8 & 255, colour & 255


def paint(seed: int) -> np.ndarray:
    """A picture of nobody's service: land, a lake, a border, a legend at the right, and rain that moves."""
    picture = np.full((120, 200, 3), 255, np.uint8)
    picture[:, :140] = rgb(LAND)
    picture[80:110, 10:60] = rgb(WATER)
    y, x = np.mgrid[:120, :140]
    distance = np.hypot(y - 40 - 6 * seed, x - 50 - 9 * seed)
    for radius, colour in zip((26, 20, 14, 9, 4), RAIN, strict=True):
        picture[:, :140][distance < radius] = rgb(colour)
    picture[:, 100] = rgb(LINE)
    for i, colour in enumerate(RAIN[::-1]):
        picture[20 + 12 * i : 32 + 12 * i, 160:172] = rgb(colour)
    return picture


def saved(folder: Path, count: int = 4, suffix: str = "png", **options) -> list[Path]:
    folder.mkdir(exist_ok=True)
    paths = [folder / f"radar_20240701_12{10 * i:02d}.{suffix}" for i in range(count)]
    for i, path in enumerate(paths):
        Image.fromarray(paint(i)).save(path, **options)
    return paths


def expected(seed: int) -> np.ndarray:
    packed = paint(seed)[:, :140].astype(int)
    packed = packed[..., 0] << 16 | packed[..., 1] << 8 | packed[..., 2]
    level = np.full(packed.shape, NOT_OBSERVED, np.uint8)
    for value, colours in enumerate([(LAND, WATER), *[(c,) for c in RAIN]]):
        level[np.isin(packed, colours)] = value
    return level


@pytest.mark.parametrize(
    ("suffix", "options", "tolerance"),
    [("png", {}, 0), ("gif", {}, 0), ("webp", {"lossless": True}, 0), ("webp", {"quality": 95}, 40)],
)
def test_pictures_of_ones_own_are_read_by_their_palette_in_every_format(tmp_path, suffix, options, tolerance):
    paths = saved(tmp_path / "in", suffix=suffix, **options)
    palette = palette_of({**PALETTE, "tolerance": tolerance}, "mine.toml")
    for i, path in enumerate(paths):
        (frame,) = read_frames(path, "picture", ReadOptions(palette=palette))
        agreed = frame.level == expected(i)
        assert agreed.mean() > (0.97 if tolerance else 0.9999)
        assert (frame.level[:, 100] == NOT_OBSERVED).all() or tolerance
        assert frame.table.lower == EDGES
        assert frame.grid.pixel(48.0, 11.0) == (60, 70)


def test_a_proposal_finds_legend_map_ground_and_order(tmp_path):
    paths = saved(tmp_path / "in")
    proposal = propose(paths)
    assert proposal.colours == RAIN
    assert set(proposal.ground) == {LAND, WATER}
    assert proposal.crop == (0, 0, 120, 140)
    assert proposal.legend == (20, 160, 60, 12)


def test_a_proposal_with_its_rates_written_in_reads_the_pictures(tmp_path):
    paths = saved(tmp_path / "in")
    (tmp_path / "p.toml").write_text(as_toml(propose(paths), "p", EDGES, (48.0, 11.0)))
    palette = read_palette(tmp_path / "p.toml")
    (frame,) = read_frames(paths[1], "picture", ReadOptions(palette=palette))
    np.testing.assert_array_equal(frame.level, expected(1))


def test_a_proposal_without_rates_waits_for_them(tmp_path):
    paths = saved(tmp_path / "in")
    (tmp_path / "p.toml").write_text(as_toml(propose(paths), "p", (), None))
    with pytest.raises(SettingError, match="edges is empty; write in the lower end"):
        read_palette(tmp_path / "p.toml")


def test_a_line_of_a_colour_of_rain_around_the_map_is_no_rain(tmp_path):
    paths = saved(tmp_path / "in")
    for path in paths:
        with Image.open(path) as image:
            picture = np.array(image)
        picture[:2, 30:140] = picture[-2:, :140] = picture[:120, :2] = picture[:120, 138:140] = rgb(RAIN[3])
        Image.fromarray(picture).save(path)
    proposal = propose(paths)
    assert proposal.frame == 2
    assert propose(saved(tmp_path / "none")).frame == 0
    (tmp_path / "p.toml").write_text(as_toml(proposal, "p", EDGES, (48.0, 11.0)))
    (frame,) = read_frames(paths[1], "picture", ReadOptions(palette=read_palette(tmp_path / "p.toml")))
    for edge in (frame.level[:2], frame.level[-2:], frame.level[:, :2], frame.level[:, 138:]):
        assert (edge == NOT_OBSERVED).all()
    np.testing.assert_array_equal(frame.level[2:-2, 2:138], expected(1)[2:-2, 2:138])
    draw(proposal, paths[0], tmp_path / "shown.png")
    with Image.open(tmp_path / "shown.png") as image:
        assert tuple(np.array(image.convert("RGB"))[60, 211]) == (230, 0, 200)


def test_without_a_legend_rain_is_what_comes_and_goes(tmp_path):
    paths = saved(tmp_path / "in")
    for path in paths:
        with Image.open(path) as image:
            image.crop((0, 0, 140, 120)).save(path)
    proposal = propose(paths)
    assert set(proposal.colours) == set(RAIN)
    assert any("look at the order" in note for note in proposal.notes)
    with pytest.raises(SourceError, match="different weather"):
        propose(paths[:1])


@pytest.mark.parametrize(
    ("name", "edges"),
    [("202508292100_CASFT_CAPPI_1.5_RAIN.gif", 14), ("202508210954_CASFT_CAPPI_1.5_RAIN_A11Y.gif", 8)],
)
def test_environment_canadas_legends_are_found_as_the_package_has_them(data, name, edges):
    proposal = propose([data / "radar/eccc_other" / name])
    known = load_palette("eccc").legends[0 if edges == 14 else 1]
    assert [known.levels[colour] for colour in proposal.colours] == list(range(1, edges + 1))
    assert set(proposal.ground) <= set(load_palette("eccc").ground)


def test_the_picture_of_a_proposal_shows_rain_ground_and_what_hides_it(tmp_path):
    paths = saved(tmp_path / "in")
    draw(propose(paths), paths[0], tmp_path / "shown.png")
    with Image.open(tmp_path / "shown.png") as image:
        shown = np.array(image.convert("RGB"))
    right = shown[:120, 210:350]
    assert tuple(right[40, 50]) == rgb(RAIN[4])
    assert tuple(right[50, 100]) == (230, 0, 200)
    assert tuple(right[5, 5]) == (232, 230, 222)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"grond": []}, "unknown key 'grond'; did you mean 'ground'?"),
        ({"ground": []}, "ground is empty"),
        ({"crop": [0, 0, 500, 140]}, "reaches out of the picture"),
        ({"size": [120]}, "mine.toml"),
        ({"size": [10**6, 10**6], "crop": [0, 0, 1, 1]}, "hold no picture"),
        ({"legend": [{"edges": [0.1], "colours": ["b0e0ff", "60a0ff"]}]}, "2 colours but 1 edges"),
        ({"legend": [{"edges": [0.5, 0.1], "colours": ["b0e0ff", "60a0ff"]}]}, "must rise"),
        ({"legend": [{"edges": [0.1, 0.5], "colours": ["b0e0ff", "b0e0ff"]}]}, "stands twice"),
        ({"legend": [{"edges": [0.1], "colours": ["blue"]}]}, "six hexadecimal digits"),
        ({"legend": []}, r"needs a \[\[legend\]\]"),
        ({"radar": {}}, r"needs \[radar\]"),
        ({"radar": {"centre": [60, 70], "pixel_km": 2.0, "position": [480.0, 11.0]}}, "expected latitude"),
        ({"radar": {"center": [60, 70], "pixel_km": 2.0}}, "did you mean 'centre'"),
    ],
)
def test_a_palette_that_makes_no_sense_is_refused_with_the_key(change, said):
    with pytest.raises(SettingError, match=said):
        palette_of({**PALETTE, **change}, "mine.toml")


def test_the_packages_palettes_are_such_files():
    for name in ("eccc", "mch"):
        assert load_palette(name).name == name


def test_a_mask_and_a_crop_are_kept_with_the_archive(tmp_path):
    paths = saved(tmp_path / "in")
    mask = np.zeros((120, 200), np.uint8)
    mask[30:40, 20:50] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    palette = palette_of(PALETTE, "mine.toml").cropped((10, 20, 90, 100))
    options = ReadOptions(palette=palette, mask=tmp_path / "mask.png")
    settings = IngestSettings(format="picture", reading=options)
    ingest(paths[:3], tmp_path / "a", settings)
    archive = Archive.open(tmp_path / "a")
    level = archive.level(*archive.span)
    assert level.shape == (3, 90, 100)
    whole = np.stack([expected(i)[10:100, 20:120] for i in range(3)])
    whole[:, 20:30, :30] = NOT_OBSERVED
    np.testing.assert_array_equal(level, whole)
    assert archive.schema.grid.pixel(48.0, 11.0) == (50, 50)
    report = ingest(paths, tmp_path / "a", IngestSettings())
    assert (report.counts["unchanged"], report.counts["written"]) == (3, 1)
    with pytest.raises(ArchiveError, match="palette was fixed"):
        ingest(
            paths,
            tmp_path / "a",
            IngestSettings(format="picture", reading=ReadOptions(palette=palette_of(PALETTE, "x"))),
        )


def test_a_grid_can_be_named_instead_of_a_radar():
    data = {k: v for k, v in PALETTE.items() if k != "radar"}
    data["grid"] = {"crs": "EPSG:3857", "west": 1_000_000.0, "north": 6_500_000.0, "step": 2000.0}
    palette = palette_of(data, "mine.toml")
    assert palette.grid().shape == (120, 140)
    moved = palette.cropped((10, 20, 50, 50)).grid()
    assert (moved.west, moved.north) == (1_040_000.0, 6_480_000.0)


def test_a_proposals_file_is_toml_that_says_what_was_found(tmp_path):
    said = tomllib.loads(as_toml(propose(saved(tmp_path / "in")), "p", EDGES, None))
    assert said["legend"][0]["edges"] == list(EDGES)
    assert said["size"] == [120, 200]


def test_transparency_is_told_from_black_whatever_the_tolerance():
    data = {**PALETTE, "ground": ["transparent"], "tolerance": 24}
    palette = palette_of(data, "mine.toml")
    colours = np.array([TRANSPARENT, 0x000000, 0x050505, RAIN[0], RAIN[0] - 3])
    level = palette.lookup(colours, palette.legends[0], palette.ground)
    assert level.tolist() == [0, NOT_OBSERVED, NOT_OBSERVED, 1, 1]


def test_a_pixel_size_that_is_given_is_taken_and_refused_where_the_grid_is_named(tmp_path):
    (path, *_) = saved(tmp_path / "in")
    palette = palette_of(PALETTE, "mine.toml")
    (frame,) = read_frames(path, "picture", ReadOptions(palette=palette, pixel_km=0.5))
    assert frame.grid.step_x == 500.0
    with pytest.raises(SettingError, match="--pixel-size 0"):
        list(read_frames(path, "picture", ReadOptions(palette=palette, pixel_km=0.0)))
    data = {k: v for k, v in PALETTE.items() if k != "radar"}
    data["grid"] = {"crs": "EPSG:3857", "west": 1e6, "north": 6.5e6, "step": 2000.0}
    with pytest.raises(SettingError, match="names its own grid"):
        list(read_frames(path, "picture", ReadOptions(palette=palette_of(data, "x"), pixel_km=0.5)))
