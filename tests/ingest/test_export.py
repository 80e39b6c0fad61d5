"""What leaves an archive is what it holds, in formats that others read."""

from __future__ import annotations

import gzip
import warnings
from pathlib import Path

import numpy as np
import pytest
import synthetic
import xarray as xr

from fastrain.archive.store import Archive
from fastrain.archive.writer import writing
from fastrain.core.errors import ArchiveError, SettingError, UsageError
from fastrain.core.levels import NOT_OBSERVED
from fastrain.ingest.export import FORMATS, ExportSettings, export
from fastrain.ingest.ingest import IngestSettings, ingest
from fastrain.sources.rpbin import read_payloads


def opened(path: Path, format: str) -> xr.Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return xr.open_dataset(path, engine="h5netcdf" if format == "netcdf" else "zarr")


@pytest.fixture(scope="module")
def gappy(tmp_path_factory):
    """An archive with a gap, and pixels that are not observed."""
    path = tmp_path_factory.mktemp("gappy") / "a"
    rates = synthetic.moving_rain(frames=30, size=40, seed=4)
    rates[:, :3] = np.nan
    frames = synthetic.frames_of(rates)
    with writing(path, synthetic.schema(40, 40, (2, 4))) as writer:
        writer.write([*frames[:7], *frames[11:]])
        writer.commit("all")
    return path


@pytest.mark.parametrize("format", ["netcdf", "zarr", "mlcast"])
def test_full_resolution_is_the_rates_of_the_frames_at_their_times(gappy, tmp_path, format):
    report = export(gappy, tmp_path / "out", ExportSettings(format))
    archive = Archive.open(gappy)
    held = archive.span[0] + np.flatnonzero(archive.observed(*archive.span))
    assert report.frames == len(held) == 26
    with opened(tmp_path / "out", format) as dataset:
        expected = np.stack([archive.schema.table.decode(archive.level(s, s + 1)[0]) for s in held])
        np.testing.assert_array_equal(dataset["rainfall_rate"].values, expected)
        times = [np.datetime64(archive.schema.axis.time(int(s)).replace(tzinfo=None), "s") for s in held]
        np.testing.assert_array_equal(dataset["time"].values.astype("datetime64[s]"), times)
        assert dataset["rainfall_rate"].dims == ("time", "y", "x")
        if format == "mlcast":
            assert len(dataset["missing_times"]) == 4
            row, column = 5, 7
            place = archive.schema.grid.place(row, column)
            assert np.allclose([dataset["lat"][row, column], dataset["lon"][row, column]], place)


@pytest.mark.parametrize("format", ["netcdf", "zarr"])
def test_a_coarse_group_is_maximum_and_mean(gappy, tmp_path, format):
    export(gappy, tmp_path / "out", ExportSettings(format, coarseness=4))
    archive = Archive.open(gappy)
    blocks = archive.blocks(4, archive.span[0] + 2, archive.span[0] + 3)
    with opened(tmp_path / "out", format) as dataset:
        maximum = archive.schema.table.decode(blocks["max"][0])
        np.testing.assert_array_equal(dataset["rainfall_rate_maximum"][2].values, maximum)
        np.testing.assert_allclose(
            dataset["rainfall_rate_mean"][2].values, maximum * (blocks["mean"][0] / 255), rtol=1e-5
        )
        assert dataset["rainfall_rate_mean"].attrs["cell_methods"] == "y: x: mean"


def test_what_was_exported_as_netcdf_or_zarr_is_ingested_to_the_same_frames(gappy, tmp_path):
    archive = Archive.open(gappy)
    for format in ("netcdf", "zarr"):
        export(gappy, tmp_path / format, ExportSettings(format))
        report = ingest([tmp_path / format], tmp_path / f"{format}-again", IngestSettings(coarseness=(2, 4)))
        assert report.problems == []
        again = Archive.open(tmp_path / f"{format}-again")
        assert again.span[1] - again.span[0] == archive.span[1] - archive.span[0]
        np.testing.assert_array_equal(again.level(*again.span), archive.level(*archive.span))


@pytest.mark.parametrize("coarseness", [1, 4])
def test_netcdf_passes_a_cf_checker(gappy, night, tmp_path, coarseness):
    pytest.importorskip("compliance_checker", reason="the CF checker is not installed")
    from compliance_checker.runner import CheckSuite, ComplianceChecker

    for name, archive in {"synthetic": gappy, "knmi": night}.items():
        path = tmp_path / f"{name}.nc"
        export(archive, path, ExportSettings("netcdf", coarseness=coarseness))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            CheckSuite.load_all_available_checkers()
            passed, _ = ComplianceChecker.run_checker(
                str(path), ["cf:1.11"], 0, "strict", output_filename=str(tmp_path / "said.txt"), output_format="text"
            )
        assert passed, (tmp_path / "said.txt").read_text()


def test_the_ancestors_files_hold_what_the_archive_does(data, tmp_path):
    source = data / "rpbin" / "franktown_202508292100.bin"
    ingest([source], tmp_path / "a", IngestSettings(cadence=synthetic.CADENCE))
    export(tmp_path / "a", tmp_path / "out", ExportSettings("rpbin"))
    (made,) = (tmp_path / "out").iterdir()
    kept = np.load(source.with_suffix(".npz"))
    payloads = read_payloads(made)
    for coarseness in (1, 2, 3, 4):
        np.testing.assert_array_equal(payloads[coarseness].maximum, kept[f"max_{coarseness}"])
        mean = payloads[coarseness].maximum * (payloads[coarseness].ratio / 255)
        assert np.abs(mean - kept[f"mean_{coarseness}"]).max() <= 14 / 255 + 1e-6
    assert made.read_bytes().startswith(source.read_bytes().split(b"\x1f\x8b")[0])  # its four lines, to the byte
    head, theirs = (gzip.decompress(p.read_bytes().split(b"\n", 4)[4])[:14] for p in (made, source))
    assert head == theirs


def test_not_observed_is_refused_by_the_ancestors_format_or_written_dry_when_told(gappy, tmp_path):
    with pytest.raises(ArchiveError, match="--unobserved-as-dry"):
        export(gappy, tmp_path / "out", ExportSettings("rpbin"))
    assert not (tmp_path / "out").exists()
    assert [p for p in tmp_path.iterdir() if "unfinished" in p.name] == []
    export(gappy, tmp_path / "out", ExportSettings("rpbin", unobserved_as_dry=True))
    archive = Archive.open(gappy)
    payloads = read_payloads(sorted((tmp_path / "out").iterdir())[0])
    level = archive.level(archive.span[0], archive.span[0] + 1)[0]
    np.testing.assert_array_equal(payloads[1].maximum, np.where(level == NOT_OBSERVED, 0, level))


def test_a_place_that_is_taken_an_unknown_format_and_a_coarseness_not_held_are_refused(gappy, tmp_path):
    (tmp_path / "taken").touch()
    with pytest.raises(UsageError, match="exists"):
        export(gappy, tmp_path / "taken", ExportSettings("zarr"))
    with pytest.raises(SettingError, match=", ".join(FORMATS)):
        export(gappy, tmp_path / "out", ExportSettings("csv"))
    with pytest.raises(SettingError, match="coarseness 1, 2, 4"):
        export(gappy, tmp_path / "out", ExportSettings("netcdf", coarseness=3))
    with pytest.raises(SettingError, match="coarseness -1"):
        export(gappy, tmp_path / "out", ExportSettings("netcdf", coarseness=-1))
    with pytest.raises(UsageError, match="s3://bucket/x: an export goes into a folder"):
        export(gappy, Path("s3://bucket/x"), ExportSettings("zarr"))
    with pytest.raises(SettingError, match="full resolution"):
        export(gappy, tmp_path / "out", ExportSettings("mlcast", coarseness=2))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["taken"]
