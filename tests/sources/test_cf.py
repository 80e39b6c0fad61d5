"""CF data sets as others write them: axes in any order, packed bytes, times in chunks, amounts, degrees."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from fastrain.core.errors import SourceError
from fastrain.core.levels import NOT_OBSERVED
from fastrain.sources import ReadOptions, read_frames, recognise
from fastrain.sources.cf import credit_of

CRS = {
    "grid_mapping_name": "lambert_azimuthal_equal_area",
    "latitude_of_projection_origin": 50.0,
    "longitude_of_projection_origin": 5.0,
    "false_easting": 0.0,
    "false_northing": 0.0,
    "semi_major_axis": 6378137.0,
    "inverse_flattening": 298.257223563,
}
TIMES = np.array(["2024-07-01T12:00", "2024-07-01T12:05", "2024-07-01T12:10"], "datetime64[ns]")


def dataset(rate: np.ndarray, **attrs) -> xr.Dataset:
    """Rain rates (time, y, x), rows north to south, 1 km, around 50 N 5 E."""
    rows, columns = rate.shape[1:]
    y = (rows / 2 - 0.5 - np.arange(rows)) * 1000.0
    x = (np.arange(columns) - columns / 2 + 0.5) * 1000.0
    made = xr.Dataset(
        {"rain": (("time", "y", "x"), rate, {"units": "mm h-1", "grid_mapping": "crs", **attrs})},
        coords={
            "time": TIMES[: len(rate)],
            "y": ("y", y, {"standard_name": "projection_y_coordinate", "units": "m"}),
            "x": ("x", x, {"standard_name": "projection_x_coordinate", "units": "m"}),
        },
    )
    made["crs"] = ((), 0, CRS)
    return made


def rates(rows=20, columns=30) -> np.ndarray:
    rate = np.zeros((3, rows, columns), np.float32)
    for t in range(3):
        rate[t, 2 + t, 5] = 4.0  # in the north, in the west
        rate[t, 15, 25] = np.nan
    return rate


def read(path, **options):
    assert recognise(path) == "cf"
    return list(read_frames(path, "cf", ReadOptions(**options)))


def test_axes_in_any_order_and_direction_give_the_same_frames(tmp_path):
    plain = dataset(rates())
    forms = {
        "plain": plain,
        "rows_rise": plain.isel(y=slice(None, None, -1)),
        "columns_fall": plain.isel(x=slice(None, None, -1)),
        "transposed": plain.transpose("time", "x", "y"),
        "both": plain.isel(y=slice(None, None, -1)).transpose("time", "x", "y"),
    }
    expected = None
    for name, form in forms.items():
        form.to_netcdf(tmp_path / f"{name}.nc", engine="h5netcdf")
        frames = read(tmp_path / f"{name}.nc")
        assert [f.valid_time.minute for f in frames] == [0, 5, 10]
        row, column = np.argwhere((frames[0].level > 0) & (frames[0].level < NOT_OBSERVED))[0]
        assert (row, column) == (2, 5)
        assert frames[0].level[15, 25] == NOT_OBSERVED
        # 7.5 km north of and 9.5 km west of the projection's origin.
        assert frames[0].grid.pixel(50.0 + 7.5 / 111.2, 5.0 - 9.5 / 71.7) == (2, 5)
        expected = expected or [f.digest for f in frames]
        assert [f.digest for f in frames] == expected


def test_latitudes_and_longitudes_are_a_grid_too(tmp_path):
    rate = rates()
    made = xr.Dataset(
        {"rainfall_rate": (("time", "lat", "lon"), rate, {"standard_name": "rainfall_rate", "units": "mm h-1"})},
        coords={"time": TIMES, "lat": 60.0 - 0.01 * np.arange(20), "lon": 350.0 + 0.02 * np.arange(30)},
    )
    made.to_netcdf(tmp_path / "d.nc", engine="h5netcdf")
    (frame, *_) = read(tmp_path / "d.nc")
    assert frame.grid.pixel(59.98, -9.9) == (2, 5)
    assert frame.level[2, 5] > 0


def test_packed_bytes_marked_unsigned_keep_their_upper_half(tmp_path):
    import h5py

    dataset(rates()).to_netcdf(tmp_path / "u.nc", engine="h5netcdf")
    raw = np.zeros((3, 20, 30), np.uint8)
    raw[:, 2, 5], raw[:, 3, 5], raw[:, 4, 5] = 200, 100, 255
    with h5py.File(tmp_path / "u.nc", "r+") as file:
        scales = [file[name] for name in ("time", "y", "x")]
        del file["rain"]
        made = file.create_dataset("rain", data=raw.view(np.int8))
        for dim, scale in zip(made.dims, scales, strict=True):
            dim.attach_scale(scale)
        said = {"units": "mm h-1", "grid_mapping": "crs", "_Unsigned": "true", "scale_factor": 0.5}
        made.attrs.update(said)
        made.attrs["_FillValue"] = np.int8(-1)
    (frame, *_) = read(tmp_path / "u.nc")
    rate = frame.table.decode(frame.level)
    assert 90 < rate[2, 5] < 110
    assert 45 < rate[3, 5] < 55
    assert np.isnan(rate[4, 5])


def test_an_amount_is_divided_by_its_duration_or_asked_for_it(tmp_path):
    amount = dataset(rates() / 12, units="mm").rename(rain="precipitation")
    amount["precipitation"].attrs["units"] = "mm"
    amount.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    (frame, *_) = read(tmp_path / "a.nc")
    assert frame.table.decode(frame.level)[2, 5] == pytest.approx(4.0, rel=0.06)
    amount.isel(time=[0]).to_netcdf(tmp_path / "one.nc", engine="h5netcdf")
    with pytest.raises(SourceError, match="--accumulation MINUTES"):
        read(tmp_path / "one.nc")
    from datetime import timedelta

    (frame,) = read(tmp_path / "one.nc", accumulation=timedelta(minutes=5))
    assert frame.table.decode(frame.level)[2, 5] == pytest.approx(4.0, rel=0.06)


def test_chunks_of_many_times_are_unpacked_once(tmp_path, monkeypatch):
    from fastrain.sources import cf

    made = dataset(rates())
    made.to_netcdf(tmp_path / "c.nc", engine="h5netcdf", encoding={"rain": {"chunksizes": (3, 20, 30)}})
    reads = []
    real = xr.DataArray.isel
    monkeypatch.setattr(xr.DataArray, "isel", lambda self, *a, **k: (reads.append(1), real(self, *a, **k))[1])
    assert len(read(tmp_path / "c.nc")) == 3
    assert len(reads) == 1
    assert cf.MOST_HELD > 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.assign(other=d["rain"]), "Choose one: --variable"),
        (lambda d: d.rename(rain="wind").assign(wind=lambda e: e["wind"].assign_attrs(units="m s-1")), "rain rate"),
        (lambda d: d.drop_vars("crs").assign(rain=lambda e: e["rain"].assign_attrs(grid_mapping="")), "no projection"),
        (lambda d: d.assign_coords(x=d["x"] ** 2), "not evenly spaced"),
    ],
)
def test_what_is_not_told_is_asked_for_and_what_is_not_regular_is_refused(tmp_path, change, said):
    change(dataset(rates())).to_netcdf(tmp_path / "x.nc", engine="h5netcdf")
    with pytest.raises(SourceError, match=said):
        read(tmp_path / "x.nc")


def test_a_time_pattern_is_for_files_of_one_time(tmp_path):
    dataset(rates()).to_netcdf(tmp_path / "20200101_0000.nc", engine="h5netcdf")
    with pytest.raises(SourceError, match="holds 3 times"):
        read(tmp_path / "20200101_0000.nc", time_pattern="%Y%m%d_%H%M")


def test_the_user_can_name_the_variable(tmp_path):
    made = dataset(rates()).assign(other=lambda d: d["rain"] * 2)
    made["other"].attrs.update(units="mm h-1", grid_mapping="crs")
    made.to_netcdf(tmp_path / "v.nc", engine="h5netcdf")
    (frame, *_) = read(tmp_path / "v.nc", variable="other")
    assert frame.table.decode(frame.level)[2, 5] == pytest.approx(8.0, rel=0.06)


def test_whose_data_it_is_stands_in_the_file_as_one_line(tmp_path):
    made = dataset(rates())
    made.attrs |= {"source": "A weather\nservice \x1b[31m" + "x" * 500, "license": "CC BY 4.0", "title": "not asked"}
    made.to_netcdf(tmp_path / "said.nc", engine="h5netcdf")
    said = credit_of(tmp_path / "said.nc")
    assert said.startswith("A weather service")
    assert said.endswith("…; CC BY 4.0")
    assert len(said) < 200 and said.isprintable()
    silent = dataset(rates())
    silent.attrs.clear()
    silent.to_netcdf(tmp_path / "silent.nc", engine="h5netcdf")
    assert credit_of(tmp_path / "silent.nc") is None
    (tmp_path / "no.nc").write_bytes(b"CDF")
    assert credit_of(tmp_path / "no.nc") is None
