"""How long a training step takes with one thread and with two, alone and while other processes take the cores.

Each setting runs in a process of its own, for how threads wait is read once, at the start. Prints medians of a step's
wall time over those of one thread alone, in the same run.

    python benchmarks/threads.py [--steps 12] [--to records/threads.json]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

STEP = """
import json, statistics, sys, time, torch
from fastrain.engine.precision import computing
from fastrain.core.memory import keep_all_memory
from fastrain.nets.image_net import ImageNet, NetSettings
threads, steps = int(sys.argv[1]), int(sys.argv[2])
keep_all_memory()
torch.set_num_threads(threads)
torch.manual_seed(0)
net = ImageNet(3, 10, NetSettings())
x = torch.randn(100, 3, 32, 32).contiguous(memory_format=torch.channels_last)
y = torch.randint(0, 10, (100,))
net.stem.fit(x)
spent = []
for _ in range(steps + 2):
    began = time.perf_counter()
    with computing("cpu"):
        loss = torch.nn.functional.cross_entropy(net(x).float(), y)
    loss.backward()
    net.zero_grad()
    spent.append(time.perf_counter() - began)
print(json.dumps(statistics.median(spent[2:])))
"""
BUSY = "while True: pass"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--to", type=Path)
    asked = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    rows = []
    for busy in (0, 1, cores):
        neighbours = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(busy)]
        try:
            for threads in (1, cores):
                for wait in ("as it is", "passive"):
                    if threads == 1 and wait == "passive":
                        continue
                    environment = {**os.environ, **({"OMP_WAIT_POLICY": "passive"} if wait == "passive" else {})}
                    done = subprocess.run(
                        [sys.executable, "-c", STEP, str(threads), str(asked.steps)],
                        capture_output=True,
                        text=True,
                        check=True,
                        env=environment,
                    )
                    rows.append({"busy": busy, "threads": threads, "waiting": wait, "seconds": json.loads(done.stdout)})
                    row = rows[-1]
                    print(
                        f"{busy} busy neighbours, {threads} threads, waiting {wait:8}: {1000 * row['seconds']:.0f} ms, "
                        f"{row['seconds'] / rows[0]['seconds']:.2f} of one thread alone",
                        flush=True,
                    )
        finally:
            for neighbour in neighbours:
                neighbour.kill()
                neighbour.wait()
    if asked.to:
        record = {"cores": cores, "machine": platform.machine(), "python": platform.python_version(), "steps": rows}
        asked.to.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
