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
CONTROL_GROUPS = Path("/sys/fs/cgroup")
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
    return min([free, *_groups_leave()])


def _groups_leave() -> list[int]:
    """Return what each control group above this process leaves of its limit, of either version of control groups."""
    left = []
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    for line in lines:
        _, kinds, inside = line.split(":", 2)
        if kinds == "":
            root, names = CONTROL_GROUPS, ("memory.max", "memory.current")
        elif "memory" in kinds.split(","):
            root, names = CONTROL_GROUPS / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        here = root / inside.lstrip("/")
        # In a container the group's own folder may be the root of what is mounted.
        for group in {root, here, *(one for one in here.parents if root in one.parents)}:
            with contextlib.suppress(OSError, ValueError):
                limit, used = (int((group / name).read_text()) for name in names)  # "max" is no limit
                left.append(max(0, limit - used + _reclaimable(group)))
    return left


def _reclaimable(group: Path) -> int:
    """Return the bytes of a group's use that the system takes back as soon as it needs them: cached files."""
    with contextlib.suppress(OSError, ValueError):
        for line in (group / "memory.stat").read_text().splitlines():
            name, count = line.split()
            if name == "inactive_file":
                return int(count)
    return 0


def resident_bytes() -> int:
    """Return the memory this process holds now; where the system does not tell, the most it has held."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return peak_bytes()


def keep_freed_memory() -> None:
    """Let the C library keep arrays of a frame's size that were freed, instead of fetching each anew from the kernel.

    glibc gives blocks of over 128 KiB back at once, and every page of the next one costs a fault: a sixth of the time
    of decoding and storing pictures. Elsewhere than on glibc this does nothing.
    """
    _mallopt((_M_MMAP_THRESHOLD, 2**26), (_M_TRIM_THRESHOLD, 2**28))


def give_large_memory_back() -> None:
    """Let the C library give arrays of over four megabytes back as soon as they are freed.

    Else it comes to keep them, and what is left between others that are still held serves nobody. With smaller ones
    given back, too, a third of a training's processor time went into page faults, for 5 % less memory at most (LOG.md).
    """
    _mallopt((_M_MMAP_THRESHOLD, 2**22), (_M_MMAP_MAX, 2**16), (_M_TRIM_THRESHOLD, 2**28))


def give_free_memory_back() -> None:
    """Let the C library give back now whatever is free: between two pieces of work that ask for other sizes."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


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
    """Return the most memory this process has held.

    The count of `getrusage` goes on from that of the process that started this one, so a small training that a large
    program starts would be said to have taken what that program did. Linux keeps another one that begins anew.
    """
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
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
