"""The verbs around an archive beside ingest and info: palette, check and export."""

from __future__ import annotations

import json
import shutil

import pytest
from program import ok, refused


def test_a_palette_is_proposed_shown_and_taken_by_ingest(franktown, tmp_path):
    picture = sorted(franktown.iterdir())[-1]
    edges = "0.1,1,2,4,8,12,16,24,32,50,64,100,125,200"
    said = json.loads(
        ok(
            "palette", picture, "--to", tmp_path / "p.toml", "--edges", edges, "--centre", "45.04,-76.12", "--json"
        ).stdout
    )
    assert said["colours"][0] == "99ccff"
    assert len(said["colours"]) == len(said["edges"]) == 14
    assert (tmp_path / "p.png").stat().st_size > 1000
    refused(2, "palette", picture, "--to", tmp_path / "p.toml")
    refused(2, "palette", picture, "--to", tmp_path / "q.toml", "--edges", "0.1,1")
    done = json.loads(
        ok(
            "ingest",
            franktown,
            "--archive",
            tmp_path / "a",
            "--palette",
            tmp_path / "p.toml",
            "--cadence",
            "6",
            "--json",
        ).stdout
    )
    assert done["counts"]["written"] == len(list(franktown.iterdir()))
    again = json.loads(ok("ingest", franktown, "--archive", tmp_path / "a", "--json").stdout)
    assert again["counts"]["unchanged"] == done["counts"]["written"]
    assert "picture" in ok("info", tmp_path / "a").stdout


def test_check_prints_one_object_and_draws_a_calendar_and_a_damaged_archive_exits_with_one(knmi, tmp_path):
    archive = tmp_path / "a"
    ok("ingest", knmi, "--archive", archive)
    said = json.loads(ok("check", archive, "--json").stdout)
    assert (said["frames"], said["missing"], said["findings"]) == (92, 0, [])
    assert said["picture"] == str(tmp_path / "a-calendar.png")
    assert (tmp_path / "a-calendar.png").read_bytes().startswith(b"\x89PNG")
    largest = max((archive / "chunks").iterdir(), key=lambda p: p.stat().st_size)
    kept = largest.read_bytes()
    largest.write_bytes(kept[:-100] + bytes(100))
    broken = ok_or_one("check", archive, "--json")
    assert broken[0] == 1
    assert json.loads(broken[1])["counts"]["damaged"] > 0
    mended = json.loads(ok("check", archive, knmi, "--repair", "--json").stdout)
    assert mended["repaired"] == mended["counts"]["damaged"]
    assert json.loads(ok("check", archive, "--json").stdout)["findings"] == []
    assert "Files are for --repair" in refused(2, "check", archive, knmi)


def ok_or_one(*arguments):
    from program import call

    done = call(*arguments)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout


@pytest.mark.parametrize("format", ["netcdf", "zarr", "rpbin"])
def test_export_writes_and_says_what(night, tmp_path, format):
    extra = ["--unobserved-as-dry"] if format == "rpbin" else ["--coarseness", "4"]
    said = json.loads(ok("export", night, "--to", tmp_path / "out", "--format", format, *extra, "--json").stdout)
    assert said["frames"] == 92
    assert (said["first"], said["last"]) == ("2010-08-26T00:00Z", "2010-08-26T07:35Z")
    assert said["bytes"] > 10_000
    refused(2, "export", night, "--to", tmp_path / "out", "--format", format)
    refused(2, "export", night, "--to", tmp_path / "new", "--format", "csv")
    refused(1, "export", tmp_path / "none", "--to", tmp_path / "new", "--format", format)
    assert not (tmp_path / "new").exists()


def test_wrong_choices_of_ingest_are_wrong_usage(franktown, tmp_path):
    archive = tmp_path / "a"
    refused(2, "ingest", franktown, "--archive", archive, "--format", "picture")
    refused(2, "ingest", franktown, "--archive", archive, "--format", "pysteps:nosuch")
    refused(2, "ingest", franktown, "--archive", archive, "--crop", "1,2,3")
    refused(2, "ingest", franktown, "--archive", archive, "--palette", tmp_path / "none.toml")
    refused(2, "ingest", franktown, "--archive", archive, "--accumulation", "0")
    refused(2, "ingest", franktown, "--archive", archive, "--importer", "nonsense")
    assert not archive.exists()


def test_a_folder_of_two_formats_takes_the_commoner_and_reports_the_other(knmi, data, tmp_path):
    mixed = tmp_path / "mixed"
    shutil.copytree(knmi, mixed)
    odd = data / "radar/bom_2020-10-31/66_20201031_060000.prcp-c10.nc"
    shutil.copy(odd, mixed)
    code, out = ok_or_one("ingest", mixed, "--archive", tmp_path / "a", "--json")
    said = json.loads(out)
    assert code == 1
    assert said["counts"]["written"] == 92
    assert [p["name"] for p in said["problems"]] == [odd.name]
