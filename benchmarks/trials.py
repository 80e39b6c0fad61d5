"""Trials of trust: ingest through the command line, hurt at moments spread over its run, then run again.

    python benchmarks/trials.py [--trials 100] [--to records/trials.json]

Three kinds: killed with -9; disk full (a small tmpfs, enlarged for the second run); permission lost (the archive made
immutable while it is written, then mutable again). After each the archive must open and hold whole commits, and the
second run must complete it to the same content as one that was never hurt. Needs root, for tmpfs and chattr.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from fastrain.archive.repository import exists
from fastrain.archive.schema import Status
from fastrain.archive.store import Archive
from fastrain.sample import unpack_knmi

FRAMES = 48
# The program as it is, but committing often, so that the hurt falls between commits as well as before the first.
SCRIPT = (
    "import fastrain.ingest.ingest as i; i.COMMIT_SECONDS = 0.0; i.BATCH_BYTES = 2**20;"
    "from fastrain.cli.main import run; run()"
)
PROGRAM = [sys.executable, "-c", SCRIPT]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--to", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pictures = Path(folder) / "knmi"
        unpack_knmi(pictures)
        for late in sorted(pictures.iterdir())[FRAMES:]:
            late.unlink()
        whole = Path(folder) / "whole"
        began = time.monotonic()
        assert _start(pictures, whole).wait() == 0
        seconds = time.monotonic() - began
        size = sum(p.stat().st_size for p in whole.rglob("*") if p.is_file())
        record: dict[str, object] = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "seconds_of_a_run": round(seconds, 2)}
        for kind, hurt in {"killed": _killed, "disk_full": _disk_full, "permission_lost": _permission_lost}.items():
            seen: Counter[str] = Counter()
            for trial in range(asked.trials):
                share = (trial + 0.5) / asked.trials
                place = Path(folder) / kind / f"{trial}"
                place.mkdir(parents=True)
                held = hurt(pictures, place, share, seconds, size, whole)
                seen["complete" if held == FRAMES else "nothing" if held == 0 else "part"] += 1
                shutil.rmtree(place)
            record[kind] = {
                "trials": asked.trials,
                "held_after_the_hurt": dict(seen),
                "second_run_the_same": asked.trials,
            }
            print(kind, record[kind], flush=True)
    if asked.to:
        asked.to.write_text(json.dumps(record, indent=2) + "\n")


def _killed(pictures: Path, place: Path, share: float, seconds: float, size: int, whole: Path) -> int:
    archive = place / "a"
    process = _start(pictures, archive)
    time.sleep(share * seconds)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return _finish(pictures, archive, whole)


def _disk_full(pictures: Path, place: Path, share: float, seconds: float, size: int, whole: Path) -> int:
    disk = place / "disk"
    disk.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={max(4096, int(share * 1.1 * size))}", "tmpfs", disk], check=True
    )
    try:
        process = _start(pictures, disk / "a")
        status = process.wait(timeout=120)
        assert status in (0, 1), status
        subprocess.run(["mount", "-o", "remount,size=256m", disk], check=True)
        return _finish(pictures, disk / "a", whole)
    finally:
        subprocess.run(["umount", disk], check=True)


def _permission_lost(pictures: Path, place: Path, share: float, seconds: float, size: int, whole: Path) -> int:
    archive = place / "a"
    process = _start(pictures, archive)
    time.sleep(share * seconds)
    targets = [p for p in [place, archive, *archive.rglob("*")] if p.is_dir()]
    subprocess.run(["chattr", "-f", "+i", *map(str, targets)], check=False)
    try:
        status = process.wait(timeout=120)
        assert status in (0, 1), status
    finally:
        subprocess.run(["chattr", "-R", "-f", "-i", str(place)], check=False)
    return _finish(pictures, archive, whole)


def _start(pictures: Path, archive: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [*PROGRAM, "ingest", str(pictures), "--archive", str(archive)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _finish(pictures: Path, archive: Path, whole: Path) -> int:
    """Look at what the hurt run left, run again, compare with a run that was never hurt; return the frames left."""
    held = 0
    if exists(archive):
        left = Archive.open(archive)
        if left.span is not None:
            held = int((left.slots("status", *left.span) != Status.MISSING).sum())
            left.level(*left.span)
    again = _start(pictures, archive).wait(timeout=120)
    assert again == 0, f"the second run ended with {again}"
    _same(archive, whole)
    return held


def _same(a: Path, b: Path) -> None:
    one, two = Archive.open(a), Archive.open(b)
    assert one.span is not None and one.span == two.span and one.schema == two.schema
    names = ["status", "time_offset", "digest", "wet_pixels", "observed_pixels", "1/level"]
    names += [f"{c}/{name}" for c in one.schema.coarseness for name in ("max", "mean", "observed")]
    for name in names:
        np.testing.assert_array_equal(one.array(name, *one.span), two.array(name, *two.span))


if __name__ == "__main__":
    main()
