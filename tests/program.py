"""The program called as other programs call it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = [sys.executable, "-c", "from fastrain.cli.main import run; run()"]
SHORT = [sys.executable, str(Path(__file__).with_name("short.py"))]

# None in the table of modules is how Python says that there is no such module.
BARE = """
import sys
for name in ("jaxtyping", "numba", "zarr", "icechunk", "xarray", "h5py", "h5netcdf", "matplotlib", "pyproj", "scores",
             "scipy", "pysteps", "eccodes", "distributed", "numcodecs"):
    sys.modules[name] = None
from fastrain.cli.main import run
run()
"""


def call(*arguments, cwd=None, program=PROGRAM):
    return subprocess.run(
        [*program, *map(str, arguments)], capture_output=True, text=True, timeout=300, cwd=cwd, check=False
    )


def ok(*arguments, **options):
    done = call(*arguments, **options)
    assert done.returncode == 0, done.stderr
    return done


def refused(status, *arguments, **options):
    done = call(*arguments, **options)
    assert done.returncode == status, (done.returncode, done.stderr)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.stderr
