"""Put the table of `records/plan.json` into docs/training.md, between its marks: python scripts/plan_table.py."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- plan.json -->\n", "<!-- end of plan.json -->\n"


def main() -> None:
    """Put it there."""
    record = json.loads((ROOT / "records" / "plan.json").read_text())
    page = ROOT / "docs" / "training.md"
    text = page.read_text()
    head, rest = text.split(BEGIN)
    page.write_text(head + BEGIN + table(record) + END + rest.split(END)[1])


def table(record: dict[str, Any]) -> str:
    """Return the table: planned and taken memory and processor time, and their ratio."""
    lines = [
        "| days | recipe | coarseness | memory, MB: planned | taken | ratio | processor, s: planned | taken | ratio |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in record["rows"]:
        memory, taken = (row[f"{what}_memory"] / 1e6 for what in ("planned", "taken"))
        lines.append(
            f"| {row['length_days']} | {row['recipe']} | {row['coarseness']} | {memory:.0f} | {taken:.0f} | "
            f"{row['memory_ratio']:.2f} | {row['planned_cpu_seconds']:.0f} | {row['taken_cpu_seconds']:.0f} | "
            f"{row['cpu_seconds_ratio']:.2f} |"
        )
    plans = record["plans"]
    share = max(one["share_of_largest"] for one in plans)
    seconds = median(one["seconds"] for one in plans)
    memory, processor = (record[f"median_{name}_ratio"] for name in ("memory", "cpu_seconds"))
    lines.append(
        f"\nMedian ratios: memory {memory:.2f}, processor {processor:.2f}. Planning all four coarsenesses of a recipe "
        f"took {seconds:.1f} s, and beyond the imports at most {share:.0%} of the memory of the largest row."
    )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
