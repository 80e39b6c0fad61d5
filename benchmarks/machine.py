"""What a record says of where and when it was made."""

from __future__ import annotations

import platform
import subprocess
from datetime import date
from pathlib import Path

import torch

from fastrain.engine.precision import fast_precision


def machine() -> dict[str, str]:
    """Return the date, the commit, the processor, in which numbers it computes, and torch's version."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = next((line.split(":")[1].strip() for line in info.splitlines() if line.startswith("model name")), "")
    try:
        asked = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        commit = asked.stdout.strip()
    except (OSError, subprocess.SubprocessError):  # a copy on another machine has no history, nor git
        commit = "unknown"
    return {
        "date": str(date.today()),
        "commit": commit,
        "processor": model or platform.processor(),
        "precision": fast_precision("cpu"),
        "torch": torch.__version__,
    }
