"""The program called as other programs call it."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from functools import lru_cache
from pathlib import Path

SECONDS = 300  # that a call may take
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


class _Warm:
    """The program, loaded once for all calls of a process; see `warm.py`."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("warm.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            start_new_session=True,
        )

    def __call__(self, arguments, cwd):
        with tempfile.TemporaryDirectory() as folder:
            out, err = Path(folder) / "out", Path(folder) / "err"
            asked = {
                "arguments": arguments,
                "folder": str(cwd or Path.cwd()),
                "environment": dict(os.environ),
                "out": str(out),
                "err": str(err),
            }
            self.process.stdin.write(json.dumps(asked) + "\n")
            answered, _, _ = select.select([self.process.stdout], [], [], SECONDS)
            status = self.process.stdout.readline() if answered else ""
            if not status:  # it hangs, or is gone: the next call gets another one
                _warm.cache_clear()
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.communicate()
                raise subprocess.TimeoutExpired(arguments, SECONDS)
            return subprocess.CompletedProcess(arguments, int(status), *(p.read_text() for p in (out, err)))


@lru_cache
def _warm():
    return _Warm()


def call(*arguments, cwd=None, program=None):
    """Call the program; a given one in a process of its own, from nothing."""
    told = [str(one) for one in arguments]
    if program is None:
        return _warm()(told, cwd)
    return subprocess.run([*program, *told], capture_output=True, text=True, timeout=SECONDS, cwd=cwd, check=False)


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
