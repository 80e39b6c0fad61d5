"""The grid of a CF data set: a projection with even coordinates, or even latitudes and longitudes."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from fastrain.core.errors import DamagedFile, SourceError
from fastrain.core.grid import Grid

_METRES = {
    "": 1.0,
    "m": 1.0,
    "metre": 1.0,
    "meter": 1.0,
    "metres": 1.0,
    "meters": 1.0,
    "km": 1000.0,
    "kilometre": 1000.0,
}
_UNEVEN = 0.02  # of a step: how far a coordinate may lie off an even spacing (float32 kilometres need some)


def grid_of(dataset: Any, data: Any, dims: tuple[str, str], name: str) -> tuple[Grid, bool, bool]:
    """Return the grid of a variable, and whether its rows and its columns must be turned round.

    Args:
        dataset: as xarray opened it.
        data: the variable.
        dims: its dimensions of rows and of columns.
        name: of the file, for messages.

    Raises:
        SourceError: the grid is curvilinear, or nothing says which projection it is in.
        DamagedFile: the coordinates are not even.
    """
    missing = [dim for dim in dims if dim not in dataset.variables]
    if missing:
        raise SourceError(f"{name}: its grid has no coordinates {', '.join(missing)}; only regular grids are read.")
    rows, columns = (dataset[dim] for dim in dims)
    north, step_y, flip_rows = _even(rows, name)
    west, step_x, flip_columns = _even(columns, name)
    # Rows run north to south in a grid of ours: from the largest coordinate down.
    flip_rows = not flip_rows
    north += step_y * (rows.size - 1)
    shape = (rows.size, columns.size)
    if _is(rows, "latitude", ("lat", "latitude")) and _is(columns, "longitude", ("lon", "longitude")):
        return (
            Grid.of_degrees(north, _wrapped(west, step_x * columns.size, name), step_y, step_x, shape),
            flip_rows,
            flip_columns,
        )
    scale_y, scale_x = (_METRES.get(str(axis.attrs.get("units", "")).lower()) for axis in (rows, columns))
    if scale_y is None or scale_x is None:
        raise SourceError(
            f"{name}: coordinates in {rows.attrs.get('units')!r}, expected m, km, or latitude, longitude."
        )
    crs = _projection(dataset, data, name)
    return (
        Grid(crs, west * scale_x, north * scale_y, step_x * scale_x, step_y * scale_y, shape),
        flip_rows,
        flip_columns,
    )


def is_x(dataset: Any, dim: str) -> bool:
    """Tell whether a dimension runs west to east."""
    return _runs(
        dataset, dim, "X", ("projection_x_coordinate", "longitude", "grid_longitude"), ("x", "lon", "longitude")
    )


def is_y(dataset: Any, dim: str) -> bool:
    """Tell whether a dimension runs north to south."""
    return _runs(dataset, dim, "Y", ("projection_y_coordinate", "latitude"), ("y", "lat", "latitude"))


def _runs(dataset: Any, dim: str, axis: str, standard_names: tuple[str, ...], names: tuple[str, ...]) -> bool:
    attrs = dataset[dim].attrs if dim in dataset.variables else {}
    said = str(attrs.get("axis", "")).upper() == axis or attrs.get("standard_name") in standard_names
    return said or (not attrs.get("standard_name") and dim.lower() in names)


def _even(axis: Any, name: str) -> tuple[float, float, bool]:
    """Return the least coordinate, the step, and whether the axis falls."""
    values: Float[ndarray, n] = np.asarray(axis.values, dtype=np.float64)
    if values.ndim != 1 or values.size < 2 or not np.isfinite(values).all():
        raise DamagedFile(f"{name}: coordinate {axis.name} is {values.shape}, expected two values or more.")
    step = (values[-1] - values[0]) / (values.size - 1)
    off = np.abs(values - (values[0] + step * np.arange(values.size))).max()
    if step == 0 or off > _UNEVEN * abs(step):
        raise DamagedFile(f"{name}: coordinate {axis.name} is not evenly spaced; only regular grids are read.")
    return float(min(values[0], values[-1])), abs(float(step)), bool(step < 0)


def _is(axis: Any, standard_name: str, names: tuple[str, ...]) -> bool:
    return axis.attrs.get("standard_name") == standard_name or str(axis.name).lower() in names


def _wrapped(west: float, width: float, name: str) -> float:
    if width > 360.5:
        raise DamagedFile(f"{name}: spans {width:.0f} degrees of longitude.")
    return west - 360.0 if west >= 180.0 else west


def _projection(dataset: Any, data: Any, name: str) -> str:
    from pyproj import CRS
    from pyproj.exceptions import CRSError

    mapping = data.attrs.get("grid_mapping") or data.encoding.get("grid_mapping")
    attrs = {}
    if mapping and (key := str(mapping).split(":")[0].split()[0]) in dataset.variables:
        attrs = {k: v for k, v in dataset[key].attrs.items() if k != "GeoTransform"}
    try:
        if attrs:
            return _from_cf(json.dumps(_plain(attrs), sort_keys=True))
        for key in ("proj_string", "proj4", "crs", "projection"):
            if isinstance(dataset.attrs.get(key), str):
                return str(CRS.from_user_input(dataset.attrs[key]).to_wkt())
    except CRSError as error:
        raise SourceError(f"{name}: its projection cannot be understood ({str(error)[:120]}).") from None
    raise SourceError(f"{name}: names no projection (no grid_mapping); coordinates in metres need one.")


@lru_cache(maxsize=16)
def _from_cf(attrs: str) -> str:
    """Return the WKT of a grid mapping's attributes; half a second of pyproj's, so not for every file of a year."""
    from pyproj import CRS

    return str(CRS.from_cf(json.loads(attrs)).to_wkt())


def _plain(attrs: dict[str, Any]) -> dict[str, Any]:
    plain = {}
    for key, value in attrs.items():
        values = np.ravel(value)
        plain[key] = value if isinstance(value, str) else values[0].item() if values.size == 1 else values.tolist()
    return plain
