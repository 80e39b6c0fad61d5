"""The verbs of the rain task: train, verify and forecast."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastrain.cli.rain_tables import show_place, show_scores
from fastrain.cli.show import Json, duration, listed, outlive_terminal, print_json, progress, say, size
from fastrain.core.errors import GapError, NotObserved, PlaceError, SettingError, UsageError
from fastrain.core.files import require_folder
from fastrain.core.processes import is_first
from fastrain.core.time import parse_time

if TYPE_CHECKING:
    from fastrain.rain.forecast import PlaceForecast
    from fastrain.rain.radar import Truth
    from fastrain.rain.start import Start

Place = Annotated[str | None, typer.Option(metavar="LAT,LON", help="The place, in degrees.")]
Of = Annotated[
    str | None,
    typer.Option("--truth", metavar="maximum|mean", help="Of which rate of a cell (the run `base`: either)."),
]
Pixel = Annotated[str | None, typer.Option(metavar="ROW,COL", help="The place, as a pixel of the picture.")]


def train(
    archive: Annotated[Path, typer.Argument(metavar="A", help="The archive.")],
    run: Annotated[Path, typer.Option(help="Folder of the run; a killed one is gone on with.")],
    recipe: Annotated[
        str,
        typer.Option(
            metavar="grid|place|ancestor",
            help="Chances for every cell; or of one place, by our network or by the ancestor's.",
        ),
    ] = "grid",
    coarseness: Annotated[int | None, typer.Option(min=1, help="Of the cells (default: nearest to 4 km).")] = None,
    place: Place = None,
    pixel: Pixel = None,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="That training may take in all (default: half of what is free)."),
    ] = None,
    width: Annotated[int, typer.Option(min=4, max=256, help="Of our network, its one dial.")] = 24,
    truth: Annotated[
        str, typer.Option(metavar="maximum|mean", help="Which rate of a cell the chances speak of.")
    ] = "maximum",
    start: Annotated[
        str,
        typer.Option("--from", metavar="auto|base|nothing", help="What to start from (auto: base for under a day)."),
    ] = "auto",
    varied: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            metavar="SHARE",
            help="Of a map's windows, shown as they might have been: more rain or less, seen less often, backwards "
            "(default: all of a day, fewer the longer).",
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(metavar="auto|cpu|cuda", help="That trains (auto: the GPU where there is one).")
    ] = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Of a CPU that trains (default: measured; kept with the run).")
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option(help="Write TensorBoard's event files into the run's folder too.")
    ] = False,
    json: Json = False,
) -> None:
    """Train a network on an archive."""
    from fastrain.archive.store import Archive
    from fastrain.core.memory import parse_size

    # What is wrong here is said before torch is loaded, which takes a second or more.
    where = asked_pixel(Archive.open(archive).schema.grid, place, pixel)
    limit = parse_size(memory) if memory else None
    from fastrain.engine.group import Done, leave
    from fastrain.rain.new_run import TrainSettings
    from fastrain.rain.train import train as fit

    settings = TrainSettings(
        recipe=recipe,
        coarseness=coarseness,
        place=where,
        seed=seed,
        width=width,
        memory=limit,
        truth=_truth(truth) or "maximum",
        start=_start(start),
        varied=varied,
        device=device,
        threads=threads,
        board=tensorboard,
    )
    outlive_terminal()
    with progress("train") if is_first() else nullcontext(nothing) as move:
        try:
            made = fit(archive, run, settings, say=say, progress=move)
        except Done:  # the first process does the rest
            return
        finally:
            leave()
    facts = made.facts
    if json:
        print_json(facts)
    else:
        typer.echo(
            f"{run}: trained in {duration(facts['seconds'])}, {size(facts['peak_bytes'])} of memory at the peak; "
            f"calibration temperature {facts['calibration']['temperature']:g}."
        )


def verify(
    run: Annotated[Path, typer.Argument(metavar="R", help="The run; `base` is the one in the package.")],
    archive: Annotated[Path | None, typer.Option(help="To score on (default: its own, the time held out).")] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Of climatology, persistence, advection, lagrangian, calibrated, pysteps, steps, sprog (default: the "
            "first five; pysteps, too, where it is installed and issue times are few).",
        ),
    ] = None,
    report: Annotated[Path | None, typer.Option(metavar="DIR", help="Write DIR/report.html.")] = None,
    place: Place = None,
    pixel: Pixel = None,
    issues: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Issue times to score, evenly spaced (default: all).")
    ] = None,
    truth: Of = None,
    json: Json = False,
) -> None:
    """Score a run on time it was not trained on, beside the baselines: on all cells, or at a place."""
    from fastrain.rain.run import open_run
    from fastrain.rain.verify import verify as score

    opened = open_run(run).speaking_of(_truth(truth))
    held = opened.archive(archive)
    names = None
    if against is not None:
        names = tuple(dict.fromkeys(listed(against)))
    where = asked_pixel(held.schema.grid, place, pixel)
    with progress("verify") as move:
        found = score(opened, held, against=names, pixel=where, most=issues, progress=move, say=say)
    if report is not None:
        from fastrain.rain.report import write_report

        require_folder(report, "--report")
        report.mkdir(parents=True, exist_ok=True)
        chances, there = _latest(opened, held, where)
        write_report(
            report / "report.html",
            run=opened,
            archive=held,
            found=found,
            chances=chances,
            place=there,
            stages=[],
        )
        say(f"Report: {report / 'report.html'}")
    if json:
        print_json(found.as_attributes())
    else:
        show_scores(found)


def forecast(
    run: Annotated[Path, typer.Argument(metavar="R", help="The run; `base` is the one in the package.")],
    archive: Annotated[Path | None, typer.Option(help="With the last frames (default: the run's own).")] = None,
    at: Annotated[
        str | None, typer.Option(metavar="ISO-TIME", help="Issue time, UTC (default: the last frame).")
    ] = None,
    place: Place = None,
    pixel: Pixel = None,
    to: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Write the map: .nc, .png, or a place's .json.")
    ] = None,
    truth: Of = None,
    json: Json = False,
) -> None:
    """Say the chances of rain: at a place, or as a map."""
    if to is not None and to.suffix not in (".nc", ".png", ".json"):
        raise UsageError(f"--to {to}: expected a name that ends in .nc, .png or .json.")
    time = parse_time(at) if at else None
    from fastrain.rain.forecast import at_place, forecast_grid, pixel_of
    from fastrain.rain.run import open_run

    opened = open_run(run).speaking_of(_truth(truth))
    held = opened.archive(archive)
    asked = asked_pixel(held.schema.grid, place, pixel)
    where = pixel_of(opened, held.schema.grid, None, asked)
    if where is None and (to is None or to.suffix == ".json"):
        raise UsageError("Which place? Give --place LAT,LON or --pixel ROW,COL, or write the map: --to chances.png.")
    chances = forecast_grid(opened, held, time)
    there = None
    if where is not None and (asked is not None or to is None or to.suffix == ".json"):
        there = at_place(chances, held.schema.grid, where)
    if to is not None and to.suffix == ".png" and chances["chance"].shape[-2:] == (1, 1):
        raise UsageError(f"--to {to}: {run} speaks of one place: there is no map; give --to chances.json or .nc.")
    if to is not None:
        _write(to, chances, there)
        say(f"Wrote {to}.")
    if there is not None and json:
        print_json(there)
    elif there is not None and to is None:
        show_place(there)
    elif json:
        print_json(_summary(chances))


def _latest(run: Any, archive: Any, pixel: tuple[int, int] | None) -> tuple[Any, PlaceForecast | None]:
    """Return the forecast from the last frame and its chances at a place, else the run's, as far as there are any."""
    from fastrain.rain.forecast import at_place, forecast_grid

    chances = None
    try:
        chances = forecast_grid(run, archive)
        pixel = pixel or run.place_on(archive.schema.grid)
        return chances, at_place(chances, archive.schema.grid, pixel) if pixel else None
    except (GapError, NotObserved, PlaceError) as error:
        say(f"The report shows no {'forecast' if chances is None else 'place'}: {error}")
        return chances, None


def nothing(*_: object) -> None:
    """Show no progress."""


def _start(said: str) -> Start:
    from fastrain.rain.start import STARTS

    for start in STARTS:
        if said == start:
            return start
    raise SettingError(f"--from {said}: expected {', '.join(STARTS)}.")


def _truth(said: str | None) -> Truth | None:
    if said is None:
        return None
    from fastrain.rain.radar import TRUTHS

    for truth in TRUTHS:
        if said == truth:
            return truth
    raise SettingError(f"--truth {said}: expected maximum or mean.")


def asked_pixel(grid: Any, place: str | None, pixel: str | None) -> tuple[int, int] | None:
    """Return the pixel that `--place` or `--pixel` names; None where neither is given."""
    from fastrain.core.grid import parse_pair

    if place and pixel:
        raise UsageError("--place and --pixel: give one of them.")
    if place:
        found: tuple[int, int] = grid.pixel(*parse_pair(place, "--place"))
        return found
    if pixel:
        row, column = parse_pair(pixel, "--pixel")
        if row != int(row) or column != int(column):
            raise SettingError(f"--pixel {pixel}: expected whole numbers, row first.")
        at = int(row), int(column)
        grid.require(at)
        return at
    return None


def _write(path: Path, chances: Any, there: PlaceForecast | None) -> None:
    import json

    from fastrain.cli.show import plain

    if not path.parent.is_dir():
        raise UsageError(f"--to {path}: there is no folder {path.parent}; make it first.")
    unfinished = path.with_name(f".{path.stem}.unfinished{path.suffix}")
    if path.suffix == ".nc":
        from fastrain.rain.forecast import write_netcdf

        write_netcdf(chances, str(unfinished))
    elif path.suffix == ".png":
        from fastrain.rain.pictures import figure_png, forecast_figure

        unfinished.write_bytes(figure_png(forecast_figure(chances, there.cell if there else None)))
    else:
        unfinished.write_text(json.dumps(plain(there), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    unfinished.replace(path)


def _summary(chances: Any) -> dict[str, Any]:
    """Return what a program wants to know of a map that was written."""
    mean = chances["chance"].mean(("y", "x")).values
    return {
        "issue_time": str(chances["issue_time"].values.astype("datetime64[s]")) + "Z",
        "thresholds": chances["threshold"].values.tolist(),
        "mean_chance": mean.round(4).tolist(),
        "truth": chances.attrs["truth"],
        "cells": int(chances.sizes["y"] * chances.sizes["x"]),
        "cells_observed": int(chances["chance"][0, 0].notnull().sum()),
        "network": chances.attrs["network"],
        "archive": chances.attrs["archive"],
    }
