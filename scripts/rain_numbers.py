"""Write the measured numbers of docs/rain.md anew from records/, between their markers: scripts/rain_numbers.py."""

from __future__ import annotations

import math
from statistics import fmean
from typing import Any

from marks import ROOT, between_marks, record

PAGE = ROOT / "docs" / "rain.md"
FEWEST = 0.02  # share of the cells that reach a threshold: what 20 futures say of less is mostly noise
NAMES = {
    "place": "`place`",
    "grid": "`grid`, read off at the place",
    "ancestor": "`ancestor`",
    "lagrangian": "smoothed advection",
    "climatology": "climatology",
}


def main() -> None:
    """Put them there."""
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def filled(page: str) -> str:
    """Return the page with the numbers of the records."""
    makers = {"place": _place, "forecast": _forecast, "best_possible": _best_possible}
    return between_marks(page, {name: made(record(name)) for name, made in makers.items()})


def _place(record: dict[str, Any]) -> str:
    """Return the table: of each forecaster its cost, and its Brier score for the lowest threshold by hour."""
    rows = [row for row in record["scores"] if row["threshold_mm_h"] == record["scores"][0]["threshold_mm_h"]]
    periods = list(dict.fromkeys(tuple(row["period_min"]) for row in rows))
    brier = {(row["forecaster"], tuple(row["period_min"])): row["brier"] for row in rows}
    head = " | ".join(f"{a}–{b} min" for a, b in periods)
    lines = [
        f"| | windows | s (CPU s) an epoch | CPU s of it all | memory | {head} |",
        "|---|---|---|---|---|" + "---|" * len(periods),
    ]
    for name, shown in NAMES.items():
        if (name, periods[0]) not in brier:
            continue
        cost = record["recipes"].get(name)
        spent = "| | |"
        if cost:
            epoch = f"{cost['seconds_an_epoch']} ({cost['cpu_seconds_an_epoch']})" if "epochs" in cost else ""
            spent = f"{cost['windows']:,} | {epoch} | {cost['cpu_seconds_all']:,.0f} | {cost['peak_MiB']:,} MiB"
        lines.append(f"| {shown} | {spent} | " + " | ".join(f"{brier[name, p]:.3f}" for p in periods) + " |")
    over = ", ".join(f"{ratio:.2f} ({mm_h:g} mm/h)" for mm_h, ratio in _over(record, "grid", "place").items())
    costs = {name: cost["cpu_seconds_all"] for name, cost in record["recipes"].items()}
    lines.append(
        f"\nBrier score of the map's network over that of `place`, mean over the hours: {over}, for "
        f"{costs['grid'] / costs['place']:.1f} times the processor time of the whole training."
    )
    return "\n".join(lines)


def _over(record: dict[str, Any], one: str, other: str) -> dict[float, float]:
    """Return for each threshold a forecaster's Brier score over another's, the geometric mean over the periods."""
    found: dict[float, dict[str, list[float]]] = {}
    for row in record["scores"]:
        of_threshold = found.setdefault(row["threshold_mm_h"], {})
        of_threshold.setdefault(row["forecaster"], []).append(math.log(row["brier"]))
    return {t: math.exp(fmean(of[one]) - fmean(of[other])) for t, of in found.items()}


def _forecast(record: dict[str, Any]) -> str:
    """Return what a forecast costs."""
    lines = [
        f"CPU seconds of {record['leads']} leads and three thresholds at coarseness 4, one thread, "
        f"in {record['precision']}:\n",
        "| pixels | all | inputs and motion | network | memory | pysteps' Lagrangian probability |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['pixels']} | {row['cpu_s']:.2f} | {row['cpu_s_inputs']:.2f} | {row['cpu_s_network']:.2f} "
        f"| {row['peak_MiB']} MiB | {row['cpu_s_pysteps']:.1f} |"
        for row in record["rows"]
    ]
    return "\n".join(lines)


def _best_possible(record: dict[str, Any]) -> str:
    """Return how near the network comes to the best there can be, for the thresholds that are reached often enough."""
    lines = [
        "| hours | mm/h | reached | climatology | smoothed advection | network | best possible | of the possible gain: "
        "smoothed advection | network |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in record["rows"]:
        (a, b), brier = row["period_min"], row["brier"]
        if row["events"] < FEWEST * row["cells"]:
            continue
        shown = " | ".join(f"{brier[name]:.4f}" for name in ("climatology", "lagrangian", "network", "best"))
        possible = brier["climatology"] - brier["best"]
        gains = " | ".join(
            f"{(brier['climatology'] - brier[name]) / possible:.0%}" for name in ("lagrangian", "network")
        )
        reached = row["events"] / row["cells"]
        lines.append(f"| {a // 60}–{b // 60} | {row['threshold_mm_h']:g} | {reached:.0%} | {shown} | {gains} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
