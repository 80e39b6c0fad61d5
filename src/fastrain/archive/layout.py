"""The arrays of an archive as zarr makes them: names, chunks, codecs and CF attributes."""

from __future__ import annotations

from typing import Any

import numpy as np
import zarr
from jaxtyping import Bool
from numpy import ndarray
from zarr.codecs import ZstdCodec

from fastrain.archive.chunks import LEVEL, fill_of, plane_of
from fastrain.archive.schema import CONVENTIONS, DIGEST_BYTES, SLOTS_PER_CHUNK, Schema
from fastrain.core.levels import NOT_OBSERVED

BLOCK_ARRAYS = ("max", "mean", "observed")
LEVEL_NAMES = {"lower": "lowest", "upper": "highest", "rate": "representative"}


def codecs() -> list[Any]:
    """Return how every chunk is stored: compressed as a whole, with a checksum of its content.

    Chosen by `benchmarks/codec.py`: what is the same from frame to frame (lines, the edge of the range) costs nothing
    where the compressor sees all of a chunk, which Blosc's blocks keep it from.
    """
    return [ZstdCodec(level=LEVEL, checksum=True)]


def lay_out(root: zarr.Group, schema: Schema, hidden: Bool[ndarray, "y x"] | None) -> None:
    """Create an archive's groups and arrays, all empty, in a fresh group."""
    root.attrs.update(
        {
            **schema.as_attributes(),
            "Conventions": CONVENTIONS,
            "title": "Weather radar frames at several coarsenesses",
            "first_slot": None,
            "last_slot": None,
        }
    )
    _slots(root, schema)
    _levels(root, schema)
    for coarseness in (1, *schema.coarseness):
        _grid_group(root, schema, coarseness)
    if hidden is not None:
        group = root.create_group("background")
        long_name = "where lines, labels, logos or the edge of the range hide the rain"
        _fixed(group, "hidden", hidden.astype(np.uint8), ("y", "x"), {"long_name": long_name})


def _slots(root: zarr.Group, schema: Schema) -> None:
    described: dict[str, tuple[str, int, dict[str, Any]]] = {
        "status": (
            "uint8",
            0,
            {
                "long_name": "what is known of a slot",
                "flag_values": [0, 1, 2, 3],
                "flag_meanings": "missing observed suspect repaired",
            },
        ),
        "time_offset": ("int32", 0, {"long_name": "time of observation after its slot", "units": "s"}),
        "wet_pixels": (
            "uint32",
            0,
            {"long_name": "pixels of at least 0.1 mm/h, or of the nearest level edge", "units": "1"},
        ),
        "observed_pixels": ("uint32", 0, {"long_name": "pixels observed", "units": "1"}),
    }
    for name, (dtype, fill, attributes) in described.items():
        root.create_array(
            name,
            shape=(schema.axis.size,),
            chunks=(SLOTS_PER_CHUNK,),
            dtype=dtype,
            fill_value=fill,
            compressors=codecs(),
            dimension_names=("time",),
            attributes=attributes,
        )
    root.create_array(
        "digest",
        shape=(schema.axis.size, DIGEST_BYTES),
        chunks=(SLOTS_PER_CHUNK, DIGEST_BYTES),
        dtype="uint8",
        fill_value=0,
        compressors=codecs(),
        dimension_names=("time", "digest_byte"),
        attributes={"long_name": "first 16 bytes of the SHA-256 digest of the frame's levels"},
    )


def _levels(root: zarr.Group, schema: Schema) -> None:
    table = schema.table
    edges = {
        "lower": (0.0, *table.lower),
        "upper": (table.lower[0], *table.upper),
        "rate": (0.0, *table.rate),
    }
    for name, values in edges.items():
        attributes = {"long_name": f"{LEVEL_NAMES[name]} rain rate of a level", "units": "mm h-1"}
        # All 256 bytes have an entry, so that `level_rate[level]` holds for the ones that are not observed too.
        padded = np.full(256, np.nan)
        padded[: len(values)] = values
        _fixed(root, f"level_{name}", padded, ("level",), attributes)


def _grid_group(root: zarr.Group, schema: Schema, coarseness: int) -> None:
    group = root.create_group(str(coarseness))
    grid = schema.grid.coarsened(coarseness)
    for name, (values, attributes) in grid.cf_coordinates().items():
        _fixed(group, name, np.asarray(values), (name,) if name != "crs" else (), attributes)
    shared = {"grid_mapping": "crs", "units": "1"}
    rain = "1 to 254 rising rain rate by the table level_lower, level_upper, level_rate"
    if coarseness == 1:
        described: dict[str, dict[str, Any]] = {
            "level": {
                "long_name": "rain level",
                "comment": f"0 dry, {rain}, 255 not observed",
                "_FillValue": NOT_OBSERVED,
            }
        }
    else:
        described = {
            "max": {
                "long_name": "highest rain level of a block",
                "comment": f"0 dry, {rain}, 255 nothing observed",
                "cell_methods": "y: x: maximum",
                "_FillValue": NOT_OBSERVED,
            },
            "mean": {
                "long_name": f"mean {schema.average.replace('_', ' ')} of a block, as a share of its maximum",
                "comment": "mean = max · mean / 255 (max read as a level or as its rain rate); all values mean "
                "something: where nothing was observed, max alone says so",
                "cell_methods": "y: x: mean",
            },
            "observed": {"long_name": "observed pixels of a block", "cell_methods": "y: x: sum"},
        }
    for name, attributes in described.items():
        group.create_array(
            name,
            shape=(schema.axis.size, *grid.shape),
            chunks=(schema.frames_per_chunk, *plane_of(grid.shape)),
            dtype="uint8",
            fill_value=fill_of(f"{coarseness}/{name}"),
            compressors=codecs(),
            dimension_names=("time", "y", "x"),
            attributes={**shared, **attributes},
        )


def _fixed(group: zarr.Group, name: str, values: ndarray, names: tuple[str, ...], attributes: dict[str, Any]) -> None:
    array = group.create_array(
        name,
        shape=values.shape,
        chunks=values.shape if values.ndim else (),
        dtype=values.dtype,
        compressors=codecs() if values.ndim else None,
        dimension_names=names,
        attributes=attributes,
    )
    array[...] = values
