"""The verb demo: the main job on the sample in the package, from pictures to a report one can look at."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastrain.cli.show import duration, progress, say, size
from fastrain.core.errors import UsageError

if TYPE_CHECKING:
    from fastrain.rain.report import Stage

MARK = ".fastrain-demo"


def demo(
    out: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Where everything is written; an older demo there is replaced."),
    ] = Path("demo"),
) -> None:
    """Ingest, train, verify and forecast on the sample, ending in DIR/report.html."""
    from fastrain.core.memory import peak_bytes
    from fastrain.ingest.ingest import IngestSettings, ingest
    from fastrain.rain.report import Stage, write_report
    from fastrain.sample import PLACE, unpack_franktown, unpack_knmi

    stages: list[Stage] = []

    def done(name: str, what: str, began: float) -> None:
        stages.append(Stage(name, what, time.monotonic() - began, peak_bytes()))
        say(f"{name}: {what}, {duration(stages[-1].seconds)}")

    _fresh(out)
    count = unpack_knmi(out / "radar")
    pictures = unpack_franktown(out / "pictures")
    say(f"{count} radar files in {out / 'radar'}, {pictures} radar pictures in {out / 'pictures'}")

    began = time.monotonic()
    with progress("ingest") as move:
        ingest([out / "radar"], out / "archive", IngestSettings(), move)
        ingest([out / "pictures"], out / "franktown", IngestSettings(), move)
    done("ingest", f"{count} KNMI frames and {pictures} pictures of Franktown at coarseness 1 to 4", began)

    from fastrain.archive.store import Archive
    from fastrain.rain.forecast import at_place, forecast_grid
    from fastrain.rain.new_run import TrainSettings
    from fastrain.rain.train import train
    from fastrain.rain.verify import verify

    archive = Archive.open(out / "archive")
    pixel = archive.schema.grid.pixel(*PLACE)
    began = time.monotonic()
    with progress("train") as move:
        run = train(out / "archive", out / "run", TrainSettings(place=pixel), say=say, progress=move)
    done("train", f"{run.facts['network']['steps']} steps on {run.facts['trained_on']} windows", began)

    began = time.monotonic()
    with progress("verify") as move:
        found = verify(run, archive, progress=move)
    done("verify", f"{found.issues} issue times, network and {len(found.tallies) - 1} baselines", began)

    began = time.monotonic()
    chances = forecast_grid(run, archive)
    place = at_place(chances, archive.schema.grid, pixel)
    done("forecast", f"{len(place.periods)} periods, {len(place.thresholds)} thresholds, every cell", began)

    page = out / "report.html"
    write_report(
        page,
        run=run,
        archive=archive,
        found=found,
        chances=chances,
        place=place,
        stages=stages,
        pictures=_franktown(out),
        occasion="one night",
    )
    seconds, peak = sum(s.seconds for s in stages), max(s.peak_bytes for s in stages)
    typer.echo(f"Report: {page} ({duration(seconds)}, {size(peak)} of memory at the peak)")


def _fresh(out: Path) -> None:
    """Make the folder; what an older demo left there is removed, anything else is not touched."""
    if out.exists() and any(out.iterdir()):
        if not (out / MARK).exists():
            raise UsageError(f"{out}: holds something else than a demo; name another --out.")
        for name in ("radar", "pictures", "archive", "franktown", "run"):
            shutil.rmtree(out / name, ignore_errors=True)
        (out / "report.html").unlink(missing_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    (out / MARK).touch()


def _franktown(out: Path) -> list[tuple[str, str]]:
    """Return a picture as its maker drew it, and as the archive holds it."""
    from fastrain.archive.store import Archive
    from fastrain.core.time import parse_time
    from fastrain.rain.pictures import png, rain_picture
    from fastrain.rain.report import data_address

    name = "XFT_PRECIP_RAIN_2013_08_08_03_30.GIF"
    archive = Archive.open(out / "franktown")
    slot, _ = archive.schema.axis.slot(parse_time("2013-08-08T03:30Z"))
    level = archive.level(slot, slot + 1)[0]
    return [
        (
            "A picture as Environment Canada drew it: map, legend, clock.",
            data_address((out / "pictures" / name).read_bytes(), "gif"),
        ),
        (
            "The same as the archive holds it: rain in its 14 levels; grey is not observed, hidden by lines, labels "
            "and the logo, or beyond the radar's range.",
            data_address(png(rain_picture(level, archive.schema.table))),
        ),
    ]
