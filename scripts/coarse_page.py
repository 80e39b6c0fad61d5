"""Make `docs/coarse-graining.md` and its pictures from `records/coarse.json`: python scripts/coarse_page.py."""

from __future__ import annotations

from statistics import fmean
from typing import Any

from marks import ROOT, record

from fastrain.engine.ablation import Gain, gain
from fastrain.rain.ablate import price_figure
from fastrain.rain.pictures import figure_png

PAGE = ROOT / "docs" / "coarse-graining.md"
IMAGES = ROOT / "docs" / "images"
NAMES = {
    "knmi": "KNMI, 2010-08-26",
    "fmi": "FMI, 2016-09-28",
    "mch_2015": "MeteoSwiss, 2015-05-15",
    "mch_2016": "MeteoSwiss, 2016-07-11",
}

HEAD = """# The price of coarse-graining

The first work kept a radar picture as the maximum and the mean of its blocks, and asked what that costs. Here it is
measured: networks that see pixels of 1 km, or blocks of 2, 3 and 4 by their maximum, their mean or both, with
squeeze-and-excite layers and without. All forecast the same thing, the highest rain rate in cells of {cell} pixels, and
are judged on the same cells of the same windows: of all of an event's time, by networks that learned from two of the
others and were calibrated on the third. Made by `benchmarks/coarse.py` and this page by `scripts/coarse_page.py`; the
[record](../records/coarse.json) has every score. On your own radar, its time split as a training splits it, or learning
from other archives where it is too short for that:

```
fastrain ablate archive --to ablation
fastrain ablate archive --to ablation --learn-from radar1,radar2,radar3
```

*Skill* is the mean, over periods and thresholds ({thresholds} mm/h), of by how much the Brier score is lower than that
of the frequency of rain. *Lost* is by how much the summed Brier score is higher than that of the pixels without
squeeze-and-excite, with the interval in which it lies in 90 of 100 resamples of the time, where time is long enough.
*CPU* is the processor time of a step of training over that of the pixels without squeeze-and-excite, medians of steps
taken in turns, and *s an epoch* what follows from it for once through all windows; *memory* is the peak of the process,
inputs of all windows included; *a frame*, the bytes of one as the network sees it. {seeds}; an event is one spell of
weather: differences of a percent or two within one are noise.
"""


def main() -> None:
    """Write them."""
    found = record("coarse")
    for name, event in found["events"].items():
        (IMAGES / f"coarse_{name}.png").write_bytes(figure_png(price_figure(event)))
    (IMAGES / "coarse_mean.png").write_bytes(figure_png(price_figure({"rows": mean_rows(found["events"])})))
    PAGE.write_text(page_of(found), encoding="utf-8")


def page_of(record: dict[str, Any]) -> str:
    """Return the page that a record makes."""
    events: dict[str, Any] = record["events"]
    first = next(iter(events.values()))
    thresholds = ", ".join(f"{t:g}" for t in first["thresholds_mm_h"])
    seeds = "One seed" if record["seeds"] == 1 else f"Means of {record['seeds']} seeds"
    head = HEAD.format(cell=first["scale"]["cell"], thresholds=thresholds, seeds=seeds)
    parts = [head, "\n## In the mean\n\n", mean_words(events), "\n\n", mean_table(events)]
    for name, found in events.items():
        windows = found["windows"]
        periods = ", ".join(f"{a}–{b}" for a, b in found["periods_min"])
        parts.append(
            f"\n## {NAMES[name]}\n\n![Skill over processor time, a point for each cut](images/coarse_{name}.png)\n\n"
            f"{windows['train']} windows to train on, {windows['calibrate']} to calibrate, {windows['test']} to judge; "
            f"{periods} minutes ahead. Data: {found['credit']}.\n\n{in_words(found)}\n\n{table(found)}"
        )
    return "".join(parts)


def in_words(found: dict[str, Any]) -> str:
    """Return what the coarsest cut costs, as a sentence."""
    rows = {(row["coarseness"], row["sees"], row["excite"]): row for row in found["rows"]}
    most = max(c for c, _, _ in rows)
    lost = {sees: f"{rows[most, sees, False]['lost']:+.1%}" for sees in ("maximum", "mean", "both")}
    both, pixels = rows[most, "both", False], rows[1, "both", False]
    share = both["bytes_a_frame"] / pixels["bytes_a_frame"]
    return (
        f"Blocks of {most}×{most} without squeeze-and-excite change the summed Brier score by {lost['both']} (maximum "
        f"and mean),\n{lost['maximum']} (maximum alone) and {lost['mean']} (mean alone), at {both['cpu_ratio']:.2f} of "
        f"the time and {share:.2f} of the bytes of a frame."
    )


def table(found: dict[str, Any]) -> str:
    """Return an event's table."""
    lines = ["| sees | skill | lost | CPU | s an epoch | memory | a frame |", "|---|---|---|---|---|---|---|"]
    for row in found["rows"]:
        between = row["lost_90"]
        lost = f"{row['lost']:+.1%}" + (f" ({between[0]:+.1%} to {between[1]:+.1%})" if between else "")
        lines.append(
            f"| {row['name']} | {row['skill']:.3f} | {lost} | {row['cpu_ratio']:.2f} | {row['seconds_an_epoch']:.1f} | "
            f"{row['peak_bytes'] / 2**20:,.0f} MiB | {row['bytes_a_frame'] / 1000:,.0f} kB |"
        )
    return "\n".join(lines) + "\n"


def mean_rows(events: dict[str, Any]) -> list[dict[str, Any]]:
    """Return for each variant its means over the events, and the interval of what it loses."""
    rows = []
    for of_events in zip(*(found["rows"] for found in events.values()), strict=True):
        means = {key: fmean(row[key] for row in of_events) for key in ("skill", "cpu_ratio")}
        lost = gain([row["lost"] for row in of_events], [0.0] * len(of_events))
        rows.append({**of_events[0], **means, "lost": lost})
    return rows


def mean_words(events: dict[str, Any]) -> str:
    """Return what the table and the picture are of, and what they say of the coarsest blocks."""
    rows = {(row["coarseness"], row["sees"], row["excite"]): row for row in mean_rows(events)}
    most = max(c for c, _, _ in rows)
    by = {sees: rows[most, sees, False] for sees in ("maximum", "both", "mean")}
    return (
        "![Skill over processor time, a point for each cut](images/coarse_mean.png)\n\n"
        f"Blocks of {most}×{most} without squeeze-and-excite: {_lost(by['maximum'])} of Brier score by their maxima "
        f"alone, {_lost(by['both'])} by both,\n{_lost(by['mean'])} by their means alone, at "
        f"{by['both']['cpu_ratio']:.2f} of the time. Means over {len(events)} events; ± is half an\ninterval of 95 % "
        "by how much events differ, in bold where it leaves out zero."
    )


def _lost(row: dict[str, Any]) -> str:
    lost: Gain = row["lost"]
    said = f"{lost.mean:+.1%}" + (f" ± {lost.half:.1%}" if lost.half else "")
    return f"**{said}**" if lost.clear else said


def mean_table(events: dict[str, Any]) -> str:
    """Return the table of means over the events."""
    lines = ["| sees | skill | lost | CPU |", "|---|---|---|---|"]
    for row in mean_rows(events):
        lines.append(f"| {row['name']} | {row['skill']:.3f} | {_lost(row)} | {row['cpu_ratio']:.2f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
