"""Write docs/what-to-expect.md and its picture from records/skill.json: what to expect of `base`, lead by lead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from marks import ROOT, record
from matplotlib import pyplot as plt

PAGE = ROOT / "docs" / "what-to-expect.md"
PICTURE = "docs/images/skill.png"
COLOURS = {
    "knmi": "#b3263f",
    "fmi": "#2f7dc1",
    "mch": "#4c9a4a",
    "bom": "#c98a1b",
    "opera": "#7b52ab",
    "mrms": "#1c4f82",
    "openmrg": "#8a8a86",
}
BASELINES = (
    "lagrangian",
    "pysteps",
    "steps",
    "steps_corrected",
    "sprog",
    "straight",
    "advection",
    "persistence",
    "climatology",
)
NAMES = {
    "lagrangian": "smoothed advection",
    "pysteps": "pysteps, Lagrangian",
    "steps": "STEPS",
    "steps_corrected": "STEPS, endless members",
    "sprog": "S-PROG",
    "straight": "calibrated advection",
    "advection": "advection",
    "persistence": "persistence",
    "climatology": "climatology",
}
KINDS = {"mean": "the cell's mean, at the moment", "maximum": "somewhere in the cell, within the half hour before"}


def main() -> None:
    """Write them."""
    draw(record("skill"))
    PAGE.write_text(page_of(record("skill")), encoding="utf-8")


def page_of(record: dict[str, Any]) -> str:
    """Return the page that a record makes."""
    lines: dict[int, list[str]] = {4: [], 2: []}
    for row in (row for row in record["summary"] if row["forecaster"] == "adapted"):
        scores = " | ".join(_share(1 - row[f"over_{b}"]) if f"over_{b}" in row else "–" for b in BASELINES)
        low, mean, high = row["area"]
        lines[row["cell_km"]].append(
            f"| {KINDS[row['truth']]} | {row['minutes']} | {row['threshold_mm_h']:g} | {len(row['radars'])} "
            f"| {scores} | "
            f"{_share(1 - row['worst_over_best'])} | {mean:g} ({low:g} to {high:g}) | {row['calibration_error']:.3f} |"
        )
    head = f"| threshold reached by | minutes | mm/h | radars | {' | '.join(NAMES[b] for b in BASELINES)} "
    head += "| worst | area | calibration error |"
    settings = record["settings"]
    spent = [fold["cpu_seconds_training"] for fold in record["folds"].values()]
    return f"""# What to expect

How good are chances on a radar that a network never saw? Each radar of the seven at hand was left out once: a network
was trained on the other six and on synthetic radar ({settings["cells"] / 1e6:g} million cells, {min(spent):.0f} to
{max(spent):.0f} CPU seconds), and forecast the one left out as the run `base` does, learning from what came due before
each issue and held near the area of rain on its way. Nothing else was tuned on it; only how strongly the last hours
correct and the area holds was chosen, each of a few strengths, with all seven in view. `base`
itself was trained on the three whose licence allows it; how good that one is, on the others, stands on
[its card](../src/fastrain/rain/base/README.md).
Seven spells of weather are few: the table says what may be expected, it is no law.

![Brier score over that of smoothed advection, by radar]({Path(PICTURE).relative_to("docs")})

By how much its Brier score is lower than that of each other, a mean over the radars
([record](../records/skill.json), made by `benchmarks/skill.py`, this page by `scripts/expect_page.py`). `worst` is
the single event that compares least well with the best of the others, STEPS aside. Area is the mean chance over the
frequency of the event (1 is right), with the least and most of a radar. Where an event was reached in fewer than 500
cells there is no row; "–": not to be had.

Cells of about 4 km:

{head}
|{"---|" * (len(BASELINES) + 7)}
{chr(10).join(lines[4])}

Cells of about 2 km, of the radars whose pixels are finer; STEPS was not asked:

{head}
|{"---|" * (len(BASELINES) + 7)}
{chr(10).join(lines[2])}

- **Smoothed advection** (Lagrangian probability; how much smoothing, the other radars decide) is the one to beat; what
  pysteps calls so uses its own motion, sought in the same frames, and 1 km a minute.
- **STEPS** has 20 members and three issue times an event, on the same cells of about 4 km; "endless members" takes the
  penalty p(1 − p)/(n − 1) of a finite ensemble off. It and S-PROG, whose one field says yes or no, want three frames,
  which OPERA's half an hour does not hold. Climatology is of the other radars.
- At 5 mm/h a radar's cell is seldom reached: the scores rest on few cells of few storms.
"""


def _share(value: float) -> str:
    return f"{round(100 * value) + 0:+d} %"


def draw(record: dict[str, Any]) -> None:
    """Draw the Brier score over that of smoothed advection, a panel a threshold and kind, a line a radar."""
    thresholds = record["settings"]["thresholds_mm_h"]
    figure, axes = plt.subplots(2, len(thresholds), figsize=(10, 6), layout="constrained", sharex=True, sharey=True)
    for i, kind in enumerate(KINDS):
        for k, threshold in enumerate(thresholds):
            axis = axes[i][k]
            axis.axhline(1.0, color="#999", linewidth=1)
            for group, fold in record["folds"].items():
                found: dict[int, list[float]] = {}
                for row in fold["rows"]:
                    enough = min(row["events"], row["cells"] - row["events"]) >= 500
                    if (row["truth"], row["threshold_mm_h"], row["cell_km"]) == (kind, threshold, 4) and enough:
                        ratio = row["adapted"]["brier"] / row["lagrangian"]["brier"]
                        found.setdefault(row["minutes"], []).append(ratio)
                minutes = sorted(found)
                axis.plot(
                    minutes, [sum(found[m]) / len(found[m]) for m in minutes], "o-", color=COLOURS[group], label=group
                )
            axis.set_title(f"≥ {threshold:g} mm/h, {'mean, at the moment' if kind == 'mean' else 'maximum, half hour'}")
            axis.set_xticks([30, 60, 90])
    for axis in axes[1]:
        axis.set_xlabel("minutes ahead")
    for row in axes:
        row[0].set_ylabel("Brier score over\\nsmoothed advection's".replace("\\n", chr(10)))
    handles, labels = axes[1][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.savefig(ROOT / PICTURE, dpi=90)
    plt.close(figure)


if __name__ == "__main__":
    main()
