"""`fastrain runs`: what is finished, what is training, what was left."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fastrain.core.errors import RunError
from fastrain.core.files import is_occupied, occupied
from fastrain.engine.journal import Journal, read_journal

PROGRAM = [sys.executable, "-m", "fastrain"]


def listed(folder: Path) -> dict[str, dict]:
    done = subprocess.run([*PROGRAM, "runs", folder, "--json"], capture_output=True, text=True, check=True)
    return {Path(run["path"]).name: run for run in json.loads(done.stdout)["runs"]}


def test_runs_are_told_apart_and_other_folders_left_out(run, tmp_path):
    shutil.copytree(run.path, tmp_path / "a" / "good")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "run.json").write_text('{"whose": "another program"}')
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text("{")
    (tmp_path / "left").mkdir()
    (tmp_path / "left" / "plan.json").write_text('{"recipe": "place"}')
    (tmp_path / "left" / "log.jsonl").write_text('{"step": 30, "steps": 120, "loss": 0.5}\n{"step": 31, "st')
    found = listed(tmp_path)
    assert sorted(found) == ["broken", "good", "left"]
    assert found["good"]["state"] == "finished"
    assert found["good"]["weights"] == run.facts["network"]["weights"]
    assert found["good"]["figures"]["trained_on"] == run.facts["trained_on"]
    assert found["broken"]["state"] == "damaged"
    left = found["left"]
    assert (left["state"], left["step"], left["steps"], left["loss"]) == ("stopped", 30, 120, 0.5)
    wide = {**os.environ, "COLUMNS": "160"}
    shown = subprocess.run([*PROGRAM, "runs", tmp_path], capture_output=True, text=True, check=True, env=wide).stdout
    assert re.search(r"left .*place .*stopped at 25%.*loss 0.5000", shown)
    with occupied(tmp_path / "left"):
        assert listed(tmp_path)["left"]["state"] == "training"


def test_a_folder_is_one_trainings_own(tmp_path):
    with occupied(tmp_path / "r"):
        assert is_occupied(tmp_path / "r")
        with pytest.raises(RunError, match="another training is at work here"), occupied(tmp_path / "r"):
            pass
    assert not (tmp_path / "r").exists()  # nothing was put there


def test_a_journal_that_goes_on_drops_what_came_after_the_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr("fastrain.engine.journal.EVERY_SECONDS", 0.0)
    path = tmp_path / "log.jsonl"
    first = Journal(path, 8)
    for step in range(1, 6):
        words = first.note(step, 10, 1 / step)
    assert re.fullmatch(r"loss 0\.2000, [\d,]+/s, \d\.\d\d GB", words)
    again = Journal(path, 8)
    for step in range(4, 11):
        again.note(step, 10, 1.0)
    lines = read_journal(path)
    assert [line["step"] for line in lines] == list(range(1, 11))
    assert lines[-1]["seconds_left"] == 0
    assert lines[-1]["samples_per_second"] > 0


PLACE = ("--recipe", "place", "--pixel", "28,10", "--coarseness", "1", "--width", "4")


@pytest.fixture(scope="module")
def whole(moving, tmp_path_factory):
    """What a training says that nobody told to leave."""
    done = [*PROGRAM, "train", str(moving), *PLACE, "--run", tmp_path_factory.mktemp("whole") / "r", "--json"]
    return subprocess.run(done, capture_output=True, text=True, check=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_training_that_is_told_to_leave_does_so_at_once_and_goes_on_to_the_same_weights(
    moving, whole, tmp_path, number
):
    command = [*PROGRAM, "train", str(moving), *PLACE]
    began = subprocess.Popen([*command, "--run", str(tmp_path / "r")], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not read_journal(tmp_path / "r" / "log.jsonl") and time.monotonic() < deadline:
        time.sleep(0.05)
    second = subprocess.run([*command, "--run", tmp_path / "r"], capture_output=True, text=True, check=False)
    assert second.returncode == 1
    assert "another training is at work here" in second.stderr
    told = time.monotonic()
    began.send_signal(signal.SIGHUP)  # the terminal is closed: no matter
    time.sleep(0.2)
    assert began.poll() is None
    began.send_signal(number)
    assert began.wait(timeout=30) == 128 + number
    assert time.monotonic() - told < 5.2
    assert (tmp_path / "r" / "training.pt").exists()
    done = subprocess.run([*command, "--run", tmp_path / "r", "--json"], capture_output=True, text=True, check=True)
    weights = [json.loads(out.stdout)["network"]["identity"] for out in (whole, done)]
    assert weights[0] == weights[1]
