"""Put the table of `records/place.json` into docs/rain.md, between its marks: python scripts/place_table.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- place.json -->\n", "<!-- end of place.json -->\n"
NAMES = {"place": "`place`", "ancestor": "`ancestor`", "lagrangian": "smoothed advection", "climatology": "climatology"}


def main() -> None:
    """Put it there."""
    record = json.loads((ROOT / "records" / "place.json").read_text())
    page = ROOT / "docs" / "rain.md"
    text = page.read_text()
    head, rest = text.split(BEGIN)
    page.write_text(head + BEGIN + table(record) + END + rest.split(END)[1])


def table(record: dict[str, Any]) -> str:
    """Return the table: of each forecaster its cost, and its Brier score for the lowest threshold by hour."""
    rows = [row for row in record["scores"] if row["threshold_mm_h"] == record["scores"][0]["threshold_mm_h"]]
    periods = list(dict.fromkeys(tuple(row["period_min"]) for row in rows))
    brier = {(row["forecaster"], tuple(row["period_min"])): row["brier"] for row in rows}
    head = " | ".join(f"{a}–{b} min" for a, b in periods)
    lines = [f"| | windows | s an epoch | memory | {head} |", "|---|---|---|---|" + "---|" * len(periods)]
    for name, shown in NAMES.items():
        cost = record["recipes"].get(name)
        spent = f"{cost['windows']:,} | {cost['seconds_an_epoch']} | {cost['peak_MiB']:,} MiB" if cost else "| |"
        lines.append(f"| {shown} | {spent} | " + " | ".join(f"{brier[name, p]:.3f}" for p in periods) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
