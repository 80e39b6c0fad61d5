"""The tables of chances and of scores that the terminal shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastrain.cli.show import print_table
from fastrain.core.time import show_time

if TYPE_CHECKING:
    from fastrain.rain.forecast import PlaceForecast
    from fastrain.rain.verified import Verification


def show_place(there: PlaceForecast) -> None:
    """Show the chances at a place, period by period, in the colours of their lights."""
    from rich.table import Table

    colours = {"no": "green", "unsure": "yellow", "yes": "red"}
    at = f"{there.latitude:.3f}, {there.longitude:.3f} (cell of {there.cell_km:.3g} km)"
    of = "of the cell's mean, " if there.truth == "mean" else ""
    title = f"{at}, {of}issued {show_time(there.issue_time)}"
    table = Table(title=title, title_justify="left", caption=f"Data: {there.credit}", caption_justify="left")
    table.add_column("period, UTC")
    for threshold in there.thresholds:
        table.add_column(f"≥ {threshold:g} mm/h", justify="right")
    for period in there.periods:
        cells = [
            f"[{colours[period.lights[f'{t:g}']]}]{period.chances[f'{t:g}']:.0%} {period.lights[f'{t:g}']}[/]"
            for t in there.thresholds
        ]
        table.add_row(f"{period.start:%H:%M}–{period.valid_time:%H:%M}", *cells)
    print_table(table)


def show_scores(found: Verification) -> None:
    """Show the scores of all forecasters, a table a threshold, and what they rest on."""
    import numpy as np
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for k, threshold in enumerate(found.thresholds):
        table = Table(
            title=f"≥ {threshold:g} mm/h ({found.truth} of a cell)",
            title_justify="left",
            title_style="bold",
            box=SIMPLE,
        )
        table.add_column("minutes ahead", no_wrap=True, min_width=15)
        for start, end in found.periods:
            table.add_column(f"{start}–{end}", justify="right", no_wrap=True)
        for label, pick in (("Brier score", "brier"), ("CSI", "csi"), ("ROC area", "roc_area")):
            table.add_row(f"[dim]{label}[/]")
            for name, words, tally in found.shown():
                cells = ("–" if np.isnan(value) else f"{value:.3f}" for value in getattr(tally, pick)[:, k])
                table.add_row(f"  {name}{words}", *cells, style="bold" if name == "network" else None)
        table.add_row("[dim]skill, % over[/]")
        for name in found.tallies:
            if name != "network":
                skill, (low, high) = found.skill(name)[:, k], found.intervals[name]
                table.add_row(f"  {name}", *("–" if np.isnan(value) else f"{100 * value:+.0f}" for value in skill))
                if not np.isnan(low[:, k]).all():
                    ends = zip(low[:, k], high[:, k], strict=True)
                    table.add_row(
                        "", *("" if np.isnan(a) else f"{100 * a:+.0f} to {100 * b:+.0f}" for a, b in ends), style="dim"
                    )
        tally = found.tallies["network"]
        for label, counts in (("cells judged", tally.cells), ("of which rain", tally.events)):
            table.add_row(label, *(f"{int(count):,}" for count in counts[:, k]), style="dim")
        print_table(table)
    if any(not np.isnan(found.intervals[name][0]).all() for name in found.tallies if name != "network"):
        console.print(
            "Skill: by how much the network's Brier score is lower; below, in 90 of 100 resamples of the time."
        )
    span = f"{found.issues} issue times, {show_time(found.first)} to {show_time(found.last)}"
    short = ": few independent cases; the scores illustrate, they do not rank." if found.illustrates else "."
    console.print(span + short, highlight=False)
    for name, count in found.absent.items():
        console.print(f"At {count} of them {name} could say nothing.", highlight=False)
