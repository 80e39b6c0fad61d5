"""Out of an archive again: the ancestor's files, CF NetCDF, plain CF Zarr, and mlcast's specification.

Written some frames at a time, whatever the span, beside the place asked for, and moved there when whole.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy import ndarray

from fastrain.archive.chunks import plane_of
from fastrain.archive.repository import bytes_stored, remote, shown
from fastrain.archive.schema import CONVENTIONS
from fastrain.archive.store import Archive, frame_times
from fastrain.core.errors import ArchiveError, SettingError, UsageError
from fastrain.core.levels import DRY, NOT_OBSERVED
from fastrain.core.time import show_time
from fastrain.sources.rpbin import Payload, write_payloads

FORMATS = ("rpbin", "netcdf", "zarr", "mlcast")
PIECE_PIXELS = 2**24  # of frames that are held at once
_TIME = {"units": "seconds since 1970-01-01T00:00:00Z", "calendar": "standard", "units_metadata": "leap_seconds: none"}

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class ExportSettings:
    """What a user may choose.

    Attributes:
        format: one of FORMATS.
        coarseness: of the blocks; 1, and for rpbin all, if None.
        unobserved_as_dry: write what is not observed as dry, for the ancestor's files, which cannot say it.
        attributes: to add to the data set's own, as mlcast's asks for licence, creator and identifier.
    """

    format: str
    coarseness: int | None = None
    unobserved_as_dry: bool = False
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ExportReport:
    """What was written: where, in which format, how many frames, from when to when, and bytes."""

    path: str
    format: str
    frames: int
    first: datetime
    last: datetime
    bytes: int


def export(archive: Path, to: Path, settings: ExportSettings, progress: Progress = lambda *_: None) -> ExportReport:
    """Write what an archive holds; frames that are missing or suspect are left out.

    Raises:
        UsageError: the place is taken.
        SettingError: an unknown format, or a coarseness that the archive or the format does not hold.
        ArchiveError: the archive holds nothing, or what is not observed cannot be said in the format.
    """
    if settings.format not in FORMATS:
        raise SettingError(f"--format {settings.format}: expected {', '.join(FORMATS)}.")
    if remote(to):
        raise UsageError(f"{shown(to)}: an export goes into a folder; copy it to the store from there.")
    if to.exists():
        raise UsageError(f"{to} exists; name another place with --to.")
    held = Archive.open(archive)
    if settings.coarseness is not None and settings.coarseness not in (1, *held.schema.coarseness):
        cs = ", ".join(map(str, (1, *held.schema.coarseness)))
        raise SettingError(f"--coarseness {settings.coarseness}: this archive holds coarseness {cs}.")
    slots = _slots(held)
    if not len(slots):
        raise ArchiveError(f"{archive}: holds no frame to export.")
    write = {"rpbin": _rpbin, "netcdf": _netcdf, "zarr": _zarr, "mlcast": _mlcast}[settings.format]
    unfinished = to.with_name(f".{to.name}.unfinished")
    _remove(unfinished)
    to.parent.mkdir(parents=True, exist_ok=True)
    try:
        unfinished.mkdir()
        unfinished.rmdir()
    except OSError as error:
        raise UsageError(f"{to}: cannot be written ({error.strerror}); name another place with --to.") from None
    try:
        write(held, slots, unfinished, settings, progress)
        unfinished.rename(to)
    finally:
        _remove(unfinished)
    size = to.stat().st_size if to.is_file() else bytes_stored(to)
    first, last = frame_times(held, slots[[0, -1]])
    return ExportReport(str(to), settings.format, len(slots), first, last, size)


def _rpbin(archive: Archive, slots: Int[ndarray, n], to: Path, settings: ExportSettings, progress: Progress) -> None:
    """Write a folder of the ancestor's files, one a frame, named by its time."""
    to.mkdir()
    levels = (1, *archive.schema.coarseness) if settings.coarseness is None else (1, settings.coarseness)
    done = 0
    for piece in _cut(archive, slots):
        blocks = {coarseness: _blocks(archive, coarseness, piece) for coarseness in levels}
        for i, time in enumerate(frame_times(archive, piece)):
            payloads = []
            for coarseness, arrays in blocks.items():
                maximum, ratio = arrays["max"][i], arrays["mean"][i]
                if (maximum == NOT_OBSERVED).any():
                    if not settings.unobserved_as_dry:
                        raise ArchiveError(
                            f"{show_time(archive.schema.axis.time(int(piece[i])))}: pixels are not observed, which the "
                            "ancestor's format cannot say; --unobserved-as-dry writes them as dry."
                        )
                    maximum = np.where(maximum == NOT_OBSERVED, DRY, maximum).astype(np.uint8)
                payloads.append(Payload(maximum, ratio, coarseness, 0, 0))
            name = f"{time:%Y%m%d%H%M%S}.bin"
            write_payloads(to / name, payloads, archive.schema.table.count)
            done += 1
            progress(done, len(slots), name)


def _netcdf(archive: Archive, slots: Int[ndarray, n], to: Path, settings: ExportSettings, progress: Progress) -> None:
    """Write one CF NetCDF-4 file of rain rates."""
    import h5netcdf

    coarseness = settings.coarseness or 1
    grid = archive.schema.grid.coarsened(coarseness)
    with h5netcdf.File(to, "w") as file:
        file.attrs.update({**_described(archive), **settings.attributes})
        file.dimensions = {"time": None, "y": grid.shape[0], "x": grid.shape[1]}
        for name, (values, attributes) in grid.cf_coordinates().items():
            made = file.create_variable(name, () if name == "crs" else (name,), np.asarray(values).dtype)
            made[...] = values
            made.attrs.update(_storable(attributes))
        time = file.create_variable("time", ("time",), np.int64)
        time.attrs.update({"standard_name": "time", "long_name": "time of observation", "axis": "T", **_TIME})
        variables = _variables(archive, coarseness)
        for name, attributes in variables.items():
            made = file.create_variable(
                name,
                ("time", "y", "x"),
                np.float32,
                fillvalue=np.float32(np.nan),
                chunks=(1, *plane_of(grid.shape)),
                compression="gzip",
                compression_opts=4,
                shuffle=True,
            )
            made.attrs.update({**attributes, "grid_mapping": "crs"})
        for start, times, values in _pieces(archive, slots, coarseness, progress):
            file.resize_dimension("time", start + len(times))
            time[start : start + len(times)] = times
            for name, value in values.items():
                file.variables[name][start : start + len(times)] = value


def _zarr(archive: Archive, slots: Int[ndarray, n], to: Path, settings: ExportSettings, progress: Progress) -> None:
    """Write one CF Zarr group of rain rates, as xarray opens it."""
    import zarr
    from zarr.codecs import ZstdCodec

    coarseness = settings.coarseness or 1
    grid = archive.schema.grid.coarsened(coarseness)
    root = zarr.open_group(to, mode="w-", attributes={**_described(archive), **settings.attributes})
    for name, (values, attributes) in grid.cf_coordinates().items():
        _fixed(root, name, values, () if name == "crs" else (name,), attributes)
    _times_and_values(root, archive, slots, coarseness, archive.schema.frames_per_chunk, ZstdCodec(level=3), progress)


def _mlcast(archive: Archive, slots: Int[ndarray, n], to: Path, settings: ExportSettings, progress: Progress) -> None:
    """Write a Zarr group to mlcast's specification of source data: full resolution, a chunk a frame."""
    import zarr
    from pyproj import CRS
    from zarr.codecs import ZstdCodec

    if settings.coarseness not in (None, 1):
        raise SettingError("--format mlcast is of full resolution; leave --coarseness out.")
    grid, schema = archive.schema.grid, archive.schema
    root = zarr.open_group(to, mode="w-")
    now = datetime.now(UTC)
    wkt = CRS.from_user_input(grid.crs).to_wkt()
    root.attrs.update(
        {
            **_described(archive),
            "mlcast_created_on": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "mlcast_dataset_version": "0.1.0",
            "mlcast_dataset_validator_version": "0.4.0",
            **settings.attributes,
        }
    )
    latitude, longitude = _places(archive)
    x, y = grid.x, grid.y
    west, south = x[0] - grid.step_x / 2, y[-1] - grid.step_y / 2
    mapping = {k: v for k, v in grid.cf_mapping().items() if v is not None}
    named: dict[str, tuple[Any, tuple[str, ...], dict[str, Any]]] = {
        "x": (x, ("x",), {"standard_name": "projection_x_coordinate", "units": "m", "axis": "X"}),
        "y": (y, ("y",), {"standard_name": "projection_y_coordinate", "units": "m", "axis": "Y"}),
        "lat": (latitude, ("y", "x"), {"standard_name": "latitude", "units": "degrees_north"}),
        "lon": (longitude, ("y", "x"), {"standard_name": "longitude", "units": "degrees_east"}),
        "crs": (
            np.int32(0),
            (),
            {
                **mapping,
                "crs_wkt": wkt,
                "spatial_ref": wkt,
                "GeoTransform": f"{west} {grid.step_x} 0 {y[0] + grid.step_y / 2} 0 {-grid.step_y}",
                "bbox": [west, south, x[-1] + grid.step_x / 2, y[0] + grid.step_y / 2],
            },
        ),
    }
    for name, (values, dims, attributes) in named.items():
        _fixed(root, name, values, dims, attributes)
    first, last = int(slots[0]), int(slots[-1])
    gone = np.setdiff1d(np.arange(first, last + 1), slots)
    times = np.array([_seconds(schema.axis.time(int(slot))) for slot in gone], np.int64)
    made = root.create_array(
        "missing_times",
        shape=times.shape,
        dtype=np.int64,
        chunks=(max(1, len(times)),),
        dimension_names=("missing_times",),  # of its own name: a coordinate, not a variable of rain
        attributes={"long_name": "times without data", **_TIME},
    )
    made[...] = times
    _times_and_values(root, archive, slots, 1, 1, ZstdCodec(level=3), progress, on_slots=True)


def _times_and_values(
    root: Any,
    archive: Archive,
    slots: Int[ndarray, n],
    coarseness: int,
    per_chunk: int,
    codec: Any,
    progress: Progress,
    on_slots: bool = False,
) -> None:
    """Write `time` and the rain of an archive into a Zarr group."""
    grid = archive.schema.grid.coarsened(coarseness)
    time = root.create_array(
        "time",
        shape=(len(slots),),
        dtype=np.int64,
        chunks=(len(slots),),
        dimension_names=("time",),
        attributes={"standard_name": "time", "axis": "T", **_TIME},
    )
    plane = grid.shape if on_slots else plane_of(grid.shape)
    arrays = {
        name: root.create_array(
            name,
            shape=(len(slots), *grid.shape),
            chunks=(per_chunk, *plane),
            dtype=np.float32,
            fill_value=float("nan"),
            compressors=[codec],
            dimension_names=("time", "y", "x"),
            attributes={
                **attributes,
                "grid_mapping": "crs",
                **(
                    {"standard_name": "rainfall_flux", "units": "kg m-2 h-1", "coordinates": "lat lon"}
                    if on_slots
                    else {}
                ),
            },
        )
        for name, attributes in _variables(archive, coarseness).items()
    }
    for start, times, values in _pieces(archive, slots, coarseness, progress, on_slots, per_chunk):
        time[start : start + len(times)] = times
        for name, value in values.items():
            arrays[name][start : start + len(times)] = value


def _fixed(root: Any, name: str, values: Any, dims: tuple[str, ...], attributes: dict[str, Any]) -> None:
    array = np.asarray(values)
    made = root.create_array(name, shape=array.shape, dtype=array.dtype, dimension_names=dims, attributes=attributes)
    made[...] = array


def _variables(archive: Archive, coarseness: int) -> dict[str, dict[str, Any]]:
    """Return the names and attributes of what is exported at a coarseness."""
    rate = {"standard_name": "rainfall_rate", "units": "mm h-1"}
    if coarseness == 1:
        return {"rainfall_rate": {"long_name": "rain rate", **rate}}
    maximum = {"long_name": "highest rain rate of a block", "cell_methods": "y: x: maximum", **rate}
    if archive.schema.average == "rain_rate":
        mean = {"long_name": "mean rain rate of a block", "cell_methods": "y: x: mean", **rate}
        return {"rainfall_rate_maximum": maximum, "rainfall_rate_mean": mean}
    mean = {"long_name": "mean level of a block, dry as 0", "cell_methods": "y: x: mean", "units": "1"}
    return {"rainfall_rate_maximum": maximum, "rain_level_mean": mean}


def _pieces(
    archive: Archive,
    slots: Int[ndarray, n],
    coarseness: int,
    progress: Progress,
    on_slots: bool = False,
    per_chunk: int = 1,
) -> Iterator[tuple[int, Int[ndarray, t], dict[str, Float[ndarray, "t y x"]]]]:
    """Yield where a piece of frames starts, its times in seconds, and its values by variable."""
    axis = archive.schema.axis
    start = 0
    for piece in _cut(archive, slots, per_chunk):
        rates = _rates(archive, coarseness, _blocks(archive, coarseness, piece))
        times = [axis.time(int(slot)) for slot in piece] if on_slots else frame_times(archive, piece)
        seconds = np.array([_seconds(time) for time in times], np.int64)
        yield start, seconds, dict(zip(_variables(archive, coarseness), rates, strict=True))
        start += len(piece)
        progress(start, len(slots), show_time(axis.time(int(piece[-1]))))


def _cut(archive: Archive, slots: Int[ndarray, n], per_chunk: int = 1) -> Iterator[Int[ndarray, t]]:
    """Yield the slots in pieces whose frames fit into memory, each of whole chunks of what is written."""
    shape = archive.schema.grid.shape
    count = max(1, PIECE_PIXELS // (shape[0] * shape[1]))
    count = max(per_chunk, count - count % per_chunk)
    for start in range(0, len(slots), count):
        yield slots[start : start + count]


def _blocks(archive: Archive, coarseness: int, slots: Int[ndarray, t]) -> dict[str, UInt8[ndarray, "t y x"]]:
    """Return maximum, mean ratio and observed pixels of each block of some slots."""
    runs = [archive.blocks(coarseness, first, last) for first, last in _spans(slots)]
    return {name: np.concatenate([run[name] for run in runs]) for name in runs[0]}


def _rates(archive: Archive, coarseness: int, blocks: Mapping[str, UInt8[ndarray, "t y x"]]) -> list[ndarray]:
    """Return the values of `_variables`, float32, NaN where nothing was observed."""
    table = archive.schema.table
    maximum = table.decode(blocks["max"])
    if coarseness == 1:
        return [maximum]
    share = blocks["mean"].astype(np.float32) / np.float32(255)
    if archive.schema.average == "rain_rate":
        return [maximum, maximum * share]
    level = np.where(blocks["max"] == NOT_OBSERVED, np.nan, blocks["max"]).astype(np.float32)
    return [maximum, level * share]


def _slots(archive: Archive) -> Int[ndarray, n]:
    if archive.span is None:
        return np.empty(0, np.int64)
    return np.asarray(archive.span[0] + np.flatnonzero(archive.observed(*archive.span)))


def _spans(slots: Int[ndarray, n]) -> Iterator[tuple[int, int]]:
    """Yield runs of neighbouring slots as start and stop."""
    for run in np.split(slots, np.flatnonzero(np.diff(slots) > 1) + 1):
        yield int(run[0]), int(run[-1]) + 1


def _described(archive: Archive) -> dict[str, Any]:
    return {
        "Conventions": CONVENTIONS,
        "title": "Weather radar rain rates",
        "institution": archive.schema.credit,
        "source": f"{archive.schema.source} by Fastrain {version('fastrain')}",
        "history": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} exported from archive {archive.schema.identity}",
        "comment": "Rates are representative ones of the archive's levels; NaN where nothing was observed.",
    }


def _places(archive: Archive) -> tuple[Float[ndarray, "y x"], Float[ndarray, "y x"]]:
    grid = archive.schema.grid
    rows, columns = np.indices(grid.shape)
    return grid.places(rows, columns)


def _seconds(time: datetime) -> int:
    return round((time - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(seconds=1))


def _storable(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {k: np.asarray(v) if isinstance(v, list) else v for k, v in attributes.items()}


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
