"""Forecasts: chances where the radar sees, clear words where it does not."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
import synthetic

import fastrain
from fastrain.archive.store import Archive
from fastrain.archive.writer import writing
from fastrain.core.errors import GapError, NotObserved, PlaceError
from fastrain.rain.forecast import at_place, forecast_grid, light, write_netcdf


@pytest.fixture(scope="module")
def chances(run):
    return forecast_grid(run, run.archive())


def test_every_cell_has_chances_that_fall_with_the_threshold(chances, run):
    values = chances["chance"].values
    assert values.shape == (len(run.layout.periods), len(run.thresholds), 64, 64)
    assert ((values >= 0) & (values <= 1)).all()
    assert (np.diff(values, axis=1) <= 1e-6).all()


def test_times_are_issue_and_ends_of_periods(chances, moving):
    archive = Archive.open(moving)
    last = archive.schema.axis.time(archive.span[1] - 1)
    assert str(chances["issue_time"].values)[:16] == last.strftime("%Y-%m-%dT%H:%M")
    lead = (chances["valid_time"].values - chances["issue_time"].values) / np.timedelta64(1, "m")
    assert lead.tolist() == [10, 20, 30, 40, 50, 60]


def test_a_place_reads_its_own_cell_by_coordinate_and_by_pixel(chances, moving):
    grid = Archive.open(moving).schema.grid
    latitude, longitude = grid.place(40, 13)
    there = at_place(chances, grid, grid.pixel(latitude, longitude))
    assert there.cell == (40, 13)
    by_coordinate = chances["chance"].sel(y=latitude, x=longitude, method="nearest").values
    for p, period in enumerate(there.periods):
        assert list(period.chances.values()) == pytest.approx(by_coordinate[p].tolist(), abs=1e-4)
        assert period.valid_time - there.issue_time == timedelta(minutes=period.end_min)
        assert period.lights == {t: light(c) for t, c in period.chances.items()}


def test_traffic_lights_are_decided_on_the_whole_per_cents_that_are_shown():
    lights = {
        0.0: "no",
        0.094: "no",
        0.096: "unsure",
        0.1: "unsure",
        0.5: "unsure",
        0.894: "unsure",
        0.896: "yes",
        1.0: "yes",
    }
    assert {chance: light(chance) for chance in lights} == lights
    assert f"{0.896:.0%}" == "90%"


@pytest.fixture(scope="module")
def gappy(moving, tmp_path_factory):
    """The moving rain without two frames near the end, and with a part of the picture not observed."""
    rates = synthetic.moving_rain(96, seed=3)
    rates[:, :10, :10] = np.nan
    frames = synthetic.frames_of(rates)
    path = tmp_path_factory.mktemp("gappy") / "a"
    with writing(path, synthetic.schema(64, 64)) as writer:
        writer.write([f for i, f in enumerate(frames) if i not in (92, 93)])
        writer.commit("x")
    return Archive.open(path)


def test_missing_frames_are_named_and_no_number_is_given(run, gappy):
    with pytest.raises(
        GapError, match=r"Issue time 2024-07-01T07:55Z needs 6 frames; 2024-07-01T07:40Z and 07:45Z are missing"
    ):
        forecast_grid(run, gappy)
    assert forecast_grid(run, gappy, gappy.schema.axis.time(gappy.span[0] + 91))["chance"].notnull().any()


def test_a_time_outside_the_archive_is_said_to_be(run, gappy):
    with pytest.raises(GapError, match="reaches from 2024-07-01T00:00Z to 2024-07-01T07:55Z"):
        forecast_grid(run, gappy, synthetic.START + timedelta(days=400))


def test_where_the_radar_does_not_see_there_is_no_number(run, gappy):
    chances = forecast_grid(run, gappy, gappy.schema.axis.time(gappy.span[0] + 80))
    assert np.isnan(chances["chance"].values[:, :, :10, :10]).all()
    assert np.isfinite(chances["chance"].values[:, :, 10:, 10:]).all()
    with pytest.raises(NotObserved, match="does not see"):
        at_place(chances, gappy.schema.grid, (3, 4))
    with pytest.raises(PlaceError, match="outside the radar's picture"):
        gappy.schema.grid.pixel(10.0, 10.0)


def test_a_netcdf_forecast_opens_as_cf_and_holds_the_same(chances, tmp_path):
    import xarray as xr

    write_netcdf(chances, str(tmp_path / "f.nc"))
    with xr.open_dataset(tmp_path / "f.nc", engine="h5netcdf", decode_timedelta=True) as back:
        np.testing.assert_array_equal(back["chance"].values, chances["chance"].values)
        assert back["valid_time"].values.tolist() == chances["valid_time"].values.tolist()
        assert back["lead_time"].values.tolist() == chances["lead_time"].values.tolist()
        assert back.attrs["Conventions"].startswith("CF-1")
        assert back["chance"].attrs["grid_mapping"] == "crs"
        assert back["issue_time"].attrs["standard_name"] == "forecast_reference_time"
        for name in ("network", "archive"):
            assert back.attrs[name] == chances.attrs[name]


def test_one_call_opens_a_run_and_one_forecasts(run):
    chances = fastrain.open_run(run.path).forecast(at="2024-07-01T06:00Z")
    assert str(chances["issue_time"].values)[:16] == "2024-07-01T06:00"


def test_an_archive_moved_together_with_its_run_is_found(run, moving, tmp_path):
    import json
    import shutil

    shutil.copytree(moving, tmp_path / "x" / "archive")
    shutil.copytree(run.path, tmp_path / "x" / "run")
    facts = json.loads((tmp_path / "x" / "run" / "run.json").read_text())
    facts["archive"] |= {"path": "/nowhere/archive", "relative": "../archive"}
    (tmp_path / "x" / "run" / "run.json").write_text(json.dumps(facts))
    assert fastrain.open_run(tmp_path / "x" / "run").forecast().sizes["period"] == 6
