import numpy as np
import pytest

from fastrain.core.errors import PlaceError
from fastrain.core.grid import Grid, parse_pair

STEREO = "+proj=stere +lat_0=90 +lon_0=0 +lat_ts=60 +a=6378137 +b=6356752 +units=m"
KNMI = Grid(STEREO, 500.0, -3_650_500.0, 1000.0, 1000.0, (765, 700))


def test_de_bilt_lies_where_knmi_says():
    # The radar of De Bilt, as the files give it; its pixel by KNMI's offsets and the projection, by hand:
    # x = 369.6 km → column 369, y = −4077.6 km → row 4077.6 − 3650 = 427.
    assert KNMI.pixel(52.103, 5.179) == (427, 369)


def test_a_pixel_and_its_place_are_each_others_inverse():
    for row, column in ((0, 0), (764, 699), (400, 13)):
        assert KNMI.pixel(*KNMI.place(row, column)) == (row, column)


def test_the_corners_knmi_publishes_are_the_corners_of_the_grid():
    # geo_product_corners of the files: lower left 0.0 E 49.362 N, upper right 10.856 E 55.389 N.
    south_west, north_east = KNMI.place(764.5, -0.5), KNMI.place(-0.5, 699.5)
    assert south_west == pytest.approx((49.362, 0.0), abs=2e-3)
    assert north_east == pytest.approx((55.389, 10.856), abs=2e-3)


def test_a_place_outside_is_refused_with_what_is_covered():
    with pytest.raises(PlaceError, match=r"outside the radar's picture.*covers about 4[89]"):
        KNMI.pixel(40.0, 5.0)
    with pytest.raises(PlaceError, match="latitude first"):
        KNMI.pixel(152.0, 5.0)


def test_a_coarse_cell_lies_in_the_middle_of_its_pixels():
    coarse = KNMI.coarsened(4)
    assert coarse.shape == (192, 175)
    np.testing.assert_allclose(coarse.x[1], KNMI.x[4:8].mean())
    np.testing.assert_allclose(coarse.y[1], KNMI.y[4:8].mean())
    assert coarse.cell_km == pytest.approx(4.0)


def test_a_picture_around_a_radar_has_it_in_its_centre_pixel_and_north_up():
    grid = Grid.around(45.04101, -76.11617, 1.0, (480, 480), (240, 240))
    assert grid.pixel(45.04101, -76.11617) == (240, 240)
    # A degree of latitude is 111.19 km on the sphere: 46.04 N stands 111 rows above the radar.
    assert grid.pixel(46.04101, -76.11617) == (129, 240)
    # A degree of longitude at this latitude is 111.19 · cos 45.04° = 78.57 km.
    assert grid.pixel(45.04101, -75.11617) == (240, 319)


def test_a_grid_comes_back_from_its_attributes():
    assert Grid.from_attributes(KNMI.as_attributes()).identity == KNMI.identity
    assert KNMI.coarsened(2).identity != KNMI.identity


def test_cf_names_the_projection():
    found = KNMI.cf_coordinates()
    assert found["crs"][1]["grid_mapping_name"] == "polar_stereographic"
    assert found["y"][1]["standard_name"] == "projection_y_coordinate"
    np.testing.assert_array_equal(found["x"][0], KNMI.x)


def test_equal_steps_of_latitude_and_longitude_are_degrees_in_cf():
    grid = Grid.around(45.0, -76.0, 1.0, (480, 480), (240, 240))
    found = grid.cf_coordinates()
    assert found["crs"][1]["grid_mapping_name"] == "latitude_longitude"
    assert found["y"][1] == {"standard_name": "latitude", "units": "degrees_north", "axis": "Y"}
    assert (found["y"][0][240], found["x"][0][240]) == pytest.approx((45.0, -76.0))
    assert grid.pixel(found["y"][0][10], found["x"][0][470]) == (10, 470)


@pytest.mark.parametrize("text", ["52.1", "a,b", "1,2,3", "nan,5", "", "52.1;5.2"])
def test_two_numbers_are_two_numbers(text):
    with pytest.raises(PlaceError, match="two numbers"):
        parse_pair(text, "--place")


def test_grids_overlap_where_they_show_the_same_ground():
    assert KNMI.overlaps(Grid(STEREO, 200_500.0, -3_950_500.0, 1000.0, 1000.0, (50, 50)))
    assert not KNMI.overlaps(Grid.around(45.0, -76.0, 1.0, (480, 480), (240, 240)))
