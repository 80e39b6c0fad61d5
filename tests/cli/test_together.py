"""Several processes started by torchrun, by the command line: they train one run, and a lost one ends the others."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from program import SHORT, ok

from fastrain.engine.journal import read_journal

SMALL = ["--width", "8", "--threads", "1"]
ENVIRONMENT = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}


def started(processes: int, *arguments, program=("--", SHORT[1])) -> subprocess.Popen:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return subprocess.Popen(
        [*torchrun, *program, *map(str, arguments)],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    from fastrain.engine.checkpoint import load

    return load(run / "weights.pt")


@pytest.fixture(scope="module")
def alone(moving, tmp_path_factory):
    run = tmp_path_factory.mktemp("alone") / "r"
    ok("train", moving, "--run", run, *SMALL, program=SHORT)
    return run


def agree(one: Path, other: Path) -> bool:
    """Tell whether two runs came to about the same: bfloat16 rounds sums in another order to other numbers."""
    losses = [read_journal(run / "log.jsonl")[-1]["loss"] for run in (one, other)]
    return abs(losses[0] - losses[1]) < 0.02 * losses[0]


@pytest.mark.parametrize("recipe", ["grid", "place"])
def test_two_processes_train_one_run(moving, alone, tmp_path, recipe):
    place = ["--recipe", "place", "--pixel", "32,32"] if recipe == "place" else []
    child = started(2, "train", moving, "--run", tmp_path / "r", *SMALL, *place, "--json")
    out, said = child.communicate(timeout=280)
    assert child.returncode == 0, said
    facts = json.loads(out)  # one object: the first process alone speaks
    assert facts["recipe"] == recipe
    assert said.count("weights, ") == 1
    if recipe == "grid":
        assert agree(tmp_path / "r", alone)
        other = json.loads((alone / "run.json").read_text())
        assert facts["network"]["steps"] == other["network"]["steps"]
        assert facts["batch"] == other["batch"]


def wait_for_step(run: Path, step: int, child: subprocess.Popen) -> None:
    until = time.monotonic() + 200
    while time.monotonic() < until and child.poll() is None:
        lines = read_journal(run / "log.jsonl")
        if lines and lines[-1]["step"] >= step and (run / "training.pt").exists():
            return
        time.sleep(0.05)
    raise AssertionError((child.poll(), child.stderr.read() if child.poll() is not None else "too slow"))


def trainers(child: subprocess.Popen) -> dict[int, int]:
    """Return the process of each rank."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                environment = (entry / "environ").read_bytes().split(b"\0")
            except (OSError, IndexError):
                continue
            ranks = [one for one in environment if one.startswith(b"RANK=")]
            if parent == child.pid and ranks:
                found[int(ranks[0][5:])] = int(entry.name)
    return found


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc to find the processes")
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_the_others_and_another_number_of_them_goes_on(moving, alone, tmp_path, rank):
    run, gone = tmp_path / "r", "another process of this training is gone; the same command again goes on"
    for step in (15, 25):
        child = started(2, "train", moving, "--run", run, *SMALL)
        try:
            wait_for_step(run, step, child)
            os.kill(trainers(child)[rank], signal.SIGKILL)
            _, said = child.communicate(timeout=60)
        finally:
            child.kill()
        assert child.returncode != 0
        if gone in said:  # else torchrun ended the other one before it found out for itself: once more
            break
    assert gone in said
    reached = read_journal(run / "log.jsonl")[-1]["step"]
    done = ok("train", moving, "--run", run, *SMALL, program=SHORT)  # alone now
    assert done.returncode == 0
    lines = read_journal(run / "log.jsonl")
    assert lines[0]["step"] <= reached <= lines[-1]["step"] == lines[-1]["steps"]
    assert agree(run, alone)


def test_one_processes_run_is_gone_on_with_by_two(moving, alone, tmp_path):
    run = tmp_path / "r"
    child = subprocess.Popen([*SHORT, "train", str(moving), "--run", str(run), *SMALL], stderr=subprocess.PIPE)
    try:
        until = time.monotonic() + 200
        while not (run / "training.pt").exists() and child.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
    finally:
        child.kill()
        child.communicate()
    two = started(2, "train", moving, "--run", run, *SMALL)
    _, said = two.communicate(timeout=280)
    assert two.returncode == 0, said
    assert agree(run, alone)


def test_a_run_that_is_finished_is_refused_by_all_of_them_in_one_line(moving, alone):
    as_documented = ("-m", "--", "fastrain")
    child = started(2, "train", moving, "--run", alone, *SMALL, program=as_documented)
    _, said = child.communicate(timeout=120)
    assert child.returncode != 0
    assert said.count("holds a finished run") == 1
