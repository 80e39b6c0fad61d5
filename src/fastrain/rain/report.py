"""The report: one self-contained HTML page that people look at, with maps, traffic lights and scores."""

from __future__ import annotations

import base64
import html
import json
from dataclasses import dataclass
from datetime import timedelta
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

import numpy as np

from fastrain.archive.store import Archive
from fastrain.core.files import write_whole
from fastrain.core.time import show_time, utc_of
from fastrain.rain.forecast import PlaceForecast, forecast_grid
from fastrain.rain.pictures import (
    RATE_COLOURS,
    RATE_EDGES,
    brier_figure,
    case_figure,
    chance_picture,
    figure_png,
    png,
    rain_picture,
    reliability_figure,
    scale_figure,
)
from fastrain.rain.radar import happened
from fastrain.rain.report_tables import changes, scores, wetness
from fastrain.rain.run import Run
from fastrain.rain.verified import Verification
from fastrain.samples.frames import load_frames, window_slots

if TYPE_CHECKING:
    import xarray as xr

OBSERVED_SPAN = timedelta(hours=1)


@dataclass(frozen=True)
class Stage:
    """One line of what was done: its name, what came of it, seconds and bytes of memory at the peak so far."""

    name: str
    what: str
    seconds: float
    peak_bytes: int


def write_report(
    path: Path,
    *,
    run: Run,
    archive: Archive,
    found: Verification,
    chances: xr.Dataset | None,
    place: PlaceForecast | None,
    stages: list[Stage],
    pictures: list[tuple[str, str]] | None = None,
    occasion: str = "one spell of weather",
) -> None:
    """Write the report.

    Args:
        path: of the HTML file.
        run: that is reported on.
        archive: it was verified on.
        found: its scores.
        chances: the forecast to show, if any.
        place: its chances at a place, if any.
        stages: what was done.
        pictures: captions and bytes (as data addresses) of further pictures to show.
        occasion: what less than a day of scores comes from.
    """
    template = Template((files("fastrain.rain") / "report.html").read_text(encoding="utf-8"))
    page = template.substitute(
        title=_escape(f"Chances of rain, {found.first:%Y-%m-%d}"),
        trained="trained on other radars" if run.is_base else "trained on this machine",
        caveat=_caveat(found, occasion),
        stages=_stages(stages),
        forecast=_forecast(archive, chances, place) if chances is not None else "",
        choices=_choices(run, found, archive.schema.grid.coarsened(run.coarseness_on(archive)).cell_km),
        reliability=_image(figure_png(reliability_figure(found)), "Reliability diagrams, one for each threshold"),
        brier=_image(figure_png(brier_figure(found)), "Brier scores by lead, one panel for each threshold"),
        scores=scores(found),
        wetness=wetness(found),
        changes=changes(found),
        scales=_scales(found),
        cases=_cases(run, archive, found) if found.cell is None else "",
        pictures="".join(
            f"<figure><img src='{src}' alt=''><figcaption>{_escape(c)}</figcaption></figure>"
            for c, src in pictures or []
        ),
        credit=_escape("; the network: ".join([archive.schema.credit, *_learned_credit(run)])),
        identity=_escape(
            f"network {run.identity}, archive {archive.schema.identity}, fastrain {run.facts['fastrain']}"
        ),
    )
    write_whole(path, page)


def _learned_credit(run: Run) -> list[str]:
    """Return whom to thank for the data of other radars that the network learned from, if any."""
    credits = dict.fromkeys(one["credit"] for one in run.facts["events"])
    return ["; ".join(credits)] if credits else []


def data_address(picture: bytes, kind: str = "png") -> str:
    """Return a picture as an address that holds it."""
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def _forecast(archive: Archive, chances: xr.Dataset, place: PlaceForecast | None) -> str:
    """Return the animated map and the traffic lights."""
    issue = utc_of(chances["issue_time"].values)
    slot = archive.schema.axis.slot(issue)[0]
    span = max(1, round(OBSERVED_SPAN / archive.schema.axis.cadence))
    first = max((archive.span or (0, 0))[0], slot - span)
    level = archive.level(first, slot + 1)
    held = archive.observed(first, slot + 1)
    frames = [
        (
            show_time(archive.schema.axis.time(first + i)),
            "observed",
            data_address(png(rain_picture(level[i], archive.schema.table))),
        )
        for i in range(len(level))
        if held[i]
    ]
    alone = chances["chance"].shape[-2:] == (1, 1)  # a run of one place has no map ahead
    bounds = (chances["lead_bounds"].values / np.timedelta64(60, "s")).astype(int)
    thresholds = [f"{float(t):g}" for t in chances["threshold"].values]
    ahead = {
        t: [
            (
                f"{a}–{b} min after {show_time(issue)}",
                f"chance of ≥ {t} mm/h",
                data_address(png(chance_picture(chances["chance"].values[p, k]))),
            )
            for p, (a, b) in enumerate(bounds)
            if not alone
        ]
        for k, t in enumerate(thresholds)
    }
    rows, columns = archive.schema.grid.shape
    marker = ""
    if place:
        x, y = (place.pixel[1] + 0.5) / columns * 100, (place.pixel[0] + 0.5) / rows * 100
        marker = f"<div class='place' style='left:{x:.2f}%;top:{y:.2f}%' title='the place'></div>"
    buttons = "".join(
        f"<label><input type='radio' name='threshold' value='{t}'{' checked' if i == 0 else ''}> ≥ {t} mm/h</label> "
        for i, t in enumerate(thresholds)
    )
    legend = "".join(
        f"<span style='background:{c}'>{e:g}</span>" for e, c in zip(RATE_EDGES, RATE_COLOURS, strict=True)
    )
    return (
        f"<h2>The last hour, and the chances {'at the place' if alone else 'ahead'}</h2><div class='both'><div>"
        f"<div class='map' style='aspect-ratio:{columns}/{rows}'><img id='frame' alt='radar map'>{marker}</div>"
        "<div class='bar'><button id='play' type='button'>Pause</button><input id='at' type='range' min='0' value='0' "
        "aria-label='time'></div><p id='when' class='when'></p>"
        f"<p{' hidden' if alone else ''}>{buttons}</p><p class='legend'>mm/h {legend}</p>"
        f"<p class='legend chance'{' hidden' if alone else ''}>chance <span>0</span><i></i><span>1</span> grey: not "
        "observed</p></div>"
        f"<div>{_lights(place)}</div></div>"
        f"<script>const observed={json.dumps(frames)},ahead={json.dumps(ahead)};</script>"
    )


def _lights(place: PlaceForecast | None) -> str:
    if place is None:
        return "<p>No place was named; give --place LAT,LON for its traffic lights.</p>"
    shown = [f"{place.thresholds[0]:g}", f"{place.thresholds[-1]:g}"]
    names = dict(zip(shown, ("rain", "heavy"), strict=False)) if shown[0] != shown[1] else {shown[0]: "rain"}
    head = "".join(f"<th>{names[t]}<br><small>≥ {t} mm/h</small></th>" for t in names)
    rows = "".join(
        f"<tr><th>{p.start_min}–{p.end_min} min<br><small>to {p.valid_time:%H:%M}Z</small></th>"
        + "".join(
            f"<td class='light {p.lights[t]}'><b>{p.chances[t]:.0%}</b><br>{_word(p.lights[t])}</td>" for t in names
        )
        + "</tr>"
        for p in place.periods
    )
    return (
        f"<h3>At {place.latitude:.3f}, {place.longitude:.3f}</h3>"
        f"<p>Issued {show_time(place.issue_time)}; the chance that it rains {_WHERE[place.truth]} the cell of "
        f"{place.cell_km:.3g} km at some time of the period.</p>"
        f"<table class='lights'><tr><td></td>{head}</tr>{rows}</table>"
    )


_WHERE = {"maximum": "somewhere in", "mean": "so much in the mean of"}


def _word(light: str) -> str:
    return {"no": "sure no", "unsure": "unsure", "yes": "sure yes"}[light]


def _caveat(found: Verification, occasion: str) -> str:
    cases = f"{found.issues} issue times within {found.hours:.1f} hours"
    if found.illustrates:
        independent, plural = found.independent, "s" if found.independent > 1 else ""
        return (
            f"<p class='caveat'>The scores below come from {cases} of {occasion}. Issue times a few minutes "
            f"apart see nearly the same rain: counting one an hour, that is about {independent} independent "
            f"case{plural}. They illustrate how to read the scores; they do not rank the methods.</p>"
        )
    return f"<p>The scores below come from {cases} that training did not see.</p>"


def _choices(run: Run, found: Verification, cell_km: float) -> str:
    facts = run.facts
    periods, network = facts["layout"]["periods"], facts["network"]
    if run.is_base:
        learned = [f"trained on {', '.join(one['name'] for one in facts['events'])}; of no one radar"]
    else:
        learned = [
            f"{name}: {a} to {b}, {facts['issues'][name]} issue times" for name, (a, b) in facts["split"].items()
        ]
    lines = [
        f"history {facts['layout']['history']} min, {len(periods)} periods up to {periods[-1][1]} min ahead",
        f"thresholds {', '.join(f'{t:g}' for t in found.thresholds)} mm/h",
        f"truth: the {run.truth} of the cell of {cell_km:.3g} km at its highest over the period",
        *learned,
        *(["started from the run base, which other radars taught"] if run.facts.get("start") else []),
        f"network of {network['weights']:,} weights, {network['steps']} steps; of its correction to the first guesses "
        f"the calibration time keeps {network['share_kept']:.0%}; temperature {facts['calibration']['temperature']:g}",
    ]
    return "<ul>" + "".join(f"<li>{_escape(line)}</li>" for line in lines) + "</ul>"


def _stages(stages: list[Stage]) -> str:
    rows = "".join(
        f"<tr><th>{_escape(s.name)}</th><td>{_escape(s.what)}</td><td class='n'>{s.seconds:.1f} s</td>"
        f"<td class='n'>{s.peak_bytes / 2**20:,.0f} MiB</td></tr>"
        for s in stages
    )
    total = sum(s.seconds for s in stages)
    if not stages:
        return ""
    return (
        "<h2>What was done</h2><table><tr><td></td><td></td><th>time</th><th>memory, peak so far</th></tr>"
        f"{rows}<tr><th>all</th><td></td><td class='n'>{total:.1f} s</td><td></td></tr></table>"
    )


def _scales(found: Verification) -> str:
    roc = "hits against false alarms as the chance that counts as yes falls"
    if found.cell is not None:
        head, words = "Hits and false alarms", f"ROC: {roc}."
    else:
        head = "On what scale is it right?"
        words = f"Left: shares of rain in squares of a size, forecast beside truth; 1 is perfect. Right: {roc}."
    return f"<h2>{head}</h2><p>{words}</p>" + _image(figure_png(scale_figure(found)), head)


def _cases(run: Run, archive: Archive, found: Verification) -> str:
    """Return the maps of the issue times at which the network gained and lost most on smoothed advection."""
    slots = found.best_and_worst("lagrangian") if "lagrangian" in found.tallies else None
    if slots is None:
        return ""
    out = ["<h2>Its best and its worst case</h2>"]
    radar = run.radar(archive)
    for slot, words in zip(slots, ("The best case", "The worst case"), strict=True):
        time = archive.schema.axis.time(slot)
        frames = load_frames(archive, run.coarseness_on(archive), window_slots(np.array([slot]), radar.layout))
        chances = forecast_grid(run, archive, time)
        title = f"{words} beside smoothed advection: {show_time(time)}, ≥ {found.thresholds[0]:g} mm/h"
        out.append(_image(figure_png(case_figure(chances, happened(frames, slot, radar), title)), title))
    return "".join(out)


def _image(picture: bytes, alt: str) -> str:
    return f"<img class='wide' src='{data_address(picture)}' alt='{_escape(alt)}'>"


def _escape(text: str) -> str:
    return html.escape(text, quote=True)
