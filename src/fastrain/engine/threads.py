"""How many threads a CPU trains with: chosen once, by measurement, when a run is created, and kept with it.

Threads that compute a step together wait for the slowest of them: where another process takes a core, two are slower
than one. And a sum over other threads is another sum: a run that goes on after a kill must keep their number.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import torch

from fastrain.core.processes import local_processes, usable_cores

GAIN = 0.85  # of the time that more threads must stay below: what they take in processor time has to be worth it


def cores() -> int:
    """Return the number of cores that this process may use, or of threads if `OMP_NUM_THREADS` asks for fewer.

    Processes that torchrun started on one machine share its cores; torchrun sets that variable to 1, whatever there is.
    """
    count = usable_cores()
    if local_processes() > 1:
        return max(1, count // local_processes())
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return min(count, int(asked)) if asked.isdecimal() and int(asked) else count


def choose_threads(step: Callable[[], object], *, most: int | None = None, repeats: int = 3) -> int:
    """Return the number of threads that take a step fastest, 1, 2, 4 … up to the cores; more only where they gain.

    Args:
        step: takes one step; the first call may prepare what later ones need.
        most: threads at most; the cores if None.
        repeats: of each; the fastest counts.
    """
    most = cores() if most is None else most
    if most == 1:
        return 1
    before = torch.get_num_threads()
    counts = [2**i for i in range(most.bit_length()) if 2**i < most] + [most]
    best, seconds = 1, float("inf")
    try:
        for count in counts:
            torch.set_num_threads(count)
            step()
            spent = min(_timed(step) for _ in range(repeats))
            if spent < GAIN * seconds:
                best, seconds = count, spent
            elif spent > 2 * seconds:
                break  # more of them will not mend it
    finally:
        torch.set_num_threads(before)
    return best


def _timed(step: Callable[[], object]) -> float:
    began = time.perf_counter()
    step()
    return time.perf_counter() - began
