from datetime import UTC, datetime, timedelta

import pytest

from fastrain.core.errors import SettingError, UnknownTime
from fastrain.core.time import TimeAxis, cadence_of, parse_time, show_time, show_times, time_in_name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("202509020142_CASFT_CAPPI_1.5_RAIN.gif", datetime(2025, 9, 2, 1, 42, tzinfo=UTC)),
        ("20250902T0142Z_MSC_Radar-DPQPE_CASFT_Rain.gif", datetime(2025, 9, 2, 1, 42, tzinfo=UTC)),
        ("XFT_PRECIP_RAIN_2013_08_08_03_30.GIF", datetime(2013, 8, 8, 3, 30, tzinfo=UTC)),
        ("RAD_NL25_RAP_5min_201008260005.h5", datetime(2010, 8, 26, 0, 5, tzinfo=UTC)),
        ("66_20201031_000000.prcp-c10.nc", datetime(2020, 10, 31, tzinfo=UTC)),
        ("leap_202402290000.gif", datetime(2024, 2, 29, tzinfo=UTC)),
    ],
)
def test_the_time_is_read_from_the_names_that_services_give(name, expected):
    assert time_in_name(name) == expected


@pytest.mark.parametrize("name", ["radar.gif", "202502300000.gif", "1234567890123456789.gif", "202513010000.gif"])
def test_a_name_without_a_real_date_is_said_to_have_none(name):
    with pytest.raises(UnknownTime, match="--time-pattern"):
        time_in_name(name)


def test_a_pattern_of_ones_own_is_followed_to_the_letter():
    assert time_in_name("radar-01.07.2024-1205.png", "%d.%m.%Y-%H%M") == datetime(2024, 7, 1, 12, 5, tzinfo=UTC)
    assert time_in_name("AQC151351545F.gif", "%y%j%H%M") == datetime(2015, 5, 15, 15, 45, tzinfo=UTC)
    assert time_in_name("2024-366 2350", "%Y-%j %H%M") == datetime(2024, 12, 31, 23, 50, tzinfo=UTC)
    with pytest.raises(UnknownTime):
        time_in_name("2023-366 2350", "%Y-%j %H%M")
    with pytest.raises(SettingError, match="each once"):
        time_in_name("x", "%Y%m%d")


def test_a_slot_never_moves_whatever_comes_before_or_after():
    axis = TimeAxis.through(datetime(2024, 7, 1, 12, 1, tzinfo=UTC), timedelta(minutes=10))
    index, offset = axis.slot(datetime(2024, 7, 1, 12, 12, tzinfo=UTC))
    assert axis.time(index) == datetime(2024, 7, 1, 12, 11, tzinfo=UTC)
    assert offset == timedelta(minutes=1)
    assert axis.slot(datetime(2004, 7, 1, 12, 11, tzinfo=UTC))[1] == timedelta(0)
    assert axis.origin.year in (1969, 1970)


def test_daylight_saving_does_not_touch_utc():
    assert parse_time("2024-03-31T03:30+02:00") == datetime(2024, 3, 31, 1, 30, tzinfo=UTC)
    assert parse_time("2024-03-31T01:30") == datetime(2024, 3, 31, 1, 30, tzinfo=UTC)
    with pytest.raises(SettingError, match="like 2024"):
        parse_time("yesterday")


def test_the_cadence_is_the_commonest_step_even_across_years():
    start = datetime(2013, 8, 8, 3, 30, tzinfo=UTC)
    times = [start + timedelta(minutes=10 * i) for i in range(4)] + [start + timedelta(days=4000)]
    assert cadence_of(times) == timedelta(minutes=10)
    assert cadence_of(times[:1]) is None


def test_a_gap_is_named_shortly():
    start = datetime(2024, 7, 1, 11, 10, tzinfo=UTC)
    assert show_times([start, start + timedelta(minutes=10)]) == "2024-07-01T11:10Z and 11:20Z"
    assert show_time(start) == "2024-07-01T11:10Z"
    assert "(9 frames)" in show_times([start + timedelta(minutes=10 * i) for i in range(9)])


@pytest.mark.parametrize("minutes", [0.1, 0, -5, 1000])
def test_an_impossible_cadence_is_refused(minutes):
    with pytest.raises(SettingError, match="cadence"):
        TimeAxis(datetime(1970, 1, 1, tzinfo=UTC), timedelta(minutes=minutes))
