"""The sample of real radar data in the package, for `fastrain demo` and for tests.

KNMI: 92 frames of the night of 2010-08-26, every 5 minutes, cropped to 320×320 pixels of 1 km (CC BY 4.0).
Environment and Climate Change Canada: six pictures of the radar at Franktown (Data Servers End-use Licence).
"""

from __future__ import annotations

from datetime import timedelta
from importlib.resources import as_file, files
from pathlib import Path

from fastrain.core.time import parse_time

PLACE = (52.1, 5.18)  # De Bilt


def unpack_knmi(folder: Path) -> int:
    """Write the KNMI sample as files in KNMI's own layout, one a frame, and return how many."""
    import h5py

    folder.mkdir(parents=True, exist_ok=True)
    with as_file(files("fastrain.sample") / "knmi_2010-08-26.h5") as path, h5py.File(path, "r") as packed:
        image = packed["image_data"]
        facts = dict(image.attrs)
        step = timedelta(minutes=int(facts["minutes"]))
        for i in range(len(image)):
            end = parse_time(facts["first"]) + i * step
            with h5py.File(folder / f"RAD_NL25_RAP_5min_{end:%Y%m%d%H%M}.h5", "w") as out:
                out.create_dataset("image1/image_data", data=image[i], compression="gzip", compression_opts=1)
                out["image1"].attrs["image_geo_parameter"] = "ACCUMULATED_PRECIPITATION_[MM]"
                calibration = out.create_group("image1/calibration").attrs
                calibration["calibration_formulas"] = "GEO=0.01*PV+0.0"
                calibration["calibration_missing_data"] = calibration["calibration_out_of_image"] = 65535
                overview = out.create_group("overview").attrs
                overview["product_datetime_start"] = f"{end - step:%d-%b-%Y;%H:%M:%S}.000".upper()
                overview["product_datetime_end"] = f"{end:%d-%b-%Y;%H:%M:%S}.000".upper()
                geographic = out.create_group("geographic").attrs
                geographic["geo_dim_pixel"] = "KM,KM"
                geographic["geo_pixel_size_x"], geographic["geo_pixel_size_y"] = 1.0, -1.0
                geographic["geo_column_offset"] = float(facts["column"])
                geographic["geo_row_offset"] = 3650.0 + float(facts["row"])
                projection = "+proj=stere +lat_0=90 +lon_0=0.0 +lat_ts=60.0 +a=6378.137 +b=6356.752 +x_0=0 +y_0=0"
                out.create_group("geographic/map_projection").attrs["projection_proj4_params"] = projection
        return len(image)


def unpack_franktown(folder: Path) -> int:
    """Write Franktown's pictures and return how many."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = [p for p in files("fastrain.sample").iterdir() if p.name.lower().endswith(".gif")]
    for picture in pictures:
        (folder / picture.name).write_bytes(picture.read_bytes())
    return len(pictures)
