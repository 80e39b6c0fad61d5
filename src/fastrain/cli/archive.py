"""The verbs around an archive: ingest and info."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from fastrain.cli.show import Json, duration, print_json, progress, say, size, whole_numbers
from fastrain.core.errors import SettingError, UsageError
from fastrain.core.time import show_time

if TYPE_CHECKING:
    from fastrain.ingest.check import CheckReport
    from fastrain.ingest.info import Info
    from fastrain.ingest.ingest import IngestReport
    from fastrain.sources.palette import Palette

MOST_LINES = 20


def ingest(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Files, and folders searched to the bottom.")],
    archive: Annotated[Path, typer.Option(help="The archive; made if there is none.")],
    format: Annotated[
        str,
        typer.Option(
            help="auto, or one of: bom, cf, eccc, fmi, knmi, mch, mrms, odim, picture, rpbin, synthetic, pysteps:NAME."
        ),
    ] = "auto",
    coarseness: Annotated[
        str | None, typer.Option(metavar="LIST", help="Edges of the blocks in pixels (default: 2,3,4).")
    ] = None,
    average: Annotated[
        str | None,
        typer.Option(metavar="level|rain_rate", help="What means are of (default: the format's own)."),
    ] = None,
    cadence: Annotated[
        float | None, typer.Option(metavar="MINUTES", help="Step of the time axis (default: the commonest).")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Decoding processes (default: by the work).")] = None,
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="A Dask scheduler whose workers decode: tcp://host:8786.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Take a frame in place of a different one.")] = False,
    site: Annotated[str | None, typer.Option(metavar="CODE", help="Take the pictures of this radar only.")] = None,
    centre: Annotated[
        str | None, typer.Option(metavar="LAT,LON", help="Where the radar of the pictures stands.")
    ] = None,
    pixel_size: Annotated[float | None, typer.Option(metavar="KM", help="Edge of a picture's pixel.")] = None,
    time_pattern: Annotated[
        str | None, typer.Option(metavar="PATTERN", help="How the time stands in the names: %Y%m%d%H%M.")
    ] = None,
    background: Annotated[
        Path | None, typer.Option(metavar="PICTURE", help="A picture without rain, instead of the consensus.")
    ] = None,
    palette: Annotated[
        Path | None, typer.Option(metavar="TOML", help="The colours of pictures of your own; see `fastrain palette`.")
    ] = None,
    crop: Annotated[
        str | None, typer.Option(metavar="ROW,COL,ROWS,COLS", help="The part of the pictures that is the map.")
    ] = None,
    mask: Annotated[
        Path | None, typer.Option(metavar="PICTURE", help="Not black where the pictures' rain is hidden.")
    ] = None,
    variable: Annotated[str | None, typer.Option(metavar="NAME", help="The variable to read, of several.")] = None,
    accumulation: Annotated[
        float | None, typer.Option(metavar="MINUTES", help="Over which amounts were summed, where files do not say.")
    ] = None,
    importer: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="For an importer of pysteps; may be given again.")
    ] = None,
    json: Json = False,
) -> None:
    """Put radar pictures and files into an archive; again and again, only what is new goes in."""
    from fastrain.core.grid import parse_pair
    from fastrain.ingest.ingest import IngestSettings
    from fastrain.ingest.ingest import ingest as run
    from fastrain.sources import READERS, ReadOptions

    if format != "auto" and format not in READERS and not format.startswith("pysteps:"):
        raise SettingError(f"--format {format}: expected auto, {', '.join(sorted(READERS))}, pysteps:NAME.")
    if palette is not None and format not in ("auto", "picture"):
        raise SettingError(f"--palette is for pictures of your own; leave --format {format} out.")
    colours = _palette(palette, crop, format)
    if palette is not None:
        format = "picture"
    if average not in (None, "level", "rain_rate"):
        raise SettingError(f"--average {average}: expected level or rain_rate.")
    settings = IngestSettings(
        format=format,
        coarseness=_without_pixels(coarseness),
        average=cast(Literal["level", "rain_rate"] | None, average),
        cadence=_cadence(cadence),
        workers=workers,
        scheduler=scheduler,
        replace=replace,
        background=background,
        reading=ReadOptions(
            centre=parse_pair(centre, "--centre") if centre else None,
            pixel_km=pixel_size,
            time_pattern=time_pattern,
            site=site,
            palette=colours,
            mask=mask,
            variable=variable,
            accumulation=_minutes(accumulation),
            importer=tuple(_pair(option) for option in importer or ()),
        ),
    )
    with progress("ingest") as move:
        report = run(paths, archive, settings, move)
    for problem in report.problems if json else report.problems[:MOST_LINES]:
        say(problem.reason)
    if not json and len(report.problems) > MOST_LINES:
        say(f"… and {len(report.problems) - MOST_LINES} more like these; --json lists all.")
    if json:
        print_json(report)
    else:
        _show_report(report)
    if report.problems:
        raise typer.Exit(1)


def info(
    archive: Annotated[Path, typer.Argument(metavar="A", help="The archive.")],
    json: Json = False,
) -> None:
    """Say what an archive holds: span, gaps, sizes, wet share."""
    from fastrain.ingest.info import describe

    described = describe(archive)
    if json:
        print_json(described)
    else:
        _show_info(described)


def palette(
    pictures: Annotated[list[Path], typer.Argument(metavar="PICTURE...", help="Of one kind; wet ones tell most.")],
    to: Annotated[Path, typer.Option(metavar="TOML", help="Where to write the proposal.")] = Path("palette.toml"),
    edges: Annotated[
        str | None, typer.Option(metavar="LIST", help="Lower end of each colour in mm/h, light to heavy.")
    ] = None,
    crop: Annotated[
        str | None, typer.Option(metavar="ROW,COL,ROWS,COLS", help="The part of the pictures that is the map.")
    ] = None,
    centre: Annotated[str | None, typer.Option(metavar="LAT,LON", help="Where the radar stands.")] = None,
    json: Json = False,
) -> None:
    """Propose the palette of pictures of your own, and show what it takes for rain, ground and overlay."""
    from fastrain.core.grid import parse_pair
    from fastrain.sources.propose import as_toml, described, draw, propose

    picture = to.with_suffix(".png")
    for path in (to, picture):
        if path.exists():
            raise UsageError(f"{path} exists; name another place with --to.")
    for path in pictures:
        if not path.is_file():
            what = "is a folder; name the pictures in it" if path.is_dir() else "no such file"
            raise UsageError(f"{path}: {what}.")
    proposal = propose(pictures, _box(crop) if crop else None)
    rates = _rates(edges) if edges else []
    if rates and len(rates) != len(proposal.colours):
        raise SettingError(f"--edges: {len(rates)} numbers, but {len(proposal.colours)} colours of rain were found.")
    position = parse_pair(centre, "--centre") if centre else None
    to.write_text(as_toml(proposal, to.stem, rates, position), encoding="utf-8")
    draw(proposal, pictures[0], picture)
    if json:
        print_json({**described(proposal), "edges": rates, "palette": str(to), "picture": str(picture)})
        return
    for note in proposal.notes:
        typer.echo(note)
    left = "" if rates else " Write the legend's numbers into `edges`."
    typer.echo(f"{to}: {len(proposal.colours)} colours of rain; look at {picture}.{left}")
    typer.echo(f"Then: fastrain ingest FOLDER --archive A --palette {to}")


def check(
    archive: Annotated[Path, typer.Argument(metavar="A", help="The archive.")],
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILES]...", help="For --repair: to take frames anew from."),
    ] = None,
    mend: Annotated[
        bool, typer.Option("--repair", help="Mark what is suspect, rebuild what can be, take frames anew from FILES.")
    ] = False,
    picture: Annotated[
        Path | None, typer.Option(metavar="PNG", help="Where to draw the calendar (default: A-calendar.png).")
    ] = None,
    json: Json = False,
) -> None:
    """Read everything an archive holds, say what is wrong with it, and repair it."""
    from fastrain.archive.repository import remote
    from fastrain.archive.store import Archive
    from fastrain.ingest.calendar import draw_calendar
    from fastrain.ingest.check import check as run
    from fastrain.ingest.repair import repair

    if files and not mend:
        raise UsageError("Files are for --repair; without it nothing is changed.")
    with progress("check") as move:
        report = run(archive, move)
    if mend:
        repair(archive, report, files or [])
    for note in report.notes:
        say(note)
    if report.frames:
        place = archive.resolve() if not remote(archive) else Path.cwd() / archive.name
        picture = picture or place.with_name(f"{place.name}-calendar.png")
        draw_calendar(Archive.open(archive), report, picture)
        report.picture = str(picture)
    if json:
        print_json(report)
    else:
        _show_check(report)
    left = [finding for finding in report.findings if finding.kind in ("damaged", "coarse", "broken_off", "blank")]
    if left and not (mend and report.marked == 0):
        raise typer.Exit(1)


def _cadence(minutes: float | None) -> timedelta | None:
    if minutes is None:
        return None
    if not 0.5 <= minutes <= 360 or minutes * 60 != round(minutes * 60):
        raise SettingError(f"--cadence {minutes:g}: expected minutes from 0.5 to 360, whole seconds.")
    return timedelta(seconds=round(minutes * 60))


def export(
    archive: Annotated[Path, typer.Argument(metavar="A", help="The archive.")],
    to: Annotated[Path, typer.Option(metavar="PATH", help="Where to write; a folder for rpbin, zarr and mlcast.")],
    format: Annotated[str, typer.Option(help="rpbin, netcdf, zarr or mlcast.")],
    coarseness: Annotated[int | None, typer.Option(metavar="C", help="Of the blocks (default: 1; rpbin: all).")] = None,
    unobserved_as_dry: Annotated[
        bool, typer.Option("--unobserved-as-dry", help="For rpbin, which cannot say what is not observed.")
    ] = False,
    attribute: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="To add to the data set; may be given again.")
    ] = None,
    json: Json = False,
) -> None:
    """Write what an archive holds for other programs."""
    from fastrain.ingest.export import ExportSettings
    from fastrain.ingest.export import export as run

    attributes = dict(_pair(option, "--attribute") for option in attribute or ())
    with progress("export") as move:
        report = run(archive, to, ExportSettings(format, coarseness, unobserved_as_dry, attributes), move)
    if json:
        print_json(report)
        return
    typer.echo(
        f"{report.path}: {report.frames} frames, {show_time(report.first)} to {show_time(report.last)}, "
        f"{size(report.bytes)}."
    )


def _minutes(minutes: float | None) -> timedelta | None:
    if minutes is None:
        return None
    if not 0 < minutes <= 20160:
        raise SettingError(f"--accumulation {minutes:g}: expected minutes, up to a fortnight.")
    return timedelta(minutes=minutes)


def _pair(option: str, name: str = "--importer") -> tuple[str, str]:
    key, equals, value = option.partition("=")
    if not (key.isidentifier() and equals):
        raise SettingError(f"{name} {option}: expected KEY=VALUE.")
    return key, value


def _palette(file: Path | None, crop: str | None, format: str) -> Palette | None:
    """Return the palette of the pictures, if it is not the format's own."""
    from fastrain.sources.palette import PACKAGED, load_palette, read_palette

    if file is None and crop is None:
        return None
    if file is None and format not in PACKAGED:
        raise SettingError(f"--crop needs a palette: --palette TOML, or --format {' or '.join(PACKAGED)}.")
    palette = read_palette(file) if file else load_palette(format)
    if crop is None:
        return palette
    return palette.cropped(_box(crop))


def _box(crop: str) -> tuple[int, int, int, int]:
    try:
        row, column, rows, columns = (int(part) for part in crop.split(","))
    except ValueError:
        raise SettingError(f"--crop {crop}: expected four numbers, ROW,COL,ROWS,COLS.") from None
    return row, column, rows, columns


def _rates(edges: str) -> list[float]:
    try:
        return [float(part) for part in edges.split(",")]
    except ValueError:
        raise SettingError(f"--edges {edges}: expected numbers with commas between, like 0.1,1,5.") from None


def _without_pixels(text: str | None) -> tuple[int, ...] | None:
    """Return the coarsenesses asked for; the pixels themselves are always kept."""
    return None if text is None else tuple(c for c in whole_numbers(text, "--coarseness") if c != 1)


def _show_report(report: IngestReport) -> None:
    for note in report.notes[:MOST_LINES]:
        say(note)
    counts = report.counts
    done = ", ".join(f"{counts[k]} {k}" for k in ("written", "unchanged", "replaced") if counts[k] or k == "written")
    left = f"; {len(report.problems)} left out" if report.problems else ""
    files = "1 file" if report.files == 1 else f"{report.files} files"
    typer.echo(f"{report.archive}: {done} from {files}{left}, in {duration(report.seconds)}.")


def _show_check(report: CheckReport) -> None:
    from rich.console import Console
    from rich.table import Table

    from fastrain.ingest.check import KINDS

    console = Console(soft_wrap=True, highlight=False)
    if report.first is None or report.last is None:
        console.print(f"{report.archive}: empty.")
        return
    console.print(
        f"{report.archive}: {report.frames} frames of {report.slots} slots, {show_time(report.first)} to "
        f"{show_time(report.last)}; {report.missing} missing in {report.gaps} gaps."
    )
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("found", "frames", "what it is"):
        table.add_column(column, justify="right" if column == "frames" else "left")
    for kind, count in report.counts.items():
        table.add_row(kind.replace("_", " "), str(count), KINDS[kind])
    console.print(table)
    for finding in report.findings[:MOST_LINES]:
        console.print(f"{show_time(finding.time)}  {finding.kind.replace('_', ' ')}: {finding.said}")
    if len(report.findings) > MOST_LINES:
        console.print(f"… and {len(report.findings) - MOST_LINES} more; --json lists all.")
    if report.marked or report.rebuilt or report.repaired:
        console.print(
            f"Repair: {report.repaired} frames taken anew, {report.rebuilt} made anew from the frame, "
            f"{report.marked} marked suspect."
        )
    console.print(f"Calendar: {report.picture}")


def _show_info(info: Info) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    rows = {
        "archive": f"{info.path} ({info.source}; identity {info.identity})",
        "picture": f"{info.columns}×{info.rows} pixels of {info.cell_km:.3g} km, every {info.cadence_minutes:g} min",
        "coarseness": ", ".join(map(str, info.coarseness)),
    }
    if info.first and info.last:
        rows |= {
            "span": f"{show_time(info.first)} to {show_time(info.last)}",
            "frames": f"{info.frames} of {info.slots} slots",
            "gaps": _gaps(info),
            "wet": f"{info.wet_share:.1%} of the observed pixels" if info.wet_share is not None else "nothing observed",
            "observed": f"{info.observed_share:.1%} of the picture",
        }
    else:
        rows["span"] = "empty"
    ratio = f", {info.bytes_on_disk / info.bytes_raw:.1%} of its pixels' bytes" if info.frames else ""
    rows["disk"] = f"{size(info.bytes_on_disk)}{ratio}"
    rows["data"] = info.credit
    for name, value in rows.items():
        table.add_row(name, value)
    Console(soft_wrap=True, highlight=False).print(table)


def _gaps(info: Info) -> str:
    if not info.gaps:
        return "none"
    shown = [
        f"{show_time(g.start)} to {show_time(g.end)} ({g.frames} frames)" if g.frames > 1 else show_time(g.start)
        for g in info.gaps[:5]
    ]
    more = f" and {len(info.gaps) - 5} more" if len(info.gaps) > 5 else ""
    return "; ".join(shown) + more
