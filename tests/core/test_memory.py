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
