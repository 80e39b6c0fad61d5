"""How much memory this process may still take, and how much it took at its peak."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import resource
import sys
from pathlib import Path

from fastrain.core.errors import SettingError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4  # of malloc.h
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 2**10, "MI": 2**20, "GI": 2**30}


def available_bytes() -> int:
    """Return the memory that is free on the machine, or left under the control group's limit if that is less."""
    free = 0
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
    except OSError:
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    try:
        group = Path("/sys/fs/cgroup")
        limit = (group / "memory.max").read_text().strip()
        if limit != "max":
            used = int((group / "memory.current").read_text())
            free = min(free, max(0, int(limit) - used))
    except (OSError, ValueError):
        pass
    return free


def keep_freed_memory() -> None:
    """Let the C library keep arrays of a frame's size that were freed, instead of fetching each anew from the kernel.

    glibc gives blocks of over 128 KiB back at once, and every page of the next one costs a fault: a sixth of the time
    of decoding and storing pictures. Elsewhere than on glibc this does nothing.
    """
    _mallopt((_M_MMAP_THRESHOLD, 2**26), (_M_TRIM_THRESHOLD, 2**28))


def keep_all_memory() -> None:
    """Let the C library keep whatever is freed: for training, whose every step asks for the same hundreds of megabytes.

    Two fifths of the time of a convolution on 31×31 maps went into page faults.
    """
    _mallopt((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1))


def _mallopt(*options: tuple[int, int]) -> None:
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL("libc.so.6")
        for option, value in options:
            library.mallopt(option, value)


def peak_bytes() -> int:
    """Return the most memory this process has held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def parse_size(text: str) -> int:
    """Return the bytes of `4GB`, `512MiB` or `2G`.

    Raises:
        SettingError: it is no size.
    """
    match = re.fullmatch(r"\s*([0-9.]+)\s*([KMG]?I?)B?\s*", text.upper())
    try:
        return int(float(match.group(1)) * _UNITS[match.group(2)])  # type: ignore[union-attr]
    except (AttributeError, KeyError, ValueError):
        raise SettingError(f"--memory {text}: expected a size like 4GB or 512MiB.") from None
