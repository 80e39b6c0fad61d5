"""Forecasts: chances of rain on the grid as a CF dataset, and read off at a place.

Where the radar does not see, there is no chance, never a number.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from fastrain.archive.store import Archive, frame_time
from fastrain.core.errors import GapError, NotObserved, PlaceError
from fastrain.core.grid import Grid
from fastrain.core.memory import keep_freed_memory
from fastrain.core.time import show_time, utc_of
from fastrain.rain.hindcast import Network, learn_from_past
from fastrain.rain.inputs import make_inputs
from fastrain.rain.radar import Radar
from fastrain.rain.run import GRID, Run
from fastrain.samples.frames import load_frames, require_history
from fastrain.samples.truth import observed_now

if TYPE_CHECKING:
    import xarray as xr

SURE_NO, SURE_YES = 0.1, 0.9  # the traffic lights: below the one no, from the other on yes, unsure between


@dataclass(frozen=True)
class PeriodChance:
    """The chances of one period.

    Attributes:
        start_min, end_min: minutes after issue.
        start, valid_time: UTC; a period's valid time is its end.
        chances: by threshold in mm/h.
        lights: by threshold: no, unsure or yes.
    """

    start_min: int
    end_min: int
    start: datetime
    valid_time: datetime
    chances: dict[str, float]
    lights: dict[str, str]


@dataclass(frozen=True)
class PlaceForecast:
    """The chances at one place.

    Attributes:
        latitude, longitude: of the cell's centre, degrees.
        pixel: row and column asked for, at coarseness 1.
        cell: row and column of the cell they lie in.
        cell_km: its edge.
        issue_time: UTC, of the last observation used.
        thresholds: mm/h.
        periods: in time order.
        run, network, archive: what made it.
        credit: whom to thank for the data.
        truth: which rate of the cell the chances speak of, its maximum or its mean.
    """

    latitude: float
    longitude: float
    pixel: tuple[int, int]
    cell: tuple[int, int]
    cell_km: float
    issue_time: datetime
    thresholds: tuple[float, ...]
    periods: tuple[PeriodChance, ...]
    run: str
    network: str
    archive: str
    credit: str
    truth: str


def issue_slot(archive: Archive, at: datetime | None) -> int:
    """Return the slot a forecast is issued at: of a time, or of the last frame.

    Raises:
        GapError: the archive is empty, or holds nothing at that time.
    """
    if archive.span is None:
        raise GapError(f"{archive.path}: the archive is empty; ingest into it first.")
    start, stop = archive.span
    if at is None:
        held = np.flatnonzero(archive.observed(start, stop))
        if len(held) == 0:
            raise GapError(f"{archive.path}: no frame in it may be used; see `fastrain info`.")
        return start + int(held[-1])
    try:
        slot = archive.schema.axis.slot(at)[0]
    except OverflowError:
        slot = -1
    if not start <= slot < stop:
        first, last = (show_time(archive.schema.axis.time(s)) for s in (start, stop - 1))
        raise GapError(f"Issue time {show_time(at)} is outside the archive, which reaches from {first} to {last}.")
    return slot


def forecast_grid(run: Run, archive: Archive, at: datetime | None = None) -> xr.Dataset:
    """Return the chances of rain on the grid of cells, or on the one cell that a run of a place speaks of.

    Args:
        run: that forecasts.
        archive: with the last frames.
        at: issue time, UTC; that of the last frame if None.

    Returns:
        `chance` (period, threshold, y, x), NaN where the radar does not see the cell, with the bounds of each period,
        its valid time (its end), the issue time as `forecast_reference_time`, and CF grid mapping.

    Raises:
        GapError: frames of the history are missing; the message names them.

    The process keeps from then on what memory it frees, for the next forecast.
    """
    import xarray as xr

    keep_freed_memory()
    radar = run.radar(archive)
    coarseness = run.coarseness_on(archive)
    slot = issue_slot(archive, at)
    require_history(archive, slot, radar.layout)
    grid = archive.schema.grid.coarsened(coarseness)
    corner = (0, 0)
    if run.recipe == GRID:
        chance = _map_of_chances(run, archive, radar, slot)
    else:
        from fastrain.rain.place.run import place_chances

        chance, corner = place_chances(run, archive, radar, slot)
        grid = grid.part(corner, (1, 1))
    issue = frame_time(archive, slot)
    periods = run.layout.periods
    reference = np.datetime64(issue.replace(tzinfo=None), "ns")
    minutes = np.array(periods) * np.timedelta64(60, "s").astype("timedelta64[ns]")
    return xr.Dataset(
        {
            "chance": (
                ("period", "threshold", "y", "x"),
                chance.astype(np.float32),
                {
                    "long_name": f"chance that the cell's {run.truth} rain rate reaches the threshold in the period",
                    "units": "1",
                    "grid_mapping": "crs",
                    "cell_methods": f"y: x: {run.truth} valid_time: maximum",
                },
            ),
            "lead_bounds": (
                ("period", "bound"),
                minutes,
                {"long_name": "start and end of the period after issue"},
            ),
        },
        coords={
            "threshold": (
                "threshold",
                list(radar.thresholds),
                {"long_name": "rain rate reached", "units": "mm h-1"},
            ),
            "lead_time": (
                "period",
                minutes[:, 1],
                {"standard_name": "forecast_period", "bounds": "lead_bounds"},
            ),
            "valid_time": (
                "period",
                reference + minutes[:, 1],
                {"standard_name": "time", "long_name": "end of the period"},
            ),
            "issue_time": ((), reference, {"standard_name": "forecast_reference_time"}),
            **{
                name: ((name,) if name != "crs" else (), *described)
                for name, described in grid.cf_coordinates().items()
            },
        },
        attrs={
            "Conventions": "CF-1.11",
            "title": "Chances of rain",
            "source": f"fastrain network {run.identity} on archive {archive.schema.identity}",
            "run": str(run.path),
            "network": run.identity,
            "archive": archive.schema.identity,
            "credit": archive.schema.credit,
            "coarseness": coarseness,
            "corner": list(corner),
            "truth": run.truth,
        },
    )


def _map_of_chances(run: Run, archive: Archive, radar: Radar, slot: int) -> Float[ndarray, "period threshold y x"]:
    coarseness = run.coarseness_on(archive)
    frames = load_frames(archive, coarseness, np.arange(slot - radar.layout.history + 1, slot + 1))
    inputs, moved = make_inputs(frames, slot, radar, every=False)
    network = Network.of(run, radar)
    learn_from_past(network, archive, coarseness, radar, slot)
    chance = network.chances(network.summands(frames, slot, inputs, moved, radar), slot)
    chance[:, :, ~observed_now(frames, slot)] = np.nan
    return chance


def pixel_of(
    run: Run, grid: Grid, place: tuple[float, float] | None, pixel: tuple[int, int] | None
) -> tuple[int, int] | None:
    """Return the pixel of a place, of a pixel asked for, or of the run's own place; None where nobody named any.

    Raises:
        PlaceError: it lies outside the picture.
    """
    if place is not None:
        return grid.pixel(*place)
    pixel = pixel or run.place_on(grid)
    if pixel is not None:
        grid.require(pixel)
    return pixel


def at_place(chances: xr.Dataset, grid: Grid, pixel: tuple[int, int]) -> PlaceForecast:
    """Return the chances of the cell in which a pixel lies.

    Args:
        chances: of `forecast_grid`.
        grid: of the archive, at coarseness 1.
        pixel: row and column.

    Raises:
        NotObserved: the radar does not see the cell now.
    """
    coarseness = int(chances.attrs["coarseness"])
    row, column = pixel[0] // coarseness, pixel[1] // coarseness
    cells = grid.coarsened(coarseness)
    latitude, longitude = cells.place(row, column)
    top, left = (int(v) for v in np.atleast_1d(chances.attrs["corner"]))
    height, width = chances.sizes["y"], chances.sizes["x"]
    if not (top <= row < top + height and left <= column < left + width):
        here = cells.place(top, left)
        raise PlaceError(
            f"The run {chances.attrs['run']} speaks of one place alone, the cell at {here[0]:.3f},{here[1]:.3f}; train "
            "one for this place, or a run of the whole map (--recipe grid)."
        )
    chance = chances["chance"].values[:, :, row - top, column - left]
    issue = utc_of(chances["issue_time"].values)
    if np.isnan(chance).any():
        raise NotObserved(
            f"The radar does not see {latitude:.3f},{longitude:.3f} at {show_time(issue)} (beyond its range, or hidden "
            "by a line or label): no chance can be given there."
        )
    thresholds = tuple(float(t) for t in chances["threshold"].values)
    periods = []
    for i, (start, end) in enumerate(chances["lead_bounds"].values):
        minutes = tuple(int(m / np.timedelta64(60, "s")) for m in (start, end))
        values = {f"{t:g}": round(float(c), 4) for t, c in zip(thresholds, chance[i], strict=True)}
        periods.append(
            PeriodChance(
                start_min=minutes[0],
                end_min=minutes[1],
                start=issue + timedelta(minutes=minutes[0]),
                valid_time=issue + timedelta(minutes=minutes[1]),
                chances=values,
                lights={t: light(c) for t, c in values.items()},
            )
        )
    return PlaceForecast(
        latitude=round(latitude, 5),
        longitude=round(longitude, 5),
        pixel=pixel,
        cell=(row, column),
        cell_km=cells.cell_km,
        issue_time=issue,
        thresholds=thresholds,
        periods=tuple(periods),
        run=chances.attrs["run"],
        network=chances.attrs["network"],
        archive=chances.attrs["archive"],
        credit=chances.attrs["credit"],
        truth=chances.attrs["truth"],
    )


def light(chance: float) -> str:
    """Return the traffic light of a chance: no, unsure or yes; decided on whole per cents, as people see them."""
    seen = round(chance, 2)
    return "no" if seen < SURE_NO else "yes" if seen >= SURE_YES else "unsure"


def write_netcdf(chances: xr.Dataset, path: str) -> None:
    """Write a forecast as CF NetCDF."""
    packed = {"zlib": True, "complevel": 4, "dtype": "float32", "_FillValue": np.float32(np.nan)}
    seconds = {"units": "seconds since 1970-01-01T00:00:00", "dtype": "int64"}
    encoding: dict[str, Any] = {"chance": packed, "valid_time": seconds, "issue_time": seconds}
    encoding |= {name: {"units": "minutes", "dtype": "int32"} for name in ("lead_time", "lead_bounds")}
    chances.to_netcdf(path, engine="h5netcdf", encoding=encoding)
