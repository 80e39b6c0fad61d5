"""Made rain as files in the forms of services whose own files may not be shown: what docs/sources has pictures of."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import h5py
import numpy as np
import xarray as xr
from PIL import Image
from pyproj import Proj

from fastrain.sources import read_frames

TIME = datetime(2026, 7, 1, 12, tzinfo=UTC)
WEATHER = (
    'fastrain = "synthetic radar"\nrows = {rows}\ncolumns = {columns}\npixel_km = {km}\nframes = 1\nseed = {seed}\n'
    "wet = 0.3\nblind = {blind}\n"
)


def made_rain(folder: Path, rows: int, columns: int, *, km: float, seed: int, blind: float) -> np.ndarray:
    """Return made rain rates (y, x), mm/h, NaN where not observed."""
    path = folder / f"rain{seed}.toml"
    path.write_text(WEATHER.format(rows=rows, columns=columns, km=km, seed=seed, blind=blind))
    frame = next(iter(read_frames(path, "synthetic")))
    return np.asarray(frame.table.decode(frame.level), float)


def write_mch(folder: Path) -> Path:
    """Write a picture in MeteoSwiss's form: the index is the level of mm in five minutes."""
    rate = made_rain(folder, 640, 710, km=1.0, seed=3, blind=1.0)
    with np.errstate(divide="ignore"):
        index = np.round(71.5 + 20 * np.log10(316 * (rate / 12) ** 1.5))
    index = np.where(np.isnan(rate), 255, np.where(rate > 0, np.clip(index, 2, 250), 0))
    image = Image.fromarray(index.astype(np.uint8), mode="P")
    image.putpalette([value for i in range(256) for value in (i, i, 255 - i)])
    path = folder / "AQC261821200V_00005.801.gif"
    image.save(path, comment=b"MeteoSwiss", optimize=False)
    return path


def write_odim(folder: Path) -> Path:
    """Write a composite of rain rates as ODIM_H5 2.3, with nodata and undetect."""
    rate = made_rain(folder, 480, 480, km=2.0, seed=4, blind=1.0)
    crs = "+proj=laea +lat_0=55 +lon_0=10 +x_0=0 +y_0=0 +ellps=WGS84"
    project = Proj(crs)
    path = folder / "T_PAAH21_C_EUOC_20260701120000.hdf"
    with h5py.File(path, "w") as file:
        file.attrs["Conventions"] = np.bytes_("ODIM_H5/V2_3")
        groups = {name: file.create_group(name) for name in ("what", "where", "dataset1/what", "dataset1/data1/what")}
        groups["what"].attrs.update({"object": b"COMP", "date": b"20260701", "time": b"120000"})
        (west, north), (east, south) = project(-480e3, 480e3, inverse=True), project(480e3, -480e3, inverse=True)
        groups["where"].attrs.update(
            {"projdef": crs.encode(), "xsize": 480, "ysize": 480, "xscale": 2000.0, "yscale": 2000.0}
            | {"UL_lon": west, "UL_lat": north, "LR_lon": east, "LR_lat": south}
        )
        groups["dataset1/data1/what"].attrs.update(
            {"quantity": b"RATE", "gain": 1.0, "offset": 0.0, "nodata": -1.0, "undetect": 0.0}
        )
        file.create_dataset("dataset1/data1/data", data=np.nan_to_num(rate, nan=-1.0), compression="gzip")
    return path


def write_cf(folder: Path) -> Path:
    """Write rain rates as CF NetCDF-4."""
    rate = made_rain(folder, 360, 480, km=1.0, seed=5, blind=2.0)
    rows, columns = rate.shape
    crs = {"grid_mapping_name": "lambert_azimuthal_equal_area", "latitude_of_projection_origin": 50.0}
    crs |= {"longitude_of_projection_origin": 5.0, "false_easting": 0.0, "false_northing": 0.0}
    crs |= {"semi_major_axis": 6378137.0, "inverse_flattening": 298.257223563}
    rain = {"standard_name": "rainfall_rate", "units": "mm h-1", "grid_mapping": "crs"}
    y, x = (rows / 2 - 0.5 - np.arange(rows)) * 1e3, (np.arange(columns) - columns / 2 + 0.5) * 1e3
    data = xr.Dataset(
        {"rain": (("time", "y", "x"), rate[None], rain), "crs": ((), 0, crs)},
        coords={
            "time": [np.datetime64(TIME.replace(tzinfo=None), "ns")],
            "y": ("y", y, {"standard_name": "projection_y_coordinate", "units": "m"}),
            "x": ("x", x, {"standard_name": "projection_x_coordinate", "units": "m"}),
        },
    )
    path = folder / "rain.nc"
    data.to_netcdf(path, engine="h5netcdf")
    return path


def write_bom(folder: Path) -> Path:
    """Write steps of 0.05 mm in ten minutes as Rainfields does."""
    rate = made_rain(folder, 512, 512, km=0.5, seed=6, blind=1.0)
    edge = (np.arange(512) - 255.5) * 0.5
    path = folder / "66_20260701_120000.prcp-c10.nc"
    with h5py.File(path, "w") as file:
        file.attrs.update({"Conventions": b"CF-1.7", "source": b"rainfields 3"})
        units = b"seconds since 1970-01-01 00:00:00 UTC"
        for name, time in (("valid_time", TIME), ("start_time", TIME - timedelta(minutes=10))):
            file.create_dataset(name, data=int(time.timestamp())).attrs["units"] = units
        file["valid_time"].attrs["standard_name"] = b"time"
        for name, values in (("y", -edge), ("x", edge)):
            scale = file.create_dataset(name, data=values)
            scale.attrs.update({"standard_name": f"projection_{name}_coordinate".encode(), "units": b"km"})
            scale.make_scale(name)
        steps = np.where(np.isnan(rate), -1, np.round(rate / 6 / 0.05)).astype(np.int16)
        rain = file.create_dataset("precipitation", data=steps, compression="gzip")
        rain.attrs.update({"standard_name": b"precipitation_amount", "units": b"kg m-2", "grid_mapping": b"proj"})
        rain.attrs.update({"scale_factor": [0.05], "add_offset": [0.0], "_FillValue": np.array([-1], np.int16)})
        for i, name in enumerate(("y", "x")):
            rain.dims[i].attach_scale(file[name])
        file.create_dataset("proj", data=np.int8(0)).attrs.update(
            {"grid_mapping_name": b"albers_conical_equal_area", "standard_parallel": [-26.2, -29.3]}
            | {"longitude_of_central_meridian": [153.24], "latitude_of_projection_origin": [-27.7178]}
            | {"false_easting": [0.0], "false_northing": [0.0]}
            | {"semi_major_axis": [6378137.0], "semi_minor_axis": [6356752.31414]}
        )
    return path


WRITERS = {"mch": write_mch, "odim": write_odim, "cf": write_cf, "bom": write_bom}
