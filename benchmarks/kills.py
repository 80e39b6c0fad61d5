"""A hundred kills: a training by the command line, killed with -9 over and over, ends with the same weights.

Default recipe. The moments are spread evenly over the life of a training that nobody kills, and taken in a random
order; a killed run is gone on with until it is killed again or ends, and each one that ends is compared, to the bit.
A call of this that was itself ended goes on from its folder. Then disk full: the run's folder on a small tmpfs (needs
root), enlarged for the call that ends it.

    python benchmarks/kills.py --work FOLDER --to records/kills.json [--kills 100] [--full 10] [--at-once 2]
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import synthetic

from fastrain.core.files import write_whole


def called(archive: Path, run: Path) -> subprocess.Popen[bytes]:
    """Begin a training, or go on with it; one thread, as sums over other threads are other sums."""
    command = [sys.executable, "-m", "fastrain", "train", str(archive), "--run", str(run), "--threads", "1"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def ended(archive: Path, run: Path) -> str:
    """Let a training come to its end, and return what tells its weights."""
    child = called(archive, run)
    _, said = child.communicate()
    if child.returncode:
        raise SystemExit(f"{run}: ended with {child.returncode}: {said.decode()}")
    return str(json.loads((run / "run.json").read_text())["network"]["identity"])


SO_FAR = "so far.json"


@dataclass
class Trials:
    """Kills so far, by several series at once, and what the runs that ended came to.

    Attributes:
        archive: to learn from.
        work: folder of the runs.
        whole: what tells the weights of a training that nobody killed.
        life: seconds that it took.
        wanted: kills.
    """

    archive: Path
    work: Path
    whole: str
    life: float
    wanted: int
    killed: list[dict[str, object]] = field(default_factory=list)
    identities: list[str] = field(default_factory=list)
    tenths: list[int] = field(init=False)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.tenths = [i % 10 for i in range(len(self.killed), self.wanted)]

    def keep(self) -> None:
        """Write down how far it got, for a later call to go on."""
        kept = {"whole": self.whole, "life": self.life, "killed": self.killed, "identities": self.identities}
        write_whole(self.work / SO_FAR, json.dumps(kept))

    def series(self, seed: int) -> None:
        """Kill one run after the other until there were enough kills; the last one is let end."""
        draw = random.Random(f"{seed} {len(self.killed)}")
        run, kills = self.work / f"killed {seed}.{len(self.identities)}", 0
        while True:
            with self.lock:
                enough = not self.tenths
                if enough and not kills:
                    return
                # What ends before its moment was no kill: that tenth of the life is taken again.
                tenth = 0 if enough else self.tenths.pop(0)
                moment = (tenth + draw.random()) / 10 * self.life
            began = time.monotonic()
            child = called(self.archive, run)
            try:
                child.communicate(timeout=None if enough else moment)
            except subprocess.TimeoutExpired:
                child.kill()
                child.communicate()
                kills += 1
                with self.lock:
                    self.killed.append({"run": run.name, "seconds": round(moment, 2), "state": _state(run)})
                    self.keep()
                continue
            if child.returncode and not (run / "run.json").exists():  # killed after run.json was written, it is whole
                raise SystemExit(f"{run}: ended with {child.returncode}")
            identity = json.loads((run / "run.json").read_text())["network"]["identity"]
            with self.lock:
                if not enough:
                    self.tenths.append(tenth)
                if not kills:  # a whole life, perhaps shorter than the first
                    self.life = min(self.life, time.monotonic() - began)
                self.identities.append(identity)
                self.keep()
                said = "the same" if identity == self.whole else "OTHER"
                print(f"{len(self.killed)} of {self.wanted}: {run.name}, killed {kills} times: {said}", flush=True)
            run, kills = self.work / f"killed {seed}.{len(self.identities)}", 0


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--full", type=int, default=10)
    parser.add_argument("--archive", type=Path)
    parser.add_argument("--at-once", type=int, default=2)
    told = parser.parse_args()
    told.work.mkdir(parents=True, exist_ok=True)
    archive = told.archive or told.work / "archive"
    if not archive.exists():
        synthetic.write_archive(archive, synthetic.moving_rain(frames=96, seed=3))
    if (told.work / SO_FAR).exists():
        trials = Trials(archive, told.work, wanted=told.kills, **json.loads((told.work / SO_FAR).read_text()))
    else:
        began = time.monotonic()
        whole = ended(archive, told.work / "whole")
        trials = Trials(archive, told.work, whole, time.monotonic() - began, told.kills)
        trials.keep()
    with ThreadPoolExecutor(told.at_once) as pool:
        for done in [pool.submit(trials.series, number) for number in range(told.at_once)]:
            done.result()
    killed, identities, whole, life = trials.killed, trials.identities, trials.whole, trials.life
    full = [_full(archive, told.work, whole, (i + 1) / told.full) for i in range(told.full)]
    record = {
        "life_seconds": round(life, 1),
        "kills": len(killed),
        "kills_by_state": {s: sum(k["state"] == s for k in killed) for s in dict.fromkeys(k["state"] for k in killed)},
        "runs_ended": len(identities),
        "runs_with_the_same_weights": sum(one == whole for one in identities),
        "full_disk": full,
        "killed": killed,
    }
    told.to.write_text(json.dumps(record, indent=1) + "\n")
    print({key: value for key, value in record.items() if key != "killed"})


def _state(run: Path) -> str:
    """Return what a killed run was at."""
    if (run / "run.json").exists():
        return "whole"
    if not (run / "plan.json").exists():
        return "before it had a plan"
    try:
        line = (run / "log.jsonl").read_text().splitlines()[-1]
        step, steps = (json.loads(line)[name] for name in ("step", "steps"))
    except (OSError, IndexError, ValueError):
        return "before its first step"
    return "training" if step < steps else "after its last step"


def _full(archive: Path, work: Path, whole: str, share: float) -> dict[str, object]:
    """Train on a disk that is too small, then on one that is not."""
    disk = work / "small disk"
    disk.mkdir(exist_ok=True)
    needed = sum(p.stat().st_size for p in (work / "whole").iterdir()) * 4
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={int(share * needed)}", "tmpfs", disk], check=True)
    try:
        child = called(archive, disk / "run")
        _, said = child.communicate()
        subprocess.run(["mount", "-o", "remount,size=64M", disk], check=True)
        if child.returncode:
            ended(archive, disk / "run")
        same = whole == json.loads((disk / "run" / "run.json").read_text())["network"]["identity"]
        lines = [line for line in said.decode().splitlines() if "space" in line]
        return {"bytes": int(share * needed), "status": child.returncode, "said": lines[:2], "same_weights_after": same}
    finally:
        subprocess.run(["umount", disk], check=True)
        shutil.rmtree(disk)


if __name__ == "__main__":
    main()
