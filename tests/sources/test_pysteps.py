"""pysteps' importers as readers, and ours offered to pysteps."""

from __future__ import annotations

import numpy as np
import pytest

from fastrain.core.errors import DamagedFile, SettingError
from fastrain.core.levels import NOT_OBSERVED
from fastrain.sources import ReadOptions, read_frames

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::RuntimeWarning")]
pytest.importorskip("pysteps", reason="pysteps is not installed")

FMI = "radar/fmi_2016-09-28/201609281500_fmi.radar.composite.lowest_FIN_SUOMI1.pgm.gz"
BOM = "radar/bom_2020-10-31/66_20201031_060000.prcp-c10.nc"


def test_an_importers_map_is_the_one_our_reader_makes(data):
    pytest.importorskip("netCDF4", reason="pysteps' importer needs netCDF4")
    (theirs,) = read_frames(data / BOM, "pysteps:bom_rf3")
    (ours,) = read_frames(data / BOM, "bom")
    np.testing.assert_array_equal(theirs.level, ours.level)
    assert theirs.valid_time == ours.valid_time
    assert theirs.grid.pixel(-27.72, 153.2425) == ours.grid.pixel(-27.72, 153.2425)


def test_an_importer_gets_what_the_user_hands_over(data):
    (frame,) = read_frames(data / FMI, "pysteps:fmi_pgm", ReadOptions(importer=(("gzipped", "1"),)))
    (ours,) = read_frames(data / FMI, "fmi")
    assert frame.grid.pixel(60.271, 24.873) == ours.grid.pixel(60.271, 24.873)
    np.testing.assert_array_equal(frame.level == NOT_OBSERVED, ours.level == NOT_OBSERVED)


def test_an_unknown_importer_and_one_that_fails_are_said(data, tmp_path):
    with pytest.raises(SettingError, match=r"pysteps offers .*bom_rf3"):
        list(read_frames(data / BOM, "pysteps:nosuch"))
    broken = tmp_path / "20200101_0000.nc"
    broken.write_bytes(b"CDF nonsense")
    with pytest.raises(DamagedFile, match="bom_rf3 failed"):
        list(read_frames(broken, "pysteps:bom_rf3"))


@pytest.mark.parametrize("path", [FMI, BOM, "radar/eccc_2025-09-02/cappi/202509020142_CASFT_CAPPI_1.5_RAIN.gif"])
def test_pysteps_finds_our_importer_by_its_entry_point_and_reads_with_it(data, path):
    from pysteps.io.interface import discover_importers, get_method

    discover_importers()
    rate, quality, metadata = get_method("fastrain", "importer")(str(data / path))
    format = {"fmi": "fmi", "bom": "bom", "ecc": "eccc"}[path.split("/")[1][:3]]
    (frame,) = read_frames(data / path, format)
    np.testing.assert_allclose(rate, frame.table.decode(frame.level), rtol=1e-6)
    assert quality is None
    assert metadata["unit"] == "mm/h"
    rows, columns = frame.grid.shape
    assert metadata["x2"] - metadata["x1"] == pytest.approx(columns * metadata["xpixelsize"])
    assert metadata["y2"] - metadata["y1"] == pytest.approx(rows * metadata["ypixelsize"])
