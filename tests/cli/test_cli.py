"""The program as other programs call it: exit status, one JSON object on standard output, one line for a failure."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from program import PROGRAM, call, ok, refused

VERBS = ["demo", "ingest", "palette", "info", "check", "export", "train", "verify", "forecast"]


def test_help_names_every_verb_and_loads_nothing_heavy():
    shown = ok("--help").stdout
    for verb in VERBS:
        assert verb in shown
    heavy = "torch numpy zarr icechunk xarray numba h5py pyproj matplotlib scores PIL"
    code = f"import sys; from fastrain.cli import main\nprint([m for m in '{heavy}'.split() if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_its_help(verb):
    assert "Usage" in ok(verb, "--help").stdout


def test_wrong_usage_exits_with_two(tmp_path, run):
    for arguments in (
        ("nonsense",),
        ("ingest",),
        ("ingest", tmp_path / "nothing", "--archive", tmp_path / "a"),
        ("ingest", tmp_path, "--archive", tmp_path / "a", "--coarseness", "two"),
        ("ingest", tmp_path, "--archive", tmp_path / "a", "--average", "median"),
        ("ingest", tmp_path, "--archive", tmp_path / "a", "--centre", "north"),
        ("train", run.archive().path, "--run", tmp_path / "r", "--pixel", "1,2", "--place", "50,10"),
        ("train", run.archive().path, "--run", tmp_path / "r", "--memory", "lots"),
        ("train", run.archive().path, "--run", __file__),
        ("ablate", run.archive().path, "--to", __file__),
        ("ablate", run.archive().path, "--to", tmp_path / "to", "--learn-from", ","),
        ("verify", run.path, "--report", __file__),
        ("verify", run.path, "--against", "magic"),
        ("ingest", tmp_path, "--archive", tmp_path / "a", "--cadence", "nan"),
        ("ingest", tmp_path, "--archive", tmp_path / "a", "--cadence", "0"),
        ("ingest", tmp_path, "--archive", tmp_path / "a", "--format", "nosuch"),
        ("forecast", run.path, "--at", "0001-01-01T00:00+23:00", "--pixel", "1,1"),
        ("forecast", run.path),
        ("forecast", run.path, "--place", "10,10"),
        ("forecast", run.path, "--pixel", "999,1"),
        ("forecast", run.path, "--pixel", "1.5,1"),
        ("forecast", run.path, "--at", "noon", "--pixel", "1,1"),
        ("forecast", run.path, "--to", tmp_path / "x.pdf"),
        ("forecast", run.path, "--to", tmp_path / "nowhere" / "x.png"),
        ("verify", run.path, "--report", __file__),
        ("palette", tmp_path / "none.png", "--to", tmp_path / "p.toml"),
        ("palette", tmp_path, "--to", tmp_path / "p.toml"),
        ("export", run.archive().path, "--format", "netcdf", "--to", "/proc/x.nc"),
    ):
        refused(2, *arguments)


def test_a_failed_job_exits_with_one_and_says_why_in_a_line(tmp_path, run):
    for arguments, said in (
        (("info", tmp_path / "none"), "no archive is here"),
        (("train", tmp_path / "none", "--run", tmp_path / "r"), "no archive is here"),
        (("verify", tmp_path / "none"), "no run is here"),
        (("forecast", __file__, "--pixel", "1,1"), "is a file; a run is a folder"),
        (("train", run.archive().path, "--run", run.archive().path), "and is no run; name another --run"),
        (("forecast", run.path, "--pixel", "1,1", "--at", "2030-01-01T00:00Z"), "outside the archive"),
        (("forecast", run.path, "--pixel", "1,1", "--at", "9999-12-31T23:59Z"), "outside the archive"),
        (("forecast", run.path, "--pixel", "1,1", "--archive", tmp_path / "none"), "no archive is here"),
    ):
        line = refused(1, *arguments)
        assert said in line
        assert line.startswith("fastrain: ")
        assert line.count("\n") == 1


def test_ingest_reports_what_did_not_go_in_and_exits_with_one(knmi, tmp_path):
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for path in sorted(knmi.iterdir())[:4]:
        (mixed / path.name).write_bytes(path.read_bytes())
    (mixed / "broken.h5").write_bytes(path.read_bytes()[:2000])
    done = call("ingest", mixed, "--archive", tmp_path / "a", "--json")
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert report["counts"]["written"] == 4
    assert [p["name"] for p in report["problems"]] == ["broken.h5"]
    assert "broken.h5" in done.stderr
    (mixed / "broken.h5").unlink()
    assert json.loads(ok("ingest", mixed, "--archive", tmp_path / "a", "--json").stdout)["counts"]["unchanged"] == 4
    info = json.loads(ok("info", tmp_path / "a", "--json").stdout)
    assert info["frames"] == 4
    assert info["first"] == "2010-08-26T00:00Z"
    assert "100.0%" not in ok("info", tmp_path / "a").stdout


def test_three_frames_are_a_clear_refusal_to_train(data, tmp_path):
    pictures = sorted((data / "radar/eccc_2025-09-02/cappi").glob("*CASFT*"))
    ok("ingest", *pictures, "--archive", tmp_path / "a")
    line = refused(1, "train", tmp_path / "a", "--run", tmp_path / "r", "--json")
    assert "holds 3 frames (2025-09-02T01:42Z to 2025-09-02T01:54Z); training needs about" in line
    assert not (tmp_path / "r").exists()


def test_verify_prints_one_object_with_scores_and_counts(run):
    found = json.loads(ok("verify", run.path, "--against", "persistence,advection", "--json").stdout)
    assert {row["forecaster"] for row in found["scores"]} == {"network", "persistence", "advection"}
    for row in found["scores"]:
        assert row["cells"] >= row["events"] >= 0
        assert row["hits"] + row["misses"] == row["events"]
        assert row["hits"] + row["misses"] + row["false_alarms"] + row["correct_negatives"] == row["cells"]
    for row in found["scores"]:
        assert 0 <= row["roc_area"] <= 1 and set(row["fss"]) == {f"{4 * n} km" for n in (1, 3, 5, 9, 17)}
        # Every cell is dry or wet at issue, and is asked for the one or the other change.
        assert row["start"]["cells"] + row["stop"]["cells"] == row["cells"]
        if row["forecaster"] == "network":
            assert "network_skill" not in row
        else:
            network = next(
                r
                for r in found["scores"]
                if r["forecaster"] == "network"
                and (r["period_min"], r["threshold_mm_h"]) == (row["period_min"], row["threshold_mm_h"])
            )
            assert row["network_skill"] == pytest.approx(1 - network["brier"] / row["brier"])
    assert "Brier" in ok("verify", run.path, "--against", "climatology").stdout


def test_a_run_of_one_truth_does_not_speak_of_the_other(run):
    assert "its chances speak of the cells' maximum; train a run with --truth mean" in refused(
        2, "forecast", run.path, "--truth", "mean", "--pixel", "5,5"
    )
    assert "--truth median: expected maximum or mean" in refused(2, "verify", run.path, "--truth", "median")


def test_forecast_says_the_same_as_json_as_text_as_file_and_in_python(run, tmp_path):
    said = json.loads(ok("forecast", run.path, "--pixel", "30,31", "--json").stdout)
    assert said["issue_time"].endswith("Z")
    chances = run.forecast()["chance"].values[:, :, 30, 31]
    for p, period in enumerate(said["periods"]):
        assert list(period["chances"].values()) == pytest.approx(chances[p].tolist(), abs=1e-4)
        assert set(period["lights"].values()) <= {"no", "unsure", "yes"}
    text = ok("forecast", run.path, "--pixel", "30,31").stdout
    assert f"{said['periods'][0]['chances']['0.1']:.0%}" in text
    ok("forecast", run.path, "--pixel", "30,31", "--to", tmp_path / "p.json")
    assert json.loads((tmp_path / "p.json").read_text()) == said


def test_the_map_is_written_as_netcdf_and_as_a_picture(run, tmp_path):
    from PIL import Image

    summary = json.loads(ok("forecast", run.path, "--to", tmp_path / "f.nc", "--json").stdout)
    assert summary["cells_observed"] == 64 * 64
    ok("forecast", run.path, "--to", tmp_path / "f.png", "--place", "50.0,10.0")
    with Image.open(tmp_path / "f.png") as picture:
        assert picture.width > 600
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f.nc", "f.png"]


def test_a_report_is_one_self_contained_page(run, tmp_path):
    ok("verify", run.path, "--report", tmp_path / "report")
    page = (tmp_path / "report" / "report.html").read_text()
    assert "src='http" not in page
    assert "href='http" not in page
    assert page.count("data:image/png;base64,") > 15
    for word in ("Brier", "CSI", "cells judged", "smoothed advection", "one spell of weather"):
        assert word in page


def test_a_report_shows_the_place_that_was_asked_for(run, tmp_path):
    ok("verify", run.path, "--report", tmp_path, "--pixel", "28,10", "--issues", "2")
    page = (tmp_path / "report.html").read_text()
    assert "class='lights'" in page and "class='place'" in page
    assert "No place was named" not in page
    assert "about 2 independent cases" in page  # not one an hour of all hours between them


def test_a_table_is_as_wide_as_it_is_and_no_number_is_cut(capsys, monkeypatch):
    from rich.table import Table

    from fastrain.cli.show import print_table

    monkeypatch.setenv("COLUMNS", "40")
    table = Table("what", *(str(i) for i in range(12)))
    table.add_row("a score", *(f"{1234.5 + i:.3f}" for i in range(12)))
    print_table(table)
    shown = capsys.readouterr().out
    assert "…" not in shown
    assert all(f"{1234.5 + i:.3f}" in shown for i in range(12))


def test_an_output_that_nobody_reads_is_no_failure_worth_a_message(run):
    code = (
        "import subprocess, sys; p = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, stderr=subprocess.PIPE)\n"
    )
    code += "p.stdout.close(); print(p.stderr.read().decode()); p.stderr.close(); p.wait()"
    done = subprocess.run(
        [sys.executable, "-c", code, *PROGRAM, "info", str(run.archive().path), "--json"],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "Traceback" not in done.stdout


def test_the_demo_leaves_what_is_not_its_own_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    assert "holds something else" in refused(2, "demo", "--out", tmp_path)
    assert [p.name for p in Path(tmp_path).iterdir()] == ["mine.txt"]


def test_a_full_disk_is_said_and_what_was_committed_stands(knmi, tmp_path):
    """The file size limit of the process stands in for a full disk: writes fail midway."""
    ok("ingest", *sorted(knmi.iterdir())[:24], "--archive", tmp_path / "a")
    command = ["bash", "-c", 'ulimit -f 40; exec "$@"', "limited", *PROGRAM, "ingest", str(knmi), "--archive"]
    done = subprocess.run([*command, str(tmp_path / "a")], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode != 0
    assert json.loads(ok("info", tmp_path / "a", "--json").stdout)["frames"] == 24
    ok("ingest", knmi, "--archive", tmp_path / "a")
    assert json.loads(ok("info", tmp_path / "a", "--json").stdout)["frames"] == 92


def test_a_full_disk_is_told_with_the_file_and_what_to_do():
    script = (
        "import errno\nfrom fastrain.cli import main\n"
        "def app(): raise OSError(errno.ENOSPC, 'No space left on device', 'run/weights.pt')\n"
        "main.app = app\nmain.run()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "fastrain: run/weights.pt: No space left on device. Make room, and give the same command again; what was "
        "committed or checkpointed stands."
    )


def test_a_runs_own_place_is_found_on_another_grid_by_its_coordinates(run, tmp_path):
    """On a grid of other pixels the place stays where it is on Earth, and outside it nothing is said."""
    import shutil

    import synthetic

    from fastrain.archive.store import Archive
    from fastrain.archive.writer import writing

    shutil.copytree(run.path, tmp_path / "run")
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps(facts | {"place": [30, 40]}))
    rates = synthetic.moving_rain(30, size=64, seed=5)
    schema = synthetic.schema(64, 64)
    shifted = type(schema.grid)(**{**schema.grid.__dict__, "west": schema.grid.west + 40_000.0})
    schema = type(schema)(**{**schema.__dict__, "grid": shifted})
    frames = [type(f)(f.level, f.valid_time, shifted, f.table, f.name) for f in synthetic.frames_of(rates)]
    with writing(tmp_path / "a", schema) as writer:
        writer.write(frames)
        writer.commit("x")
    said = json.loads(ok("forecast", tmp_path / "run", "--archive", tmp_path / "a", "--json").stdout)
    assert said["pixel"] == [30, 30]
    assert Archive.open(tmp_path / "a").schema.grid.place(30, 30) == pytest.approx(run.grid.place(30, 40))
