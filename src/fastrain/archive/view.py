"""An archive as an xarray DataTree, with CF coordinates and grid mapping: what a user opens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy import ndarray

from fastrain.archive.repository import readable_errors
from fastrain.archive.store import Archive

if TYPE_CHECKING:
    import xarray as xr


def open_archive(path: str | Path) -> xr.DataTree:
    """Return an archive as a DataTree that shows the span that holds data; nothing is read before it is asked for.

    Group `1` holds `level (time, y, x)`; group c, for each coarseness c, `max`, `mean` and `observed`. The root holds
    `time` (UTC), `status` and the table of the levels: `level_rate[level]` is the rain rate in mm/h. Levels stay
    bytes: 255 is not observed.

    Raises:
        ArchiveError: there is no archive at the path.
    """
    import xarray as xr

    archive = Archive.open(path)
    with readable_errors(archive.path):
        # Levels stay bytes: masked, they would become floats of four times the size.
        tree: Any = xr.open_datatree(
            archive.root.store,
            engine="zarr",
            consolidated=False,
            chunks=None,
            mask_and_scale=False,
            decode_times=False,
        )
    first, stop = archive.span or (0, 0)
    shown = {name: _shown(node.to_dataset(inherit=False), first, stop) for name, node in tree.subtree_with_keys}
    root = shown["."]
    root = root.assign_coords(time=("time", _times(archive, first, stop), {"standard_name": "time", "axis": "T"}))
    groups = sorted((name for name in shown if name != "."), key=lambda name: (len(name), name))
    return xr.DataTree.from_dict({"/": root, **{name: shown[name] for name in groups}})


def _shown(dataset: xr.Dataset, first: int, stop: int) -> xr.Dataset:
    if "time" in dataset.dims:
        dataset = dataset.isel(time=slice(first, stop))
    return dataset.set_coords([name for name in ("x", "y", "crs") if name in dataset.variables])


def _times(archive: Archive, first: int, stop: int) -> ndarray:
    axis = archive.schema.axis
    origin = np.datetime64(axis.origin.replace(tzinfo=None), "ns")
    return origin + np.arange(first, stop) * np.timedelta64(int(axis.cadence.total_seconds()), "s")
