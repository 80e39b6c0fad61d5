"""The Australian Bureau of Meteorology's Rainfields 3: NetCDF-4 of 0.05 mm steps over some minutes, a radar a file.

CF in all but its dimensions, so `cf` reads it; what stands here is how it is told from other NetCDF.
"""

from __future__ import annotations

from fastrain.sources import cf
from fastrain.sources.hdf5 import layout
from fastrain.sources.reader import Reader

READER = Reader(
    recognises=lambda path, head: layout(path, head) == "bom",
    read=cf.read,
    average="rain_rate",
    credit="Commonwealth of Australia, Bureau of Meteorology (ask before you publish)",
)
