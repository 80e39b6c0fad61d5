"""Draw docs/images/sources/*.png: a frame of each source; made rain in its form where its licence forbids a picture."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
from made_files import WRITERS
from matplotlib import pyplot as plt
from matplotlib.colors import BoundaryNorm, ListedColormap

from fastrain.sources import read_frames, reader_of

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("FASTRAIN_DATA", ROOT.parent / "shared" / "data"))
FILES = {
    "knmi": ("knmi", "radar/knmi_2010-08-26/RAD_NL25_RAP_5min_201008260530.h5"),
    "fmi": ("fmi", "radar/fmi_2016-09-28/201609281600_fmi.radar.composite.lowest_FIN_SUOMI1.pgm.gz"),
    "mrms": ("mrms", "radar/mrms_2019-06-10/PrecipRate_00.00_20190610-000000.grib2"),
    "eccc": ("eccc", "radar/eccc_other/202508292100_CASFT_CAPPI_1.5_RAIN.gif"),
    "eccc_accessible": ("eccc", "radar/eccc_other/202508210954_CASFT_CAPPI_1.5_RAIN_A11Y.gif"),
    "eccc_snow": ("eccc", "radar/eccc_other/202508210954_CASFT_CAPPI_1.0_SNOW_A11Y.gif"),
    "synthetic": ("synthetic", str(ROOT / "docs" / "rain.toml")),
    "rpbin": ("rpbin", "rpbin/franktown_201206031700.bin"),
    "pysteps": ("pysteps:knmi_hdf5", "radar/knmi_2010-08-26/RAD_NL25_RAP_5min_201008260530.h5"),
}
EDGES = (0.1, 0.5, 1, 2, 5, 10, 20, 50)
COLOURS = ("#c6dbef", "#9ecae1", "#6baed6", "#3182bd", "#08519c", "#fee391", "#fe9929", "#cc4c02")


def main() -> None:
    """Draw them."""
    folder = ROOT / "docs" / "images" / "sources"
    folder.mkdir(parents=True, exist_ok=True)
    palette = ListedColormap(COLOURS)
    palette.set_under("#f7f5ef")
    palette.set_bad("#8c8c8c")
    norm = BoundaryNorm([*EDGES, 300], palette.N)
    with tempfile.TemporaryDirectory() as made:
        files = {name: (format, DATA / file, True) for name, (format, file) in FILES.items()}
        files |= {name: (name, write(Path(made)), False) for name, write in WRITERS.items()}
        for name, (format, file, real) in files.items():
            frame = next(iter(read_frames(file, format)))
            rate = frame.table.decode(frame.level)
            step = max(1, max(rate.shape) // 700)
            figure, axes = plt.subplots(figsize=(5.2, 4.6), layout="constrained")
            shown = axes.imshow(np.ma.masked_invalid(rate[::step, ::step]), cmap=palette, norm=norm)
            title = (
                f"{name.replace('_', ', ')}, {frame.valid_time:%Y-%m-%d %H:%M} UTC" if real else f"{name}, made rain"
            )
            axes.set_title(title, loc="left", fontsize=10)
            axes.set_axis_off()
            bar = figure.colorbar(shown, ax=axes, shrink=0.8, ticks=EDGES)
            bar.set_label("mm/h; grey: not observed", fontsize=8)
            bar.ax.tick_params(labelsize=8)
            figure.supxlabel(reader_of(format).credit if real else "no real radar", fontsize=7, color="0.35")
            figure.savefig(folder / f"{name}.png", dpi=90)
            plt.close(figure)


if __name__ == "__main__":
    main()
