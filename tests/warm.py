"""A program that has loaded what the command line loads, and goes on as a copy of itself for each call of it.

A line of JSON in: arguments, folder, environment, files of standard output and error. A line out: the exit status.
Loading torch and the rest took two thirds of the time of tests that look at a message or a table.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
import traceback
from importlib import import_module

from fastrain.cli.main import run

# Nothing of it has started anything yet: no thread, no lock that a copy would miss.
for name in (
    "rain.pictures",
    "rain.plan",
    "rain.report",
    "rain.train",
    "rain.verify",
    "vision.ablate",
    "vision.predict",
):
    import_module(f"fastrain.{name}")


def called(asked: dict) -> None:
    """Run the command line, as its own process would, and end with its status."""
    for number, path in enumerate([os.devnull, asked["out"], asked["err"]]):
        held = os.open(path, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(held, number)
        os.close(held)
    # Or processes that ingest spawns would load all this again, as their main module.
    del sys.modules["__main__"].__file__
    os.environ.clear()
    os.environ.update(asked["environment"])
    sys.argv = ["fastrain", *asked["arguments"]]
    status: object = 0
    try:
        os.chdir(asked["folder"])
        run()
    except SystemExit as end:
        status = end.code
    except Exception:  # noqa: BLE001  # told as Python tells it
        traceback.print_exc()
        status = 1
    if status is not None and not isinstance(status, int):
        print(status, file=sys.stderr)
        status = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status or 0)


def main() -> None:
    """Serve until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            called(json.loads(line))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)


if __name__ == "__main__":
    main()
