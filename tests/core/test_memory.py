"""What a process says of its own memory."""

from __future__ import annotations

import subprocess
import sys

import numpy as np

from fastrain.core.memory import peak_bytes

CHILD = """
import numpy as np
from fastrain.core.memory import peak_bytes
before = peak_bytes()
held = np.ones(2**23)
del held
print(before, peak_bytes())
"""


def test_the_peak_is_this_programs_own_and_not_that_of_the_one_that_started_it():
    held = np.ones(2**26)  # half a gigabyte
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert before < held.nbytes < peak_bytes()
    assert after - before > 0.9 * 2**26  # what was held and given back counts


HOLDS = """
import numpy as np
from fastrain.core.memory import resident_bytes
before = resident_bytes()
kept = np.ones(50_000_000, np.uint8)
print(resident_bytes() - before)
"""


def test_what_this_process_holds_is_known():
    """In a process of its own: in another, the array may come to lie where something else was freed."""
    done = subprocess.run([sys.executable, "-c", HOLDS], capture_output=True, text=True, check=True)
    assert 40_000_000 < int(done.stdout) < 80_000_000
