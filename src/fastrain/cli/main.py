"""The program `fastrain`: its verbs, and how it ends.

Exit status: 0 done, 1 the job failed, 2 wrong usage, 130 interrupted, 143 told to end by SIGTERM, and saved. A failure
is one line on standard error.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from contextlib import suppress
from typing import NoReturn

import typer

from fastrain.cli import ablate, archive, demo, plan, rain, runs, speedrun, vision
from fastrain.cli.show import say
from fastrain.core.errors import FastrainError
from fastrain.core.processes import is_first, process_number
from fastrain.engine.leaving import Left

RESUMED = {"ingest", "train", "ablate"}  # verbs that go on where they were ended

app = typer.Typer(
    name="fastrain",
    help="Weather-radar pictures in, calibrated chances of rain out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from fastrain import __version__

        typer.echo(f"fastrain {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Show the version and exit."
    ),
) -> None:
    """Weather-radar pictures in, calibrated chances of rain out."""


app.command("demo")(demo.demo)
app.command("ingest")(archive.ingest)
app.command("palette")(archive.palette)
app.command("info")(archive.info)
app.command("check")(archive.check)
app.command("export")(archive.export)
app.command("plan")(plan.plan)
app.command("train")(rain.train)
app.command("verify")(rain.verify)
app.command("forecast")(rain.forecast)
app.command("runs")(runs.runs)
app.command("ablate")(ablate.ablate)
app.command("speedrun")(speedrun.speedrun)
app.add_typer(vision.app)


def run() -> None:
    """Run the program and exit with its status."""
    try:
        try:
            app()
        except SystemExit as end:
            if not end.code:
                _flush()  # here, where a full disk or a closed pipe gets its line
            raise
    except FastrainError as error:
        # Of several processes that train together each says what it met with, and which one it is.
        _fail(str(error) if is_first() else f"process {process_number()}: {error}", error.exit_status)
    except (KeyboardInterrupt, Left) as error:
        # 130 of Ctrl-C, 143 of SIGTERM, as shells have it.
        number = error.signal if isinstance(error, Left) else signal.SIGINT
        verb = sys.argv[2:3] if sys.argv[1:2] == ["vision"] else sys.argv[1:2]
        goes_on = bool(RESUMED.intersection(verb))
        then = "and the same command again goes on from it" if goes_on else "the same command begins anew"
        _fail(f"Interrupted; {'what was committed or checkpointed stands, ' if goes_on else ''}{then}.", 128 + number)
    except BrokenPipeError:
        # The reader of our output has gone (`fastrain info A | head`): no failure worth a message.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except MemoryError:
        _fail("Out of memory; a larger --coarseness, or smaller images, need less.", 1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        then = " Make room, and give the same command again; what was committed or checkpointed stands." if full else ""
        _fail(f"{where}{error.strerror or error}.{then}", 1)


def _fail(line: str, status: int) -> NoReturn:
    say(f"fastrain: {' '.join(line.split())}")
    with suppress(OSError):  # it may be what failed
        _flush()
    sys.stderr.flush()
    # Not sys.exit: the storage's threads may still be at a write that failed (disk full), and abort the interpreter
    # while it shuts down, which would turn this status into 134.
    os._exit(status)


def _flush() -> None:
    if sys.stdout is not None:  # closed before we began
        sys.stdout.flush()
