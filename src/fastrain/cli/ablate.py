"""The verb `ablate`: what does each way of coarse-graining cost, and what does it save?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastrain.cli.show import Json, listed, print_json, progress, say, whole_numbers
from fastrain.core.errors import SettingError


def ablate(
    archive: Annotated[Path, typer.Argument(metavar="A", help="The archive.")],
    to: Annotated[Path, typer.Option(metavar="FOLDER", help="That gets table, picture and figures; resumes.")],
    coarseness: Annotated[
        str | None, typer.Option(metavar="LIST", help="Cuts to compare (default: 1 and all that A holds, up to 4).")
    ] = None,
    steps: Annotated[int, typer.Option(min=20, help="Of each training.")] = 300,
    width: Annotated[int, typer.Option(min=4, max=256, help="Of the network, its one dial.")] = 16,
    windows: Annotated[int, typer.Option(min=8, help="To train on, at most.")] = 64,
    tests: Annotated[int, typer.Option(min=4, help="To judge by, at most.")] = 48,
    learn_from: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Other archives to learn from, by commas (the last: to calibrate on); A is then judged whole, however "
            "short.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each cut, from --seed on.")] = 1,
    json: Json = False,
) -> None:
    """Measure the price of coarse-graining: skill, time and memory of each cut, with and without squeeze-and-excite."""
    from fastrain.archive.store import Archive
    from fastrain.rain.ablate import PICTURE, table_of
    from fastrain.rain.ablate import ablate as measure
    from fastrain.rain.cuts import Scale

    cuts = (
        list(whole_numbers(coarseness, "--coarseness"))
        if coarseness
        else [c for c in (1, *Archive.open(archive).schema.coarseness) if c <= 4]
    )
    scale = Scale(steps=steps, width=width, train=windows, calibrate=max(2, windows // 4), test=tests, seed=seed)
    others = [Path(name) for name in listed(learn_from or "")]
    if learn_from is not None and not others:
        raise SettingError("--learn-from: names no archive; name two or more, with commas between.")
    with progress("ablate") as move:
        found = measure(archive, to, cuts, scale, learn_from=others, seeds=seeds, progress=move)
    if json:
        print_json(found)
    else:
        typer.echo(table_of(found))
    say(f"Picture: {to / PICTURE}")
