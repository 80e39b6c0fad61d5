"""What this process may use, and which it is of several that torchrun started; told without torch."""

from __future__ import annotations

import os
import threading
import time
from typing import NoReturn


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1


def end_with_parent(parent: int) -> None:
    """Have this process end within a second of its parent: for one at long work, whose result nobody waits for then.

    Args:
        parent: number of the process that began this one.
    """

    def watch() -> NoReturn:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def process_number() -> int:
    """Return this process's number among all, from 0."""
    said = os.environ.get("RANK", "0")
    return int(said) if said.isdecimal() else 0


def is_first() -> bool:
    """Tell whether this process is the one that speaks and writes for all."""
    return process_number() == 0


def processes() -> int:
    """Return how many processes there are in all."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_processes() -> int:
    """Return how many of them are on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def local_number() -> int:
    """Return this one's number among those on this machine, from 0."""
    return int(os.environ.get("LOCAL_RANK", "0"))
