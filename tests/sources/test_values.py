"""Rain rates against the raw values of the files, decoded here by the formula that the services publish."""

import gzip

import numpy as np
import pytest

from fastrain.core.levels import NOT_OBSERVED
from fastrain.sources import read_frames, recognise


def test_fmi_bytes_are_dbz_and_255_is_not_observed(data):
    path = data / "radar/fmi_2016-09-28/201609281500_fmi.radar.composite.lowest_FIN_SUOMI1.pgm.gz"
    raw = np.frombuffer(gzip.decompress(path.read_bytes())[-760 * 1226 :], np.uint8).reshape(1226, 760)
    (frame,) = read_frames(path, "fmi")
    np.testing.assert_array_equal(frame.level == NOT_OBSERVED, raw == 255)
    dbz = (raw.astype(float) - 64) / 2
    expected = np.where(raw == 0, 0.0, (10 ** (dbz / 10) / 223) ** (1 / 1.53))
    seen = raw != 255
    np.testing.assert_allclose(frame.table.decode(frame.level)[seen], expected[seen], rtol=1e-5)


def test_knmi_hundredths_of_a_millimetre_are_rates(data):
    import h5py

    path = data / "radar/knmi_2010-08-26/RAD_NL25_RAP_5min_201008260530.h5"
    with h5py.File(path) as file:
        raw = file["image1/image_data"][:]
    (frame,) = read_frames(path, "knmi")
    np.testing.assert_array_equal(frame.level == NOT_OBSERVED, raw == 65535)
    seen = raw != 65535
    rate = raw[seen] * 0.01 * 12
    said = frame.table.decode(frame.level)[seen]
    np.testing.assert_array_equal(said == 0, rate == 0)
    wet = rate > 0
    assert np.abs(10 * np.log10(said[wet] / rate[wet])).max() < 0.5 / 1.6


def agrees(frame, rate: np.ndarray) -> None:
    """The frame's rates are the given ones within half a bin of 0.5 dBZ; NaN where those are."""
    seen = ~np.isnan(rate)
    np.testing.assert_array_equal(frame.level != NOT_OBSERVED, seen)
    said = frame.table.decode(frame.level)
    edges = np.array(frame.table.lower)
    for threshold in (0.1, 1.0, 5.0):
        first = frame.table.first_level(threshold)
        np.testing.assert_array_equal(frame.level[seen] >= first, rate[seen] >= threshold * (1 - 1e-6))
    wet = seen & (rate >= edges[0])
    assert wet.any()
    assert np.abs(10 * np.log10(said[wet] / rate[wet])).max() < 0.55 / 1.5


def test_opera_nodata_is_not_observed_undetect_is_dry_and_spikes_are_neither(data):
    import h5py

    path = data / "radar/opera_2018-08-24/T_PAAH21_C_EUOC_20180824180000.hdf"
    with h5py.File(path) as file:
        raw = file["dataset1/data1/data"][:]
    rate = np.where(raw == -9999000.0, np.nan, np.where(raw == -8888000.0, 0.0, raw))
    spikes = rate > 300
    assert spikes.any()
    rate[spikes] = np.nan
    (frame,) = read_frames(path, "odim")
    agrees(frame, rate)
    assert frame.valid_time.isoformat() == "2018-08-24T18:00:00+00:00"


def test_bom_steps_of_a_twentieth_of_a_millimetre_in_ten_minutes_are_rates(data):
    import h5py

    path = data / "radar/bom_2020-10-31/66_20201031_060000.prcp-c10.nc"
    with h5py.File(path) as file:
        raw = file["precipitation"][:].astype(float)
    (frame,) = read_frames(path, "bom")
    agrees(frame, np.where(raw == -1, np.nan, raw * 0.05 * 6))
    assert frame.valid_time.isoformat() == "2020-10-31T06:00:00+00:00"


def test_openmrg_bytes_are_dbz_by_the_relation_beside_them(data):
    import h5py

    path = data / "radar/openmrg_2015-08-27.nc"
    with h5py.File(path) as file:
        raw = file["data"][:].astype(float)
    frames = list(read_frames(path, "cf"))
    assert len(frames) == 145
    for i in (0, 70, 144):
        dbz = raw[i] * 0.4 - 30
        agrees(frames[i], np.where(raw[i] == 255, np.nan, (10 ** (dbz / 10) / 200) ** (1 / 1.5)))
    assert (frames[1].valid_time - frames[0].valid_time).total_seconds() == 300


def test_meteoswiss_indices_are_levels(data):
    from PIL import Image

    path = data / "radar/mch_2016-07-11/AQC161932100V_00005.801.gif"
    with Image.open(path) as image:
        index = np.array(image)
    (frame,) = read_frames(path, "mch")
    assert frame.valid_time.isoformat() == "2016-07-11T21:00:00+00:00"
    rate = (10 ** ((index.astype(float) - 71.5) / 20) / 316) ** (1 / 1.5) * 12
    rate[(index < 2) | ((index > 250) & (index < 255))] = 0
    seen = index != 255
    np.testing.assert_array_equal(frame.level != NOT_OBSERVED, seen)
    np.testing.assert_allclose(frame.table.decode(frame.level)[seen], rate[seen], rtol=1e-5)


def test_mrms_rates_are_those_of_eccodes_own_tool(data):
    path = data / "radar/mrms_2019-06-10/PrecipRate_00.00_20190610-000000.grib2"
    pytest.importorskip("eccodes", reason="the extra grib is not installed")
    (frame,) = read_frames(path, "mrms")
    # In a process of its own, as eccodes and pyproj bring two libraries of one name.
    script = (
        "import sys, eccodes, numpy as np\n"
        "h = eccodes.codes_new_from_message(open(sys.argv[1], 'rb').read())\n"
        "v = eccodes.codes_get_values(h).reshape(3500, 7000)\n"
        "np.save(sys.argv[2], v[1000:1400, 3000:3600].astype('float32'))\n"
        "import os; os._exit(0)"
    )
    import subprocess
    import sys
    import tempfile

    with tempfile.NamedTemporaryFile(suffix=".npy") as kept:
        subprocess.run([sys.executable, "-c", script, str(path), kept.name], check=True)
        raw = np.load(kept.name)
    rate = np.where(raw < 0, np.nan, raw.astype(float))
    part = frame.level[1000:1400, 3000:3600]
    np.testing.assert_array_equal(part == NOT_OBSERVED, np.isnan(rate))
    np.testing.assert_array_equal(part >= frame.table.first_level(1.0), (raw >= 1.0 * (1 - 1e-6)) | np.isnan(rate))
    assert frame.valid_time.isoformat() == "2019-06-10T00:00:00+00:00"


@pytest.mark.parametrize(
    ("folder", "wet", "unseen"),
    [
        ("knmi_2010-08-26", 0.53, 0.74),
        ("fmi_2016-09-28", 0.30, None),
        ("mch_2015-05-15", 0.17, None),
        ("mch_2016-07-11", 0.13, None),
        ("bom_2020-10-31", 0.13, None),
        ("opera_2018-08-24", 0.12, None),
        ("openmrg_2015-08-27.nc", 0.62, None),
    ],
)
def test_a_sequence_is_as_wet_as_its_readme_says(data, folder, wet, unseen):
    wet_pixels = seen_pixels = pixels = 0
    path = data / "radar" / folder
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        for frame in read_frames(file, recognise(file)):
            seen = frame.level != NOT_OBSERVED
            first = frame.table.first_level(frame.table.nearest_edge(0.1))
            wet_pixels += int((seen & (frame.level >= first)).sum())
            seen_pixels += int(seen.sum())
            pixels += frame.level.size
    assert round(wet_pixels / seen_pixels, 2) == wet
    if unseen is not None:
        assert round(1 - seen_pixels / pixels, 2) == unseen
