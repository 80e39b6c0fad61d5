"""Environment Canada's pictures: what is rain, what is ground, and what hides the rain."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastrain.core.errors import DamagedFile, SourceError, UnknownTime
from fastrain.core.levels import NOT_OBSERVED
from fastrain.sources import ReadOptions, read_frames
from fastrain.sources.palette import load_palette
from fastrain.sources.pictures import learn as learn_by
from fastrain.sources.sites import code_in_name, site_of

learn = partial(learn_by, "eccc")
LAND, WATER, LINE, RAIN = (0x98, 0x98, 0x66), (0x33, 0x33, 0x66), (0, 0, 0), (0x99, 0xCC, 0xFF)


def picture(paint, path: Path) -> Path:
    """A picture of our own: land, a legend, and what `paint` adds to the map."""
    rgb = np.zeros((480, 580, 3), np.uint8)
    rgb[:, :480] = LAND
    for i, colour in enumerate(load_palette("eccc").levels):
        rgb[100 + 10 * i : 110 + 10 * i, 515:535] = (colour >> 16, colour >> 8 & 255, colour & 255)
    paint(rgb)
    Image.fromarray(rgb).quantize(256, dither=Image.Dither.NONE).save(path)
    return path


def rgb_of(path: Path) -> np.ndarray:
    """The picture's colours, (y, x, 3)."""
    with Image.open(path) as image:
        return np.array(image.convert("RGB"))


def packed_of(path: Path) -> np.ndarray:
    """The picture's colours, (y, x), as 0xRRGGBB."""
    rgb = rgb_of(path).astype(int)
    return rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2]


def level_of(path: Path, **options) -> np.ndarray:
    (frame,) = read_frames(path, "eccc", ReadOptions(centre=(45.0, -76.0), **options))
    return frame.level


def test_rain_land_water_and_lines_are_told_apart(tmp_path):
    def paint(rgb):
        rgb[200:210, 200:210] = WATER
        rgb[220:230, 220:230] = RAIN
        rgb[300, 100:400] = LINE

    level = level_of(picture(paint, tmp_path / "202501010000_X.gif"))
    assert (level[200:210, 200:210] == 0).all()
    assert (level[220:230, 220:230] == 1).all()
    assert (level[300, 100:400] == NOT_OBSERVED).all()
    assert level[299, 250] == 0


def test_the_frame_around_the_map_is_hidden_though_it_has_a_rain_colour(franktown):
    path = franktown / "XFT_2012_06_03_17_00.GIF"
    red = (rgb_of(path) == (255, 0, 0)).all(-1)
    assert red[:, 0].mean() > 0.9
    level = level_of(path)
    for edge in (level[0], level[-1], level[:, 0], level[:, -1]):
        assert (edge == NOT_OBSERVED).all()


def test_what_lines_hide_is_not_observed_in_any_picture_though_rain_shines_through_in_one(tmp_path):
    def with_line(rgb):
        rgb[250, 100:400] = LINE

    def with_rain_over_it(rgb):
        rgb[240:260, 200:220] = RAIN

    pictures = [picture(with_line, tmp_path / f"2025010100{i}0_X.gif") for i in range(3)]
    pictures.append(picture(with_rain_over_it, tmp_path / "202501010030_X.gif"))
    background = learn(pictures, None, ReadOptions())
    level = level_of(pictures[-1], background=background)
    assert (level[250, 200:220] == NOT_OBSERVED).all()
    assert (level[249, 200:220] == 1).all()


def test_what_is_painted_in_a_rain_colour_in_every_picture_of_a_day_is_hidden(tmp_path):
    def label(rgb):
        rgb[330:335, 100:140] = RAIN

    pictures = [picture(label, tmp_path / f"20250101{hour:02d}00_X.gif") for hour in range(24)]
    background = learn(pictures, None, ReadOptions())
    assert background.hidden[330:335, 100:140].all()
    few = learn(pictures[:3], None, ReadOptions())
    assert not few.hidden[330:335, 100:140].any()


def test_a_background_given_by_file_is_taken_instead_of_the_consensus(tmp_path):
    def line(rgb):
        rgb[300, 100:400] = LINE

    dry = picture(line, tmp_path / "background.gif")
    wet = picture(lambda rgb: None, tmp_path / "202501010000_X.gif")
    background = learn([wet], dry, ReadOptions())
    assert (level_of(wet, background=background)[300, 100:400] == NOT_OBSERVED).all()


def test_a_new_colour_of_land_is_learned_as_ground_but_rain_of_another_palette_is_refused(tmp_path):
    def other_land(rgb):
        rgb[:, :480][(rgb[:, :480] == LAND).all(-1)] = (0xAA, 0xA0, 0x70)

    assert level_of(picture(other_land, tmp_path / "202501010000_X.gif"))[100, 240] == 0


@pytest.mark.parametrize(
    ("name", "edges"),
    [
        ("202508210954_CASFT_CAPPI_1.5_RAIN_A11Y.gif", (0.1, 1, 4, 12, 24, 50, 100, 200)),
        ("202508210954_CASFT_CAPPI_1.0_SNOW_A11Y.gif", (0.1, 0.2, 0.5, 1, 2, 4, 7.5, 20)),
        ("202508210954_CASFT_CAPPI_1.5_RAIN.gif", (0.1, 1, 2, 4, 8, 12, 16, 24, 32, 50, 64, 100, 125, 200)),
    ],
)
def test_each_legend_gives_its_own_levels(data, name, edges):
    path = data / "radar/eccc_other" / name
    (frame,) = read_frames(path, "eccc")
    assert frame.table.lower == edges
    greens = {"99ff99": 1, "33ff33": 2, "009900": 3} if "A11Y" in name else {"99ccff": 1, "0099ff": 2}
    packed = packed_of(path)[:480, :480]
    seen = frame.level != NOT_OBSERVED
    for colour, level in greens.items():
        here = (packed == int(colour, 16)) & seen
        assert here.any() or level > 2
        assert (frame.level[here] == level).all()


def test_the_same_weather_in_the_accessible_and_the_plain_palette_agrees_at_their_common_edges(data):
    other = data / "radar/eccc_other"
    (plain,) = read_frames(other / "202508210954_CASFT_CAPPI_1.5_RAIN.gif", "eccc")
    (accessible,) = read_frames(other / "202508210954_CASFT_CAPPI_1.5_RAIN_A11Y.gif", "eccc")
    both = (plain.level != NOT_OBSERVED) & (accessible.level != NOT_OBSERVED)
    assert both.mean() > 0.7
    for edge in (0.1, 1, 4):
        a, b = (f.level[both] >= f.table.first_level(edge) for f in (plain, accessible))
        assert (a == b).mean() > 0.999


def test_snow_in_fourteen_colours_is_told_by_its_title_and_colours_without_a_label_share_the_one_below(tmp_path, data):
    rgb = rgb_of(data / "radar/eccc_other/202508292100_CASFT_CAPPI_1.5_RAIN.gif")
    snow = rgb_of(data / "radar/eccc_other/202508210954_CASFT_CAPPI_1.0_SNOW_A11Y.gif")
    rgb[108:130, 480:] = snow[108:130, 480:]
    path = tmp_path / "202508292100_CASFT.gif"
    Image.fromarray(rgb).quantize(256, dither=Image.Dither.NONE).save(path)
    (frame,) = read_frames(path, "eccc")
    assert frame.table.lower == (0.1, 0.2, 0.5, 1, 2, 4, 7.5, 20)
    packed, seen = packed_of(path)[:480, :480], frame.level != NOT_OBSERVED
    for colour, level in {0x99CCFF: 1, 0x0099FF: 2, 0x00FF66: 2, 0x00CC00: 3, 0x009900: 3}.items():
        here = (packed == colour) & seen
        assert here.any()
        assert (frame.level[here] == level).all()


def test_a_legend_of_unknown_colours_is_refused_and_not_misread(tmp_path):
    def other_legend(rgb):
        rgb[:, 480:] = 255 - rgb[:, 480:]

    path = picture(other_legend, tmp_path / "202501010000_X.gif")
    with pytest.raises(DamagedFile, match="another palette"):
        level_of(path)


def test_beyond_the_range_nothing_is_observed_and_all_real_rain_lies_within(data):
    rows, columns = np.ogrid[:480, :480]
    distance = np.hypot(rows - 240, columns - 240)
    for path in sorted((data / "radar/eccc_2025-09-02/cappi").glob("*0142*")):
        (frame,) = read_frames(path, "eccc", ReadOptions(centre=(50.0, -100.0)))
        assert (frame.level[distance > 240.5] == NOT_OBSERVED).all()
        rgb = rgb_of(path)[1:479, 1:479].astype(int)
        packed = rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2]
        rain = np.isin(packed, [c for c in load_palette("eccc").levels if c != 0xFF0000])
        assert rain[distance[1:479, 1:479] > 241.5].sum() == 0


def test_the_ancestor_sees_the_same_rain_where_we_observe(data):
    """The ancestor's own reading of two pictures; it knew no 'not observed', so only observed pixels are compared."""
    pairs = {
        "XFT_2012_06_03_17_00.GIF": "franktown_201206031700",
        "202508292100_CASFT_CAPPI_1.5_RAIN.gif": "franktown_202508292100",
    }
    for name, held in pairs.items():
        level = level_of(data / "radar/eccc_other" / name)
        theirs = np.load(data / "rpbin" / f"{held}.npz")["max_1"]
        seen = level != NOT_OBSERVED
        assert seen.mean() > 0.7
        assert (level[seen] == theirs[seen]).mean() > 0.999


@pytest.mark.parametrize(
    ("code", "rows", "columns"),
    [
        # The 49th and 45th parallels and the 110th meridian are drawn as straight lines in the pictures: the rows and
        # columns that hold them, read off the pictures.
        ("CASSS", {49.0: 392}, {}),
        ("CASAG", {49.0: 242}, {}),
        ("CASSU", {49.0: 386}, {-110.0: 254}),
        ("CASFT", {45.0: 245}, {}),
        ("CASCL", {}, {-110.0: 244}),
        ("CASFM", {}, {-110.0: 315}),
        ("CASHP", {49.0: 298}, {}),
        ("CASSF", {45.0: 401}, {}),
    ],
)
def test_the_borders_drawn_in_the_pictures_lie_where_the_grid_says(data, code, rows, columns):
    path = next((data / "radar/eccc_2025-09-02/dpqpe").glob(f"20250902T0142Z*{code}*"))
    (frame,) = read_frames(path, "eccc")
    site = site_of(code)
    black = (rgb_of(path)[:, :480] == 0).all(-1)
    for latitude, row in rows.items():
        assert black[row].sum() > 120
        assert abs(frame.grid.pixel(latitude, site.longitude)[0] - row) <= 1
    for longitude, column in columns.items():
        assert black[:, column].sum() > 120
        assert abs(frame.grid.pixel(site.latitude, longitude)[1] - column) <= 1


def test_every_radar_of_the_folder_makes_an_archive_without_being_told_where_it_stands(data):
    paths = sorted((data / "radar/eccc_2025-09-02").rglob("*0142*.gif"))
    codes = {code_in_name(path.name) for path in paths}
    assert len(codes) == 23
    for code in codes:
        assert site_of(code) is not None, code


def test_an_unknown_radar_asks_for_its_place(franktown, tmp_path):
    unknown = tmp_path / "202509020142_CASZZ_CAPPI_1.5_RAIN.gif"
    unknown.write_bytes((franktown / "XFT_2012_06_03_17_00.GIF").read_bytes())
    with pytest.raises(SourceError, match="CASZZ is not in the table; give it: --centre"):
        list(read_frames(unknown, "eccc"))


def test_a_picture_without_a_time_asks_for_a_pattern(franktown, tmp_path):
    nameless = tmp_path / "CASFT_latest.gif"
    nameless.write_bytes((franktown / "XFT_2012_06_03_17_00.GIF").read_bytes())
    with pytest.raises(UnknownTime, match="--time-pattern"):
        list(read_frames(nameless, "eccc"))


@pytest.mark.parametrize("size", [(480, 480), (100, 100), (1160, 960)])
def test_a_picture_of_another_size_is_refused_with_both_sizes(tmp_path, size):
    path = tmp_path / "202501010000_CASFT.gif"
    Image.new("P", size).save(path)
    with pytest.raises(DamagedFile, match=f"{size[0]}×{size[1]} pixels, expected 580×480"):
        list(read_frames(path, "eccc"))


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("202509020142_CASFT_CAPPI_1.5_RAIN.gif", "CASFT"),
        ("20250902T0142Z_MSC_Radar-DPQPE_CASFT_Rain.gif", "CASFT"),
        ("XFT_2012_06_03_17_00.GIF", "XFT"),
        ("franktown_201206031700.bin", "CASFT"),
        ("radar_201206031700.bin", None),
    ],
)
def test_the_radar_is_read_from_the_name(name, code):
    assert code_in_name(name) == code
