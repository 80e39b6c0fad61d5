"""How the command line shows things: JSON, sizes, durations, progress."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastrain.core.errors import SettingError
from fastrain.core.time import show_time

if TYPE_CHECKING:
    from rich.table import Table

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object to standard output.")]
WIDEST = 2000  # columns of a table
LINE_SECONDS = 15  # between two lines of progress where no terminal shows a bar


def print_json(value: Any) -> None:
    """Print one JSON object to standard output, and nothing else."""
    # In ASCII, so that a file name that is no valid text cannot break it.
    typer.echo(json.dumps(plain(value), allow_nan=False))


def plain(value: Any) -> Any:
    """Return a value as JSON has it: times in ISO 8601 UTC, what is no number as null."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, datetime):
        return show_time(value)
    if isinstance(value, timedelta):
        return value.total_seconds() / 60
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def print_table(table: Table) -> None:
    """Print a table as wide as it is: on a narrow terminal its lines wrap, but no number is cut."""
    from rich.console import Console
    from rich.measure import Measurement

    console = Console()
    needed = Measurement.get(console, console.options.update(max_width=WIDEST), table).maximum
    console.width = max(console.width, needed)
    console.print(table)


def say(line: str) -> None:
    """Print a line to standard error; what a hostile file name holds cannot move the cursor or break the line."""
    sys.stderr.write(clean(line) + "\n")


def clean(text: str) -> str:
    """Return text on one line, question marks for what a terminal would obey or cannot show."""
    return "".join(c if c.isprintable() else "?" for c in text)


def size(count: float) -> str:
    """Return a number of bytes as people read it."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:  # what would be rounded to 1000 is one of the next unit
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def duration(seconds: float) -> str:
    """Return a duration as people read it."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def listed(text: str) -> list[str]:
    """Return the names that an option lists with commas between, as they come."""
    return [name.strip() for name in text.split(",") if name.strip()]


def whole_numbers(text: str, option: str) -> tuple[int, ...]:
    """Return the whole numbers from 1 on that an option lists, rising and each once.

    Raises:
        SettingError: it is no such list.
    """
    try:
        numbers = sorted({int(part) for part in text.split(",")})
    except ValueError:
        numbers = []
    if not numbers or numbers[0] < 1:
        raise SettingError(f"{option} {text}: expected whole numbers from 1 on with commas between, like 2,3,4.")
    return tuple(numbers)


def outlive_terminal() -> None:
    """Let this process go on when its terminal is closed; what it would have shown there is shown nowhere."""

    terminals = [stream for stream in (0, 1, 2) if os.isatty(stream)]  # once it is closed nobody can tell

    def gone(*_: object) -> None:
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in terminals:
            os.dup2(nowhere, stream)

    if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:  # not where `nohup` ignores it already
        signal.signal(signal.SIGHUP, gone)


@contextmanager
def progress(title: str) -> Iterator[Callable[[int, int, str], None]]:
    """Yield a function (done, total, text) that shows progress with the time left on standard error.

    A bar on a terminal; elsewhere a line now and then.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    bar = Progress(
        TextColumn(f"{title:<9}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.description}"),
        console=console,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task("", total=None)
        began = said = time.monotonic()
        first, last = 0, (0, 0)  # where this piece of work stood when it began, and where it stands

        def move(done: int, total: int, text: str) -> None:
            nonlocal began, said, first, last
            now = time.monotonic()
            if last[1] and (total != last[1] or done < last[0]):
                # Another piece of work: how long the one before took says nothing of it.
                began, first = now, done
                bar.reset(task)
            elif not last[1]:
                first = max(0, done - 1)  # of a run that goes on, what was done before took no time
            last = done, total
            bar.update(task, completed=done, total=total, description=text)
            if not console.is_terminal and now - said > LINE_SECONDS:
                said = now
                left = (now - began) * (total - done) / max(1, done - first)
                ends = f", about {duration(left)} left" if first < done < total else ""
                say(f"{title}: {done} of {total}, {text}{ends}")

        yield move
