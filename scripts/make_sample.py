"""Make the sample in the package from ../shared/data: KNMI's night cropped to 320×320, and Franktown's pictures.

python scripts/make_sample.py [DATA]
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import h5py
import numpy as np

ROW, COLUMN, EDGE = 250, 195, 320  # of the crop: within the range of both radars, De Bilt inside
SAMPLE = Path(__file__).parents[1] / "src" / "fastrain" / "sample"
FRANKTOWN = ("XFT_2012_06_03_17_00.GIF", "XFT_PRECIP_RAIN_2013_08_08_03_30.GIF", "XFT_PRECIP_RAIN_2013_08_08_03_40.GIF",
             "XFT_PRECIP_RAIN_2013_08_08_03_50.GIF", "XFT_PRECIP_RAIN_2013_08_08_04_00.GIF",
             "202508292100_CASFT_CAPPI_1.5_RAIN.gif")  # fmt: skip


def main() -> None:
    """Write the sample."""
    data = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[2] / "shared" / "data"
    paths = sorted((data / "radar" / "knmi_2010-08-26").glob("*.h5"))
    frames = []
    for path in paths:
        with h5py.File(path) as file:
            frames.append(file["image1/image_data"][ROW : ROW + EDGE, COLUMN : COLUMN + EDGE])
    with h5py.File(SAMPLE / "knmi_2010-08-26.h5", "w") as out:
        image = out.create_dataset(
            "image_data",
            data=np.stack(frames),
            chunks=(1, EDGE, EDGE),
            compression="gzip",
            compression_opts=9,
            shuffle=True,
        )
        image.attrs.update({"row": ROW, "column": COLUMN, "first": "2010-08-26T00:00Z", "minutes": 5})
        image.attrs["credit"] = "KNMI, CC BY 4.0; cropped"
    for name in FRANKTOWN:
        shutil.copyfile(data / "radar" / "eccc_other" / name, SAMPLE / name)
        (SAMPLE / name).chmod(0o644)


if __name__ == "__main__":
    main()
