"""ODIM_H5, the weather services' exchange format, versions 2.0 to 2.4: Cartesian composites and images.

`nodata` is not observed and `undetect` is dry: two things, kept apart. Of a file's quantities the first of RATE (mm/h),
ACRR (mm, divided by its duration) and DBZH (dBZ, by Z = a R^b, 200 and 1.6 unless `how` says otherwise) is read. What
is above 300 mm/h is no rain and not observed: composites hold spikes of thousands.

Source: Michelson et al. (2014…2021), EUMETNET OPERA weather radar information model for implementation with HDF5.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from fastrain.core.errors import DamagedFile, SourceError
from fastrain.core.frame import Frame
from fastrain.core.grid import Grid
from fastrain.core.levels import rain_rate_of_reflectivity
from fastrain.core.time import time_in_name
from fastrain.sources.hdf5 import layout, levels_of, number, opened, text
from fastrain.sources.reader import MOST_PIXELS, Reader, ReadOptions, binned_table, plausible

QUANTITIES = ("RATE", "ACRR", "DBZH")
_MOST_DATASETS = 64


def read(path: Path, options: ReadOptions) -> Iterator[Frame]:
    """Yield the one frame of a file.

    Raises:
        DamagedFile: the file is truncated, or not in this layout.
        SourceError: it holds polar data, or no quantity of rain.
    """
    with opened(path, "ODIM") as file:
        frame = _frame(file, path, options)
    yield frame


def _frame(file: Any, path: Path, options: ReadOptions) -> Frame:
    kind = text(file["what"].attrs.get("object", "COMP"))
    if kind not in ("COMP", "IMAGE"):
        raise SourceError(f"{path.name}: an ODIM object {kind}; composites and images (COMP, IMAGE) are read.")
    group, what = _wanted(file, path, options)
    data = group["data"]
    grid = _grid(_merged(file, group, "where"), data.shape, path.name)
    convert = partial(_levels, what=what, how=_merged(file, group, "how"), name=path.name, options=options)
    level = levels_of(data, convert, path.name)
    return Frame(level, _time(file, path, options), grid, binned_table(), path.name)


def _wanted(file: Any, path: Path, options: ReadOptions) -> tuple[Any, Mapping[str, Any]]:
    """Return the group that holds the rain, and what is said of it."""
    found: dict[str, tuple[Any, Mapping[str, Any]]] = {}
    for dataset in _numbered(file, "dataset"):
        for group in _numbered(dataset, "data"):
            what = _merged(file, group, "what")
            found.setdefault(text(what.get("quantity", "?")), (group, what))
    for quantity in (options.variable,) if options.variable else QUANTITIES:
        if quantity in found:
            if quantity not in QUANTITIES:
                raise SourceError(f"{path.name}: {quantity} is no rain; expected one of {', '.join(QUANTITIES)}.")
            return found[quantity]
    raise SourceError(
        f"{path.name}: holds {', '.join(sorted(found)) or 'nothing'}, "
        f"expected {options.variable or ', '.join(QUANTITIES)}."
    )


def _numbered(group: Any, stem: str) -> list[Any]:
    return [group[f"{stem}{i}"] for i in range(1, _MOST_DATASETS) if f"{stem}{i}" in group]


def _merged(file: Any, group: Any, name: str) -> Mapping[str, Any]:
    """Return the attributes of what, where or how, each from the innermost group that has it."""
    merged: dict[str, Any] = {}
    for level in (file, group.parent, group):
        if name in level:
            merged.update(level[name].attrs)
    return merged


def _levels(
    stored: ndarray, *, what: Mapping[str, Any], how: Mapping[str, Any], name: str, options: ReadOptions
) -> ndarray:
    quantity = text(what["quantity"])
    value = stored * number(what.get("gain", 1.0)) + number(what.get("offset", 0.0))
    if quantity == "DBZH":
        a, b = number(how.get("zr_a", 200.0)), number(how.get("zr_b", 1.6))
        if not (a > 0 and b > 0):
            raise DamagedFile(f"{name}: Z = {a:g} R^{b:g} is no relation.")
        with np.errstate(over="ignore"):
            rate = rain_rate_of_reflectivity(value, a=a, b=b)
    elif quantity == "ACRR":
        rate = value / (_duration(what, name, options) / timedelta(hours=1))
    else:
        rate = value
    with np.errstate(over="ignore"):  # of longer floats than these, which only a damaged file has
        rate = plausible(np.asarray(rate, dtype=np.float64))
    rate[rate < 0] = np.nan  # undetect, a number below zero in some files, is set below
    if "nodata" in what:
        rate[stored == number(what["nodata"])] = np.nan
    if "undetect" in what:
        rate[stored == number(what["undetect"])] = 0.0
    return binned_table().encode(rate)


def _duration(what: Mapping[str, Any], name: str, options: ReadOptions) -> timedelta:
    if options.accumulation:
        return options.accumulation
    start, end = (_clock(what[f"{w}date"], what[f"{w}time"], name) for w in ("start", "end"))
    if not timedelta(0) < end - start <= timedelta(hours=48):
        raise DamagedFile(f"{name}: its accumulation lasts from {start} to {end}.")
    return end - start


def _time(file: Any, path: Path, options: ReadOptions) -> datetime:
    if options.time_pattern:
        return time_in_name(path.name, options.time_pattern)
    what = file["what"].attrs
    return _clock(what["date"], what["time"], path.name)


def _clock(date: Any, time: Any, name: str) -> datetime:
    said = text(date) + text(time)
    try:
        return datetime.strptime(said, "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        raise DamagedFile(f"{name}: its date and time are {said!r}, expected like 20180824180000.") from None


def _grid(where: Mapping[str, Any], shape: tuple[int, ...], name: str) -> Grid:
    from pyproj import Proj

    rows, columns = int(number(where["ysize"])), int(number(where["xsize"]))
    if (rows, columns) != tuple(shape) or not 0 < rows * columns <= MOST_PIXELS:
        raise DamagedFile(f"{name}: says {columns}×{rows} pixels, but its picture is {shape[1:]}×{shape[:1]}.")
    step_x, step_y = number(where["xscale"]), number(where["yscale"])
    crs = text(where["projdef"])
    project = Proj(crs)
    if project.crs.is_geographic:
        raise SourceError(f"{name}: projection {crs!r} is in degrees, which is not read yet; use a cf file instead.")
    west, north = project(number(where["UL_lon"]), number(where["UL_lat"]))
    east, south = project(number(where["LR_lon"]), number(where["LR_lat"]))
    off = max(abs(east - west - columns * step_x) / step_x, abs(north - south - rows * step_y) / step_y)
    if not (step_x > 0 and step_y > 0 and off < max(2.0, 0.01 * max(rows, columns))):
        raise DamagedFile(f"{name}: its corners lie {off:.0f} pixels off what {columns}×{rows} pixels span.")
    # Corners are the outer ones; a millimetre's rounding of degrees must not make two grids of one.
    return Grid(crs, round(west + step_x / 2, 1), round(north - step_y / 2, 1), step_x, step_y, (rows, columns))


READER = Reader(
    recognises=lambda path, head: layout(path, head) == "odim",
    read=read,
    average="rain_rate",
    credit="the weather service or EUMETNET OPERA (ask before you publish)",
)
