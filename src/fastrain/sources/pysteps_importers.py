"""Any importer that an installed pysteps offers, as a reader: `--format pysteps:NAME`; and ours, offered to pysteps.

An importer returns rain rate, amount or reflectivity with a dictionary of metadata and no time: the time stands in the
file's name. pysteps finds `import_fastrain` by the entry point `pysteps.plugins.importer`.

Source: pysteps 1.21, `pysteps.io.importers`.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from fastrain.core.errors import DamagedFile, SettingError, SourceError, first_line
from fastrain.core.frame import Frame
from fastrain.core.grid import Grid
from fastrain.core.levels import rain_rate_of_reflectivity
from fastrain.core.time import time_in_name
from fastrain.sources.hdf5 import layout
from fastrain.sources.reader import MOST_PIXELS, Reader, ReadOptions, binned_table, plausible

PREFIX = "pysteps:"


def importer_reader(name: str) -> Reader:
    """Return the reader that stands on the importer of this name.

    Raises:
        SettingError: pysteps is not installed, or offers no such importer.
    """
    _importer(name)
    return Reader(
        recognises=lambda path, head: False,
        read=partial(read, name),
        average="rain_rate",
        credit=f"as read by pysteps' importer {name}",
    )


def read(name: str, path: Path, options: ReadOptions) -> Iterator[Frame]:
    """Yield the one frame of a file.

    Raises:
        DamagedFile: the importer fails, or what it returns is no map of rain.
        UnknownTime: the file's name tells no time.
    """
    time = time_in_name(path.name, options.time_pattern)
    importer = _importer(name)
    with path.open("rb") as file:
        layout(path, file.read(8))  # refuses HDF5 that an importer would read for ever
    with contextlib.redirect_stdout(sys.stderr):
        try:
            value, _, metadata = importer(str(path), **_keywords(options))
        except TypeError as error:
            raise SettingError(f"pysteps' importer {name}: {error}; hand it over with --importer KEY=VALUE.") from None
        except Exception as error:  # noqa: BLE001 - an importer may raise anything; the file is what it names
            raise DamagedFile(f"{path.name}: pysteps' importer {name} failed: {first_line(error)}.") from None
    value = np.ma.filled(np.ma.asarray(value).astype(np.float64), np.nan)
    if value.ndim != 2 or not 0 < value.size <= MOST_PIXELS:
        raise DamagedFile(f"{path.name}: pysteps' importer {name} returned {value.shape}, expected one map.")
    rate = plausible(_rate(value, metadata, path.name))
    grid = _grid(metadata, value.shape, path.name)
    if metadata.get("yorigin", "upper") == "lower":
        rate = rate[::-1]
    yield Frame(np.ascontiguousarray(binned_table().encode(rate)), time, grid, binned_table(), path.name)


def import_fastrain(filename: str, format: str = "auto", **keywords: Any) -> tuple[Any, None, dict[str, Any]]:
    """Return rain rate in mm/h, no quality, and pysteps' metadata of any file that Fastrain reads.

    Args:
        filename: of the file; of one that holds many frames, the first is returned.
        format: a reader's name, or auto.
        keywords: of `ReadOptions`.
    """
    from fastrain.sources import ReadOptions as Options
    from fastrain.sources import read_frames, recognise

    path = Path(filename)
    frame = next(iter(read_frames(path, recognise(path) if format == "auto" else format, Options(**keywords))))
    rate = frame.table.decode(frame.level).astype(np.float64)
    grid = frame.grid
    wet = rate[rate > 0]
    rows, columns = grid.shape
    metadata = {
        "projection": grid.proj_string(),
        "x1": grid.west - grid.step_x / 2,
        "x2": grid.west + (columns - 0.5) * grid.step_x,
        "y1": grid.north - (rows - 0.5) * grid.step_y,
        "y2": grid.north + grid.step_y / 2,
        "xpixelsize": grid.step_x,
        "ypixelsize": grid.step_y,
        "cartesian_unit": "m",
        "yorigin": "upper",
        "institution": "as the file says",
        "unit": "mm/h",
        "transform": None,
        "accutime": None,
        "zerovalue": 0.0,
        "threshold": float(wet.min()) if wet.size else 0.0,
        "zr_a": None,
        "zr_b": None,
        "timestamp": frame.valid_time,
    }
    return rate, None, metadata


@cache
def _importer(name: str) -> Any:
    try:
        with contextlib.redirect_stdout(sys.stderr):
            from pysteps.io import interface
    except ImportError:
        raise SettingError(f"--format {PREFIX}{name}: pysteps is not installed: pip install pysteps.") from None
    known = {n for n in interface._importer_methods if isinstance(n, str)}
    if name not in known:
        raise SettingError(f"--format {PREFIX}{name}: pysteps offers {', '.join(sorted(known))}.")
    return interface._importer_methods[name]


def _keywords(options: ReadOptions) -> dict[str, Any]:
    """Return what the user hands over, numbers as numbers."""
    given: dict[str, Any] = {}
    for key, value in options.importer:
        try:
            given[key] = float(value) if "." in value else int(value)
        except ValueError:
            given[key] = value
    return given


def _rate(value: Any, metadata: dict[str, Any], name: str) -> Any:
    unit, transform = metadata.get("unit"), metadata.get("transform")
    if transform not in (None, "dB") or (transform == "dB" and unit != "dBZ"):
        raise SourceError(f"{name}: its values are transformed ({transform}); expected plain ones.")
    if unit == "mm/h":
        return value
    if unit == "mm":
        minutes = float(metadata.get("accutime") or 0)
        if minutes <= 0:
            raise SourceError(f"{name}: an amount over {minutes:g} minutes; give --importer accutime=MINUTES.")
        return value * 60.0 / minutes
    if unit == "dBZ":
        return rain_rate_of_reflectivity(
            value, float(metadata.get("zr_a") or 200.0), float(metadata.get("zr_b") or 1.6)
        )
    raise SourceError(f"{name}: its unit is {unit!r}; expected mm/h, mm or dBZ.")


def _grid(metadata: dict[str, Any], shape: tuple[int, ...], name: str) -> Grid:
    rows, columns = shape
    scale = {"m": 1.0, "km": 1000.0}.get(str(metadata.get("cartesian_unit", "m")))
    x1, x2, y1, y2 = (float(metadata[key]) for key in ("x1", "x2", "y1", "y2"))
    if scale is None:
        if metadata.get("cartesian_unit") != "degrees":
            raise SourceError(f"{name}: a grid in {metadata.get('cartesian_unit')!r}; expected m, km or degrees.")
        step_y, step_x = (max(y1, y2) - min(y1, y2)) / rows, (x2 - x1) / columns
        west = x1 - 360 if x1 >= 180 else x1
        return Grid.of_degrees(max(y1, y2) - step_y / 2, west + step_x / 2, step_y, step_x, (rows, columns))
    step_x, step_y = (x2 - x1) * scale / columns, abs(y2 - y1) * scale / rows
    crs = str(metadata["projection"])
    return Grid(crs, x1 * scale + step_x / 2, max(y1, y2) * scale - step_y / 2, step_x, step_y, (rows, columns))
