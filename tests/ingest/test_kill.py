"""Killed with -9 at any moment and run again, an ingest ends with the same archive as one never killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from compare import same

from fastrain.archive.repository import exists
from fastrain.archive.store import Archive

PROGRAM = [sys.executable, "-c", "from fastrain.cli.main import run; run()"]


def start(knmi, archive):
    return subprocess.Popen(
        [*PROGRAM, "ingest", str(knmi), "--archive", str(archive)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


@pytest.fixture(scope="module")
def seconds(knmi, tmp_path_factory):
    """How long an ingest takes that nobody kills, and its archive."""
    path = tmp_path_factory.mktemp("whole") / "a"
    began = time.monotonic()
    with start(knmi, path) as process:
        process.communicate()
    assert process.returncode == 0
    return time.monotonic() - began, path


@pytest.mark.parametrize("share", [0.15, 0.3, 0.45, 0.6, 0.75, 0.9])
def test_a_killed_ingest_run_again_ends_the_same(knmi, tmp_path, seconds, share):
    whole, untouched = seconds
    process = start(knmi, tmp_path / "a")
    time.sleep(whole * share)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stderr.close()
    if exists(tmp_path / "a"):
        Archive.open(tmp_path / "a")
    again = start(knmi, tmp_path / "a")
    _, said = again.communicate(timeout=120)
    assert again.returncode == 0, said.decode()
    assert same(tmp_path / "a", untouched)
    assert [p.name for p in tmp_path.iterdir() if "unfinished" in p.name] == []
