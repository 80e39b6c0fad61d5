"""`fastrain plan` and the memory that training keeps to, by the command line."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import synthetic
from program import SHORT, ok, refused

from fastrain.archive.store import Archive
from fastrain.rain.budget import Allowed, Needs, PlaceNeeds, grid_needs
from fastrain.rain.costs import Line, Spent
from fastrain.rain.plan_grid import _made
from fastrain.rain.radar import Radar
from fastrain.samples.split import split_archive

MB = 10**6
SMALL = ("--threads", "1")
NEEDS = Needs(
    base=300 * MB,
    step=2000 * MB,
    lean_step=1000 * MB,
    blocks=800 * MB,
    making=600 * MB,
    window=20 * MB,
    judging=40 * MB,
    settling=50 * MB,
    frames=50 * MB,
)


@pytest.fixture(scope="module")
def planned(moving):
    return json.loads(ok("plan", moving, "--json", "--threads", "1", program=SHORT).stdout)


def test_a_plan_has_a_row_for_each_task_and_coarseness(planned):
    assert [(row["recipe"], row["coarseness"]) for row in planned["rows"]] == [
        ("grid", 1),
        ("grid", 2),
        ("place", 1),
        ("place", 2),
    ]
    for row in planned["rows"]:
        assert row["least_memory"] <= row["memory"]
        assert row["seconds"] > 0
        assert row["cpu_seconds"] > 0
        assert row["seconds_per_epoch"] * row["epochs"] <= row["seconds"]
        assert row["fits"]
    assert planned["issues"] == {
        name: len(found) for name, found in split_archive(Archive.open(planned["archive"])).issues.items()
    }
    assert 0 < planned["allowed_memory"] <= planned["free_memory"]


def test_what_is_planned_is_what_training_does(planned, moving, tmp_path):
    ok("train", moving, "--run", tmp_path / "r", "--coarseness", "2", "--threads", "1", program=SHORT)
    facts = json.loads((tmp_path / "r" / "run.json").read_text())
    row = next(row for row in planned["rows"] if (row["recipe"], row["coarseness"]) == ("grid", 2))
    assert facts["network"]["weights"] == row["weights"]
    assert facts["network"]["steps"] == row["steps"]
    assert facts["threads"] == 1
    assert facts["trained_on"] == pytest.approx(row["windows"], rel=0.2)
    assert facts["peak_bytes"] == pytest.approx(row["memory"], rel=0.3)


def test_a_plan_on_too_little_memory_says_no_and_is_no_failure(moving):
    found = json.loads(ok("plan", moving, "--memory", "200MB", "--recipe", "grid", "--json").stdout)
    assert [row["fits"] for row in found["rows"]] == [False, False]


def test_the_table_fits_into_eighty_columns(moving):
    shown = ok("plan", moving, "--recipe", "grid", "--coarseness", "2").stdout
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert "grid" in shown


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--recipe", "gird"], "gird"),
        (["--coarseness", "7"], "holds 1, 2"),
        (["--coarseness", "0"], "whole numbers"),
        (["--pixel", "1000,1"], "outside"),
        (["--memory", "lots"], "expected a size"),
    ],
)
def test_wrong_usage_is_said_in_a_line(moving, arguments, word):
    said = refused(2, "plan", moving, *arguments)
    assert word in said
    assert len(said.splitlines()) == 1


def test_an_archive_that_is_too_short_is_no_plan(tmp_path):
    synthetic.write_archive(tmp_path / "a", synthetic.moving_rain(frames=12, size=16))
    assert "training needs" in refused(1, "plan", tmp_path / "a")


# --- the budget -------------------------------------------------------------------------------------------------------


def test_less_memory_means_less_kept_then_none_made_ahead_then_computing_again():
    ways = []
    for memory in range(6000 * MB, 0, -10 * MB):
        found = Allowed.within(NEEDS, memory)
        way = None if found is None else (found.lean, found.makers > 0)
        if way not in ways:
            ways.append(way)
    assert ways == [(False, True), (False, False), (True, True), (True, False), None]
    assert Allowed.within(NEEDS, 6000 * MB).kept > Allowed.within(NEEDS, 5000 * MB).kept > 0


@pytest.mark.parametrize(("kept", "varied"), [(1.0, 0.0), (0.4, 0.0), (1.0, 0.5), (0.6, 0.3), (0.0, 0.2)])
def test_windows_are_made_as_often_as_a_plan_says(kept, varied):
    """By drawing: of 4,000 windows, of which memory keeps a share once they were shown as they were."""
    draw = np.random.default_rng(1)
    may_be_kept, there = draw.random(4000) < kept, np.zeros(4000, bool)
    made = 0.0
    for passed in (1.0, 1.0, 1.0, 0.5):
        shown = np.arange(4000) < passed * 4000
        other = draw.random(4000) < varied
        made += (shown & (other | ~there)).sum() / 4000
        there |= shown & ~other & may_be_kept
    assert _made(3.5, kept, varied) == pytest.approx(made, rel=0.03)


def test_what_is_allowed_is_never_exceeded():
    least = NEEDS.least
    assert Allowed.within(NEEDS, least - 1) is None
    for memory in range(least, least + 5000 * MB, 77 * MB):
        found = Allowed.within(NEEDS, memory)
        assert found is not None
        assert NEEDS.peak(lean=found.lean, makers=found.makers, kept=found.kept) <= memory


def test_a_place_reads_as_many_frames_at_a_time_as_fit():
    needs = PlaceNeeds(base=300, window=50, making=40, step=200)
    assert needs.frames(0) == 50
    for memory in range(needs.least, needs.least + 10**6, 9973):
        assert needs.peak(memory) <= max(memory, needs.least)


def test_needs_grow_with_the_map_and_not_with_time(tmp_path, moving):
    synthetic.write_archive(tmp_path / "long", np.tile(synthetic.moving_rain(frames=96, seed=3), (4, 1, 1)))
    found = []
    for path in (moving, tmp_path / "long"):
        archive = Archive.open(path)
        layout = split_archive(Archive.open(moving)).layout.frames(archive.schema.axis.cadence)
        for c in (1, 2):
            radar = Radar.of(archive.schema, c, (0.1, 1.0), layout)
            needs = grid_needs(archive, c, radar, 24, calibrated=50, base=300_000_000)
            found.append(needs.peak(lean=False, makers=1, kept=0) + needs.window)
    fine, coarse, fine_long, coarse_long = found
    assert (fine, coarse) == (fine_long, coarse_long)
    assert fine > coarse


def test_a_line_goes_through_what_was_measured_and_never_falls():
    line = Line()
    line.add(100, Spent(1.0, 2.0))
    assert line.at(200) == Spent(2.0, 4.0)
    line.add(300, Spent(2.0, 4.0))
    assert line.at(100) == Spent(1.0, 2.0)
    assert line.at(300) == Spent(2.0, 4.0)
    assert line.at(500).cpu == pytest.approx(6.0)
    line.add(300, Spent(0.5, 0.5))  # noise: more cells cannot cost less
    assert line.at(1000).cpu >= line.at(100).cpu


def test_too_little_memory_is_refused_with_what_fits_and_leaves_nothing(moving, tmp_path):
    said = refused(1, "train", moving, "--run", tmp_path / "r", "--memory", "300MB")
    assert "takes at least" in said
    assert "--memory 0." in said
    assert "--recipe place" in said
    assert not (tmp_path / "r").exists()
    said = refused(
        1, "train", moving, "--run", tmp_path / "r", "--memory", "300MB", "--recipe", "place", "--pixel", "32,32"
    )
    assert "takes at least" in said
    assert not (tmp_path / "r").exists()


def peak_of(arguments, before=None) -> int:
    """What Linux says of the program itself while it runs: `wait4` counts on from this process's own peak."""
    peak = 0
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen([*SHORT, *map(str, arguments)], preexec_fn=before, stderr=said) as child,
    ):
        status = Path(f"/proc/{child.pid}/status")
        while child.poll() is None:
            with contextlib.suppress(IndexError, OSError):
                peak = max(peak, int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024)
            time.sleep(0.02)
        said.seek(0)
        assert child.returncode == 0, said.read().decode()
    assert peak > 0
    return peak


def test_the_least_memory_that_is_named_is_enough_and_changes_nothing(moving, tmp_path):
    """Under a control group's limit where one can be set, so that the system itself would end what takes more."""
    # In a process of its own: a copy of one that is loaded holds less of the libraries in memory.
    said = refused(1, "train", moving, "--run", tmp_path / "r", "--memory", "300MB", *SMALL, program=SHORT)
    named = said.split("--memory ")[1].split("GB")[0]
    limit = int(float(named) * 1e9)
    group = Path("/sys/fs/cgroup/memory") / f"fastrain-test-{os.getpid()}"
    before = None
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(limit))
        before = lambda: (group / "cgroup.procs").write_text(str(os.getpid()))  # noqa: E731
    except OSError:
        group = None
    try:
        peak = peak_of(["train", moving, "--run", tmp_path / "r", "--memory", f"{named}GB", *SMALL], before)
    finally:
        if group is not None:
            group.rmdir()
    assert peak <= limit
    ok("train", moving, "--run", tmp_path / "other", *SMALL, program=SHORT)
    identities = [
        json.loads((tmp_path / name / "run.json").read_text())["network"]["identity"] for name in ("r", "other")
    ]
    assert identities[0] == identities[1]
