"""Rain rates against the raw values of the files, decoded here by the formula that the services publish."""

import gzip

import numpy as np
import pytest

from fastrain.core.levels import NOT_OBSERVED
from fastrain.sources import read_frames


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


@pytest.mark.parametrize(
    ("name", "folder", "wet", "unseen"),
    [("knmi", "knmi_2010-08-26", 0.53, 0.74), ("fmi", "fmi_2016-09-28", 0.30, None)],
)
def test_a_sequence_is_as_wet_as_its_readme_says(data, name, folder, wet, unseen):
    wet_pixels = seen_pixels = pixels = 0
    for path in sorted((data / "radar" / folder).iterdir()):
        (frame,) = read_frames(path, name)
        seen = frame.level != NOT_OBSERVED
        wet_pixels += int((seen & (frame.level >= frame.table.first_level(0.1))).sum())
        seen_pixels += int(seen.sum())
        pixels += frame.level.size
    assert round(wet_pixels / seen_pixels, 2) == wet
    if unseen is not None:
        assert round(1 - seen_pixels / pixels, 2) == unseen
