"""CF data sets, NetCDF or Zarr: rain rate, amount or reflectivity on a regular grid, one time or many.

The variable is told by its standard name, by Z-R coefficients beside it, or by its units; the grid by its projection
(`grid_mapping`, `crs_wkt`, `spatial_ref`, a proj string) with coordinates in metres or kilometres, or by evenly spaced
latitudes and longitudes. Rows and columns in any order are turned north to south and west to east. An amount is
divided by its duration: the bounds of its time, its start, the step between times, or what the user says.

Source: CF Conventions 1.11; the data set specification of mlcast.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped, UInt8
from numpy import ndarray

from fastrain.core.errors import DamagedFile, FastrainError, SourceError
from fastrain.core.frame import Frame
from fastrain.core.levels import rain_rate_of_reflectivity
from fastrain.core.time import time_in_name, utc_of
from fastrain.sources.cf_grid import grid_of, is_x, is_y
from fastrain.sources.hdf5 import MAGIC, layout
from fastrain.sources.reader import MOST_PIXELS, Reader, ReadOptions, binned_table, levels_by_pieces, plausible

NETCDF3 = (b"CDF\x01", b"CDF\x02")
STANDARD_NAMES = {
    "rainfall_rate": "rate",
    "lwe_precipitation_rate": "rate",
    "lwe_rainfall_rate": "rate",
    "precipitation_flux": "rate",
    "rainfall_flux": "rate",
    "precipitation_amount": "amount",
    "rainfall_amount": "amount",
    "lwe_thickness_of_precipitation_amount": "amount",
    "thickness_of_rainfall_amount": "amount",
    "equivalent_reflectivity_factor": "reflectivity",
}
# Factor to mm/h for rates, to mm for amounts; a litre of water on a square metre is a millimetre.
UNITS = {
    "rate": {
        "mm/h": 1.0, "mm h-1": 1.0, "mm hr-1": 1.0, "mm/hr": 1.0, "mm hour-1": 1.0, "mm h^-1": 1.0, "kg m-2 h-1": 1.0,
        "kg m-2 s-1": 3600.0, "kg/m2/s": 3600.0, "mm s-1": 3600.0, "mm/s": 3600.0, "m s-1": 3.6e6, "m/s": 3.6e6,
    },
    "amount": {"mm": 1.0, "kg m-2": 1.0, "kg/m2": 1.0, "kg m**-2": 1.0, "m": 1000.0, "cm": 10.0},
    "reflectivity": {"dbz": 1.0},
}  # fmt: skip
MOST_HELD = 2**24  # values that are held at once
_FORTNIGHT = timedelta(days=14)


@dataclass(frozen=True)
class _Rain:
    """The variable that holds the rain: what it is, its factor to mm/h, mm or dBZ, and Z-R."""

    name: str
    kind: str
    factor: float
    a: float = 200.0
    b: float = 1.6


def read(path: Path, options: ReadOptions) -> Iterator[Frame]:
    """Yield the frames of a file or Zarr store, in its order of time; one is held at a time.

    Raises:
        DamagedFile: truncated, or the grid is not regular.
        SourceError: no variable or several may be the rain, or an amount's duration is not told.
    """
    with _opened(path) as dataset:
        rain = _rain_of(dataset, path.name, options)
        data = dataset[rain.name]
        times = _times_of(dataset, data, path, options)
        y, x = data.dims[-2:]
        if is_x(dataset, str(y)) and is_y(dataset, str(x)):
            data = data.transpose(*data.dims[:-2], x, y)
            y, x = x, y
        extra = [d for d in data.dims[:-2] if d != _time_dim(dataset, data) and data.sizes[d] != 1]
        if extra:
            raise SourceError(f"{path.name}: {rain.name} has the dimensions {data.dims}, expected time, y, x.")
        grid, flip_rows, flip_columns = grid_of(dataset, data, (y, x), path.name)
        hours: list[float | None] = [None] * len(times)
        if rain.kind == "amount":
            hours = _durations(dataset, data, times, path.name, options)
        for i, (time, plane) in enumerate(zip(times, _planes(dataset, data, len(times)), strict=True)):
            level = _levels(plane, data.attrs, rain, hours[i])
            level = level[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]
            yield Frame(np.ascontiguousarray(level), time, grid, binned_table(), _named(path, time, len(times)))


def is_zarr(path: Path) -> bool:
    """Tell whether a folder is a Zarr store."""
    return path.is_dir() and any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zmetadata"))


def recognises(path: Path, head: bytes) -> bool:
    """Tell whether a path is a NetCDF file or a Zarr store."""
    return head.startswith(NETCDF3) or layout(path, head) == "netcdf" or (not head and is_zarr(path))


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    import xarray as xr

    with path.open("rb") if path.is_file() else _no_file() as file:
        head = file.read(4) if file else b""
    engine = "zarr" if not head else "scipy" if head in NETCDF3 else "h5netcdf"
    if engine == "h5netcdf":
        # Looked at first by h5py: h5netcdf complains on standard error, past every handler, of what it cannot open.
        layout(path, MAGIC)
    with warnings.catch_warnings():
        # Of the metadata's form and of times the calendar cannot hold: what matters of them is raised below.
        warnings.simplefilter("ignore")
        extra: dict[str, Any] = {"consolidated": None} if engine == "zarr" else {}
        # Not masked here: a variable is unpacked frame by frame, so that a year is never held as floats.
        with xr.open_dataset(path, engine=engine, mask_and_scale=False, cache=False, **extra) as dataset:
            yield dataset


@contextmanager
def _no_file() -> Iterator[None]:
    yield None


def _rain_of(dataset: Any, name: str, options: ReadOptions) -> _Rain:
    """Return the variable that is rain: named by the user, by CF, by Z-R coefficients, or by its units."""
    if options.variable:
        if options.variable not in dataset:
            raise SourceError(f"{name}: has no variable {options.variable}; it has {_names(dataset)}.")
        chosen = _described(dataset[options.variable], options.variable)
        if chosen is None:
            raise SourceError(f"{name}: {options.variable} has no standard name or units of rain, amount or dBZ.")
        return chosen[1]
    found = sorted(
        (described for v in dataset.data_vars if (described := _described(dataset[v], str(v)))), key=lambda d: d[0]
    )
    best = [rain for rank, rain in found if rank == found[0][0]]
    if not best:
        raise SourceError(f"{name}: none of {_names(dataset)} is rain rate, amount or reflectivity; --variable NAME.")
    if len(best) > 1:
        raise SourceError(f"{name}: {' or '.join(r.name for r in best)}? Choose one: --variable {best[0].name}.")
    return best[0]


def _described(data: Any, name: str) -> tuple[int, _Rain] | None:
    """Return how surely a variable is rain (0 surest) and what it is; None where it is not."""
    if data.ndim < 2 or data.dtype.kind not in "iuf":
        return None
    attrs = data.attrs
    units = " ".join(str(attrs.get("units", "")).split()).lower()
    kind = STANDARD_NAMES.get(str(attrs.get("standard_name", "")))
    if kind and units in UNITS[kind]:
        return 0, _with_relation(_Rain(name, kind, UNITS[kind][units]), attrs)
    if {"zr_a", "zr_b"} <= set(attrs):
        return 1, _with_relation(_Rain(name, "reflectivity", 1.0), attrs)
    for kind, known in UNITS.items():
        # A bare length may be anything (height, wave length); only a rain's name makes an amount of it.
        sure = kind != "amount" or any(word in name.lower() for word in ("rain", "precip", "acrr"))
        if units in known and (kind != "rate" or not units.startswith("m") or units.startswith("mm")) and sure:
            return 2, _with_relation(_Rain(name, kind, known[units]), attrs)
    return None


def _with_relation(rain: _Rain, attrs: Any) -> _Rain:
    a, b = float(attrs.get("zr_a", 200.0)), float(attrs.get("zr_b", 1.6))
    if not (a > 0 and b > 0):
        raise DamagedFile(f"Z = {a:g} R^{b:g} is no relation.")
    return _Rain(rain.name, rain.kind, rain.factor, a, b)


def _levels(stored: Shaped[ndarray, "y x"], attrs: Any, rain: _Rain, hours: float | None) -> UInt8[ndarray, "y x"]:
    """Return a picture as levels."""
    return levels_by_pieces(stored, lambda piece: binned_table().encode(_rate(_unpacked(piece, attrs), rain, hours)))


def _rate(value: Float[ndarray, " values"], rain: _Rain, hours: float | None) -> ndarray:
    value = value * rain.factor
    with np.errstate(over="ignore", invalid="ignore"):
        if rain.kind == "reflectivity":
            value = rain_rate_of_reflectivity(value, rain.a, rain.b)
        elif hours is not None:
            value = value / hours
        value[value < 0] = np.nan  # a fill value that nobody declared
    return plausible(value)


def _planes(dataset: Any, data: Any, count: int) -> Iterator[Shaped[ndarray, "y x"]]:
    """Yield each time's values as they are stored.

    Read by the chunk as far as memory allows: a chunk of a day read for each of its frames would be unpacked anew for
    each.
    """
    dim = _time_dim(dataset, data)
    kept = data.encoding.get("preferred_chunks", {}).get(dim) or (data.encoding.get("chunksizes") or (1,))[0]
    pixels = data.sizes[data.dims[-1]] * data.sizes[data.dims[-2]]
    step = max(1, min(int(kept or 1), MOST_HELD // pixels))
    for start in range(0, count, step):
        at = {d: (slice(start, start + step) if d == dim else 0) for d in data.dims[:-2]}
        held = data.isel(at).values
        yield from held if dim is not None else held[None]


def _unpacked(stored: ndarray, attrs: Any) -> Float[ndarray, " values"]:
    unsigned = str(attrs.get("_Unsigned", "")).lower() == "true" and stored.dtype.kind == "i"
    kind = np.dtype(f"u{stored.dtype.itemsize}") if unsigned else stored.dtype
    stored = np.ascontiguousarray(stored).view(kind) if unsigned else stored

    def as_stored(value: Any) -> ndarray:
        """Return limits and fill values as the numbers that stand among the stored ones."""
        values = np.asarray(value).ravel()
        if unsigned and values.dtype.kind in "iu":
            values = values.astype(np.int64) % 2 ** (8 * kind.itemsize)
        return np.asarray(values.astype(np.float64))

    missing = np.isnan(stored) if stored.dtype.kind == "f" else np.zeros(stored.shape, dtype=bool)
    for key in ("_FillValue", "missing_value"):
        if key in attrs:
            missing |= np.isin(stored, as_stored(attrs[key]))
    low, high = attrs.get("valid_min"), attrs.get("valid_max")
    if "valid_range" in attrs:
        low, high = np.asarray(attrs["valid_range"]).ravel()[:2]
    if low is not None:
        missing |= stored < as_stored(low)[0]
    if high is not None:
        missing |= stored > as_stored(high)[0]
    value = stored.astype(np.float64) * float(np.asarray(attrs.get("scale_factor", 1.0)).ravel()[0])
    value += float(np.asarray(attrs.get("add_offset", 0.0)).ravel()[0])
    value[missing] = np.nan
    return np.asarray(value)


def _time_dim(dataset: Any, data: Any) -> str | None:
    for dim in data.dims[:-2]:
        if dim in dataset.variables and np.issubdtype(dataset[dim].dtype, np.datetime64):
            return str(dim)
    return None


def _times_of(dataset: Any, data: Any, path: Path, options: ReadOptions) -> list[datetime]:
    pixels = data.sizes[data.dims[-1]] * data.sizes[data.dims[-2]]
    if not 0 < pixels <= MOST_PIXELS:
        raise DamagedFile(f"{path.name}: {data.name} claims {data.shape} values.")
    dim = _time_dim(dataset, data)
    if options.time_pattern:
        if dim is not None and data.sizes[dim] > 1:
            raise SourceError(f"{path.name}: holds {data.sizes[dim]} times; --time-pattern is for files of one.")
        return [time_in_name(path.name, options.time_pattern)]
    if dim is not None:
        return [utc_of(v) for v in np.ravel(dataset[dim].values)]
    scalars = [v for v in dataset.variables if dataset[v].size == 1 and np.issubdtype(dataset[v].dtype, np.datetime64)]
    named = [v for v in scalars if dataset[v].attrs.get("standard_name") == "time"] or [
        v for v in scalars if v in ("valid_time", "time")
    ]
    if named:
        return [utc_of(np.ravel(dataset[named[0]].values)[0])]
    return [time_in_name(path.name)]


def _durations(dataset: Any, data: Any, times: list[datetime], name: str, options: ReadOptions) -> list[float | None]:
    """Return over how many hours each amount was summed."""
    if options.accumulation:
        return [options.accumulation / timedelta(hours=1)] * len(times)
    dim = _time_dim(dataset, data)
    bounds = dataset[dim].attrs.get("bounds") if dim else None
    if bounds in dataset.variables:
        spans = [(utc_of(b), utc_of(a)) for a, b in dataset[bounds].values.reshape(-1, 2)]
    elif "start_time" in dataset.variables and np.issubdtype(dataset["start_time"].dtype, np.datetime64):
        spans = [(t, utc_of(s)) for t, s in zip(times, np.ravel(dataset["start_time"].values), strict=True)]
    elif len(times) > 1:
        step = min(b - a for a, b in zip(sorted(times), sorted(times)[1:], strict=False))
        spans = [(time, time - step) for time in times]
    else:
        raise SourceError(f"{name}: does not say over how long its amount was summed; give --accumulation MINUTES.")
    wrong = next((s for s in spans if not timedelta(0) < s[0] - s[1] <= _FORTNIGHT), None)
    if wrong:
        raise DamagedFile(f"{name}: an amount summed from {wrong[1]} to {wrong[0]}.")
    return [(end - start) / timedelta(hours=1) for end, start in spans]


def _named(path: Path, time: datetime, count: int) -> str:
    return path.name if count == 1 else f"{path.name} at {time:%Y-%m-%dT%H:%MZ}"


def _names(dataset: Any) -> str:
    names = [str(v) for v in dataset.data_vars]
    return ", ".join(names[:8]) + (", …" if len(names) > 8 else "") if names else "no variables"


THANKED = ("institution", "publisher_name", "creator_name", "source", "title")  # attributes of whose data it is
LICENCES = ("license", "licence", "rights")
LONGEST_CREDIT = 160  # letters of each


def credit_of(path: Path) -> str | None:
    """Return what a file says of whose data it is, and under what licence; None where it says nothing."""
    try:
        with _opened(path) as dataset:
            held = dataset.attrs
            said = [next((_line(held[n]) for n in names if n in held), "") for names in (THANKED, LICENCES)]
    except FastrainError:
        return None
    return "; ".join(filter(None, said)) or None


def _line(value: object) -> str:
    """Return an attribute as one line that can be shown: it may be of any length and hold anything."""
    text = " ".join("".join(c if c.isprintable() else " " for c in str(value)).split())
    return text if len(text) <= LONGEST_CREDIT else text[: LONGEST_CREDIT - 1] + "…"


READER = Reader(
    recognises=recognises,
    read=read,
    average="rain_rate",
    credit="as the data set says",
    many=True,
    credit_of=credit_of,
)
