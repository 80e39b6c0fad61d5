"""The real sequences of ../shared/data/radar as rain rates: (time, y, x) float32 mm/h, NaN not observed.

KNMI and FMI come through the package's own readers; of the others, which the package does not read yet, the few lines
that decode them stand here.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

RADAR = Path(os.environ.get("FASTRAIN_DATA", Path(__file__).parents[2] / "shared" / "data")) / "radar"


@dataclass(frozen=True)
class Sequence:
    """One event: rain rates, minutes between frames, km per pixel."""

    name: str
    rain_rate: np.ndarray
    cadence: int
    pixel_km: float


def load(name: str) -> Sequence:
    """Return one event by its folder's name."""
    folder = RADAR / name
    if name.startswith(("knmi", "fmi")):
        from fastrain.sources import read_frames

        format = name.split("_")[0]
        frames = [next(iter(read_frames(p, format))) for p in sorted(folder.iterdir())]
        return Sequence(name, np.stack([f.table.decode(f.level) for f in frames]), 5, 1.0)
    if name.startswith("mch"):
        from PIL import Image

        index = np.arange(256, dtype=float)
        table = np.where(index >= 2, (10 ** ((index - 71.5) / 20) / 316) ** (1 / 1.5) * 12, 0.0)
        table[251:] = 0.0
        table[255] = np.nan
        return Sequence(
            name,
            np.stack([table.astype(np.float32)[np.array(Image.open(p))] for p in sorted(folder.iterdir())]),
            5,
            1.0,
        )
    if name.startswith("bom"):
        import h5py

        frames = []
        for path in sorted(folder.iterdir()):
            with h5py.File(path) as file:
                data = file["precipitation"]
                value = data[:].astype(np.float32)
                fill = data.attrs.get("_FillValue")
                missing = np.zeros(value.shape, bool) if fill is None else data[:] == fill
                value = value * float(np.ravel(data.attrs.get("scale_factor", 1.0))[0]) * 6
                frames.append(np.where(missing, np.nan, value))
        return Sequence(name, np.stack(frames).astype(np.float32), 10, 0.5)
    if name.startswith("opera"):
        import h5py

        frames = []
        for path in sorted(folder.iterdir()):
            with h5py.File(path) as file:
                data = file["dataset1/data1/data"][:]
                what = dict(file["dataset1/what"].attrs) | dict(
                    file["dataset1/data1"].get("what", file["dataset1/what"]).attrs
                )
                value = data * what.get("gain", 1.0) + what.get("offset", 0.0)
                value = np.where(data == what["undetect"], 0.0, np.where(data == what["nodata"], np.nan, value))
                frames.append(np.where(value > 300, np.nan, value))
        return Sequence(name, np.stack(frames).astype(np.float32), 15, 2.0)
    raise ValueError(name)


EVENTS = (
    "knmi_2010-08-26",
    "fmi_2016-09-28",
    "mch_2015-05-15",
    "mch_2016-07-11",
    "bom_2020-10-31",
    "opera_2018-08-24",
)
