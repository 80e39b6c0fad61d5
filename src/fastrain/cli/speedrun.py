"""The verb speedrun, and its live table."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from fastrain.cli.show import Json, duration, plain, print_json, say, size
from fastrain.core.errors import SettingError
from fastrain.engine.leaving import Left

if TYPE_CHECKING:
    from fastrain.vision.speedrun import Outcome
    from fastrain.vision.train import Epoch, Trained


def speedrun(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="Folder: Parquet as uoft-cs/cifar10, CIFAR-10's own batches, or train/ and test/ of images.",
        ),
    ],
    recipe: Annotated[
        str | None, typer.Option(metavar="NAME", help="hlb, hlb-0.7, airbench94, cpu or gpu (default: by device).")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many runs; mean and spread are over them.")] = 1,
    device: Annotated[str | None, typer.Option(metavar="D", help="cpu, cuda, cuda:1 (default: the fastest).")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Of a CPU (default: 1).")] = None,
    look: Annotated[
        bool | None,
        typer.Option("--look/--no-look", help="Judge the test images after every epoch (default: on a GPU)."),
    ] = None,
    compile: Annotated[
        bool | None,
        typer.Option("--compile/--no-compile", help="By torch.compile, its time apart (default: as the recipe)."),
    ] = None,
    to: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the record, JSON.")] = None,
    json: Json = False,
) -> None:
    """Train a small image network as fast as it goes, and say how fast and how well."""
    import json as text

    from fastrain.core.files import require_writable, write_whole
    from fastrain.vision.datasets import open_dataset
    from fastrain.vision.recipes import recipe_of
    from fastrain.vision.speedrun import default_recipe, device_of, record_of
    from fastrain.vision.speedrun import speedrun as race

    on = device_of(device)
    name = recipe or default_recipe(on)
    chosen = recipe_of(name)
    if compile is not None:
        chosen = replace(chosen, compile=compile)
    require_cores(threads)
    if to is not None:
        require_writable(to, "--to")
    held = open_dataset(data)
    apart = " (held out, as it has no test part)" if held.held_out else ""
    say(
        f"{held.name}: {len(held.train.labels)} images to train on, {len(held.test.labels)} to test on{apart}, "
        f"{len(held.classes)} classes; recipe {name}, {on}."
    )
    table = Table(chosen.epochs)
    outcomes: list[Outcome] = []

    def end(trained: Trained, outcome: Outcome) -> None:
        outcomes.append(outcome)  # first: what is shown is kept
        table.end(trained)

    def tell() -> None:
        """Give the record of the seeds that are done."""
        record = record_of(held, name, chosen, tuple(outcomes), on)
        if json:
            print_json(record)
        else:
            _show(record)
        if to is not None:
            write_whole(to, text.dumps(plain(record), indent=1) + "\n")

    signal.signal(signal.SIGTERM, _leave)
    try:
        race(
            held,
            chosen,
            seeds=seeds,
            device=on,
            threads=threads,
            look=on.type != "cpu" if look is None else look,
            begin=table.begin,
            progress=table.row,
            done=end,
        )
    except (KeyboardInterrupt, Left) as error:
        if outcomes:
            say(f"Interrupted: of {seeds} seeds {len(outcomes)} are done, whose figures these are.")
            tell()
        # The library under the command line ends without a word on the other.
        raise Left(error.signal if isinstance(error, Left) else signal.SIGINT) from None
    tell()


def _leave(number: int, _: FrameType | None) -> NoReturn:
    """End by SIGTERM as by Ctrl-C, also between the steps of trainings."""
    raise Left(number)


def require_cores(threads: int | None) -> None:
    """Refuse more threads than there are cores: each step would wait for the last of them.

    Raises:
        SettingError: so it is.
    """
    from fastrain.core.processes import usable_cores

    if threads is not None and threads > usable_cores():
        raise SettingError(f"--threads {threads}: this process may use {usable_cores()} cores; name as many at most.")


def _show(record: dict[str, Any]) -> None:
    """Print the figures of all seeds in one line."""
    accuracy, seconds, cpu = (record[field] for field in ("accuracy_views", "seconds", "cpu_seconds"))
    count = accuracy["count"]
    spread = "" if accuracy["spread"] is None else f" ± {100 * accuracy['spread']:.2f}"
    typer.echo(
        f"{record['data']}, {record['recipe']}: {100 * accuracy['mean']:.2f}{spread} % in {duration(seconds['mean'])} "
        f"({cpu['mean']:.0f} CPU s), {count} seed{'s' if count > 1 else ''}, {record['device']}; "
        f"{size(record['peak_bytes'])} of memory at the peak."
    )


class Table:
    """The live table: a line an epoch, on standard error."""

    _HEAD = ("seed", "epoch", "loss", "accuracy", "with views", "seconds", "CPU s")

    def __init__(self, epochs: float, *, seeds: bool = True) -> None:
        self.epochs, self.first = epochs, 0 if seeds else 1
        self.seed: int | None = None

    def begin(self, seed: int) -> None:
        """Start a seed."""
        if self.seed is None:
            self._line(*self._HEAD)
            self._line(*("─" * len(head) for head in self._HEAD))
        self.seed = seed

    def row(self, epoch: Epoch) -> None:
        """Show an epoch."""
        accuracy = "" if epoch.accuracy is None else f"{100 * epoch.accuracy:.2f}"
        self._line(
            str(self.seed),
            f"{epoch.epoch:.3g}/{self.epochs:.3g}",
            f"{epoch.loss:.4f}",
            accuracy,
            "",
            f"{epoch.seconds:.1f}",
            f"{epoch.cpu_seconds:.1f}",
        )

    def end(self, trained: Trained) -> None:
        """Show a seed's end."""
        if trained.compile_seconds >= 0.1:
            say(f"Compiled in {duration(trained.compile_seconds)}, which is not counted.")
        self._line(
            str(self.seed),
            "end",
            "",
            f"{100 * trained.accuracy:.2f}",
            f"{100 * trained.accuracy_views:.2f}",
            f"{trained.seconds:.1f}",
            f"{trained.cpu_seconds:.1f}",
        )

    def _line(self, *cells: str) -> None:
        columns = list(zip(cells, self._HEAD, strict=True))[self.first :]
        say(" │ ".join(cell.rjust(max(len(head), 7)) for cell, head in columns))
