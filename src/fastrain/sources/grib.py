"""The process that decodes GRIB2 messages with eccodes: lengths and messages in, what they are and levels out.

`python -m fastrain.sources.grib` reads messages from standard input, each after its length in eight bytes, and answers
each with a line of JSON and, where the line says so, as many bytes of levels. `mrms` starts and ends it.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
from typing import Any, BinaryIO

import numpy as np
from numpy import ndarray

from fastrain.sources.reader import MOST_PIXELS, binned_table, levels_by_pieces, plausible

_MOST_SPACE = 4 * 2**30  # bytes of address space; the largest map that is read takes a quarter
# Discipline, category and number of what is a rain rate, and its factor to mm/h: MRMS's PrecipRate; WMO's precipitation
# rates in kg m-2 s-1. Every MRMS product has discipline 209, reflectivity and day sums too.
FACTORS = {(209, 6, 1): 1.0, (0, 1, 7): 3600.0, (0, 1, 52): 3600.0, (0, 1, 65): 3600.0}


def serve(source: BinaryIO, target: BinaryIO) -> None:
    """Answer messages until the input ends."""
    try:
        import eccodes
    except (ImportError, RuntimeError) as error:
        eccodes = None
        missing = str(error).splitlines()[0]
    while head := source.read(8):
        message = source.read(int.from_bytes(head, "big"))
        level = np.empty(0, np.uint8)
        if eccodes is None:
            said: dict[str, Any] = {"missing": missing}
        else:
            try:
                said, level = _decoded(eccodes, message)
            except (eccodes.CodesInternalError, ValueError, TypeError, MemoryError) as error:
                said = {"error": str(error) or type(error).__name__}
        target.write(json.dumps({**said, "bytes": level.size}).encode() + b"\n" + level.tobytes())
        target.flush()


def _decoded(eccodes: Any, message: bytes) -> tuple[dict[str, Any], ndarray]:
    handle = eccodes.codes_new_from_message(message)
    try:

        def get(key: str) -> Any:
            return eccodes.codes_get(handle, key)

        rows, columns = get("Nj"), get("Ni")
        if get("gridType") != "regular_ll":
            raise ValueError(f"a grid of type {get('gridType')}, expected even degrees")
        if not 0 < rows * columns <= MOST_PIXELS or get("iScansNegatively") or get("jPointsAreConsecutive"):
            raise ValueError(f"{columns}×{rows} pixels, expected rows from west to east")
        said = {
            "rows": rows,
            "columns": columns,
            "latitudes": [get(f"latitudeOf{which}GridPointInDegrees") for which in ("First", "Last")],
            "longitudes": [get(f"longitudeOf{which}GridPointInDegrees") for which in ("First", "Last")],
            "time": [get(part) for part in ("year", "month", "day", "hour", "minute", "second")],
            "quantity": [get(key) for key in ("discipline", "parameterCategory", "parameterNumber")],
            "forecast": get("forecastTime"),
            "shortName": get("shortName"),
            "name": get("name"),
        }
        said["factor"] = FACTORS.get(tuple(said["quantity"]))
        if said["factor"] is None or said["forecast"]:
            return said, np.empty(0, np.uint8)  # the reader says what it holds instead
        values = eccodes.codes_get_values(handle)
    finally:
        eccodes.codes_release(handle)
    if values.size != rows * columns:
        raise ValueError(f"{values.size} values, expected {rows * columns}")

    def convert(piece: ndarray) -> ndarray:
        rate = np.array(piece, dtype=np.float64)
        rate[rate < 0] = np.nan
        rate *= said["factor"]
        return binned_table().encode(plausible(rate))

    return said, levels_by_pieces(values.reshape(rows, columns), convert)


if __name__ == "__main__":
    stands = [limit for limit in resource.getrlimit(resource.RLIMIT_AS) if limit != resource.RLIM_INFINITY]
    most = min([_MOST_SPACE, *stands])  # for what a damaged message claims
    with contextlib.suppress(OSError, ValueError):  # a system without such a limit
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not stand among the answers
    serve(sys.stdin.buffer, answers)
    os._exit(0)  # without the library's clean-up, which is where it may crash
