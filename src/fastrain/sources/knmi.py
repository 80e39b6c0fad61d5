"""KNMI's accumulations: HDF5 in the institute's own layout, hundredths of a millimetre over five minutes.

65535 is not observed. Rain rate in mm/h = 0.01 · value · 12, binned to the levels of `LevelTable.binned`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from fastrain.core.errors import DamagedFile
from fastrain.core.frame import Frame
from fastrain.core.grid import Grid
from fastrain.core.time import time_in_name
from fastrain.sources.hdf5 import first, layout, levels_of, opened, text
from fastrain.sources.reader import MOST_PIXELS, Reader, ReadOptions, binned_table


def read(path: Path, options: ReadOptions) -> Iterator[Frame]:
    """Yield the one frame of a file.

    Raises:
        DamagedFile: the file is truncated, or not in KNMI's layout.
    """
    with opened(path, "KNMI") as file:
        frame = _frame(file, path, options)
    yield frame


def _frame(file: Any, path: Path, options: ReadOptions) -> Frame:
    data = file["image1/image_data"]
    if data.ndim != 2 or data.dtype != np.uint16 or not 0 < data.size <= MOST_PIXELS:
        raise DamagedFile(f"{path.name}: image_data is {data.dtype} {data.shape}, expected uint16 of two dimensions.")
    calibration = file["image1/calibration"].attrs
    formula = text(calibration["calibration_formulas"])
    match = re.fullmatch(r"GEO\s*=\s*([0-9.eE+-]+)\s*\*\s*PV\s*\+\s*([0-9.eE+-]+)", formula)
    parameter = text(file["image1"].attrs["image_geo_parameter"])
    if not match or "PRECIPITATION" not in parameter or "MM" not in parameter:
        raise DamagedFile(f"{path.name}: {parameter} by {formula!r}, expected precipitation in mm as a·PV+b.")
    slope, offset = float(match.group(1)), float(match.group(2))
    missing = {int(first(calibration[key])) for key in ("calibration_missing_data", "calibration_out_of_image")}
    overview = file["overview"].attrs
    start, end = (_time(text(overview[f"product_datetime_{which}"]), path) for which in ("start", "end"))
    hours = (end - start) / timedelta(hours=1)
    if not 0 < hours <= 24:
        raise DamagedFile(f"{path.name}: its accumulation lasts from {start} to {end}.")
    # There are 65,536 values only: a table of them is quicker than arithmetic on every pixel.
    rate = (slope * np.arange(65536) + offset) / hours
    rate[sorted(missing)] = np.nan
    lookup = binned_table().encode(rate)
    level = levels_of(data, lambda stored: lookup[stored], path.name)
    time = time_in_name(path.name, options.time_pattern) if options.time_pattern else end
    return Frame(level, time, _grid(file, data.shape, path.name), binned_table(), path.name)


def _grid(file: Any, shape: tuple[int, int], name: str) -> Grid:
    geographic = file["geographic"].attrs
    crs = text(file["geographic/map_projection"].attrs["projection_proj4_params"])
    units = text(geographic["geo_dim_pixel"])
    if units.upper() != "KM,KM":
        raise DamagedFile(f"{name}: pixels in {units}, expected KM,KM.")
    step_x, step_y = (float(first(geographic[f"geo_pixel_size_{axis}"])) * 1000.0 for axis in "xy")
    column, row = (float(first(geographic[f"geo_{which}_offset"])) for which in ("column", "row"))
    if step_x <= 0 or step_y >= 0:
        raise DamagedFile(f"{name}: pixel size {step_x}, {step_y} m, expected rows that run north to south.")
    # Offsets count pixels from the projection's origin to the outer corner of the first pixel ("LU": upper left).
    west, north = (column + 0.5) * step_x, (row + 0.5) * step_y
    grid = Grid(_in_metres(crs), west, north, step_x, -step_y, (int(shape[0]), int(shape[1])))
    if not np.isfinite(grid.place(0, 0)).all():
        raise DamagedFile(f"{name}: its corner lies nowhere on Earth in the projection {crs!r}.")
    return grid


def _in_metres(crs: str) -> str:
    """Return the projection with the ellipsoid's axes in metres; KNMI writes them in km."""

    def metres(match: re.Match[str]) -> str:
        axis = float(match.group(2))
        return f"+{match.group(1)}={axis * 1000 if axis < 10_000 else axis:.0f}"

    return re.sub(r"\+(a|b)=([0-9.]+)", metres, crs) + " +units=m +no_defs"


def _time(text: str, path: Path) -> datetime:
    try:
        return datetime.strptime(text.split(".")[0], "%d-%b-%Y;%H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        raise DamagedFile(f"{path.name}: its time is {text!r}, expected like 26-AUG-2010;00:05:00.000.") from None


READER = Reader(
    recognises=lambda path, head: layout(path, head) == "knmi",
    read=read,
    average="rain_rate",
    credit="KNMI (CC BY 4.0)",
)
