"""`fastrain plan`: what training will take, before anything long."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastrain.cli.rain import Pixel, Place, asked_pixel
from fastrain.cli.show import Json, listed, print_json, print_table, say, size, whole_numbers

if TYPE_CHECKING:
    from fastrain.rain.plan import Plan

STARTED = time.monotonic()


def plan(
    archive: Annotated[Path, typer.Argument(metavar="A", help="The archive.")],
    recipe: Annotated[
        str, typer.Option(metavar="LIST", help="Of grid, place and ancestor, to plan for.")
    ] = "grid,place",
    coarseness: Annotated[
        str | None, typer.Option(metavar="LIST", help="To plan for (default: 1 and the archive's).")
    ] = None,
    place: Place = None,
    pixel: Pixel = None,
    width: Annotated[int, typer.Option(min=4, max=256, help="Of our network, its one dial.")] = 24,
    varied: Annotated[
        float | None,
        typer.Option(min=0, max=1, metavar="SHARE", help="Of a map's windows, that are varied; see train."),
    ] = None,
    memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="That training may take in all (default: half of what is free).")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Of a CPU that trains (default: measured).")] = None,
    device: Annotated[
        str, typer.Option(metavar="auto|cpu|cuda", help="That trains (auto: the GPU where there is one).")
    ] = "auto",
    run: Annotated[Path, typer.Option(help="Where the run would lie: its disk is looked at.")] = Path(),
    json: Json = False,
) -> None:
    """Say what training takes of memory, disk and time, before it begins."""
    from fastrain.archive.store import Archive
    from fastrain.core.memory import parse_size
    from fastrain.rain.new_run import TrainSettings
    from fastrain.rain.plan import plan as find

    held = Archive.open(archive)
    settings = TrainSettings(
        place=asked_pixel(held.schema.grid, place, pixel),
        width=width,
        varied=varied,
        memory=parse_size(memory) if memory else None,
        threads=threads,
        device=device,
    )
    wanted = whole_numbers(coarseness, "--coarseness") if coarseness else ()
    recipes = tuple(dict.fromkeys(listed(recipe)))
    found = find(held, settings, coarsenesses=wanted, recipes=recipes, disk=run, started=STARTED)
    if json:
        print_json(found)
    else:
        show(found)


def show(found: Plan) -> None:
    """Print a plan as a table."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0), pad_edge=False, show_edge=False)
    for name in (
        "recipe",
        "cells of",
        "inputs",
        "weights",
        "memory",
        "least",
        "disk",
        "epoch",
        "epochs",
        "in all",
        "fits",
    ):
        table.add_column(name, justify="left" if name == "recipe" else "right", no_wrap=True)
    for row in found.rows:
        table.add_row(
            row.recipe,
            f"{row.coarseness}, {row.cell_km:.2g} km",
            short(row.values),
            short(row.weights),
            size(row.memory),
            size(row.least_memory),
            size(row.disk),
            about(row.seconds_per_epoch),
            f"{row.epochs:.0f}" if row.epochs >= 10 else f"{row.epochs:.2g}",
            about(row.seconds),
            "yes" if row.fits else "no",
        )
    print_table(table)
    issues = ", ".join(f"{count} {name}" for name, count in found.issues.items())
    taken = [row.gpu_memory for row in found.rows if row.gpu_memory is not None]
    if taken:
        say(f"Of the GPU's memory training takes about {size(max(taken))}.")
    busy = f"{_count(found.threads, 'thread')}, on {_count(found.cores, 'core')}, as busy as now"
    say(f"Issue times: {issues}. Times are of {busy}.")
    say(
        f"Memory: {size(found.free_memory)} free, of which training may take {size(found.allowed_memory)} (--memory); "
        f"disk: {size(found.free_disk)} free."
    )


def short(count: int) -> str:
    """Return a large number as a table has it: 190k, 1.2M."""
    value = float(count)
    for unit in ("", "k", "M"):
        if value < 999.5:
            return f"{value:.3g}{unit}"
        value /= 1000
    return f"{value:.3g}G"


def about(seconds: float) -> str:
    """Return a duration that was not measured but expected: no more of it than can be known."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
