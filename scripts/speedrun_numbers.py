"""Write the measured numbers of docs/speedrun.md anew from records/: scripts/speedrun_numbers.py."""

from __future__ import annotations

from typing import Any

from marks import ROOT, between_marks, record

PAGE = ROOT / "docs" / "speedrun.md"


def main() -> None:
    """Put them there."""
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def filled(page: str) -> str:
    """Return the page with the numbers of the records."""
    found = {
        "cpu": _of_cpu("speedrun_cpu", "speedrun_cost", ""),
        "pairs": _of_cpu("speedrun_pairs", "speedrun_cost_pairs", ", beside tests"),
        "float32": _float32(record("speedrun_float32"), record("speedrun_cost_float32")),
    }
    return between_marks(page, found)


def _of_cpu(of_runs: str, of_cost: str, beside: str) -> str:
    """Return what `cpu` reached, and what it cost beside airbench94, as two records say.

    Args:
        of_runs, of_cost: their names.
        beside: what else the machine did during the runs.
    """
    runs, cost = record(of_runs), record(of_cost)
    reached, median, least = runs["accuracy_views"], cost["median"], cost["least"]
    each = ", ".join(f"{100 * seed['accuracy_views']:.2f}" for seed in runs["seeds"])
    spent, quiet = (of["cpu_seconds_of_a_run"] for of in (median, least))
    return "\n".join(
        [
            f"`cpu`: **{100 * reached['mean']:.2f} ± {100 * reached['spread']:.2f} %** with the views over "
            f"{reached['count']} seeds ({each}), {100 * runs['accuracy']['mean']:.2f} % with one view; "
            f"{runs['cpu_seconds']['mean']:.0f} CPU seconds each{beside}, judging with the views included, "
            f"{runs['cpu_seconds_of_process'] / reached['count']:.0f} with decoding, compiling and all else of the "
            f"process ({runs['device']}, one thread, {runs['precision']}; [record](../records/{of_runs}.json)).\n",
            f"All steps, taken in turns with `airbench94`'s as torch computes them, {cost['rounds']} rounds in one run "
            f"({cost['processor']}, {cost['precision']}): {spent['cpu, ours']:.0f} CPU seconds, `airbench94`'s "
            f"{spent['airbench94, torch']:.0f}: **{median['ratio']:.2f} of them**; at the machine's quietest "
            f"{quiet['cpu, ours']:.0f} and {quiet['airbench94, torch']:.0f}: {least['ratio']:.2f}. By torch alone "
            f"`cpu` would take {median['ratio_both_by_torch']:.2f} and {least['ratio_both_by_torch']:.2f} of them "
            f"([record](../records/{of_cost}.json)).",
        ]
    )


def _float32(run: dict[str, Any], cost: dict[str, Any]) -> str:
    """Return what `cpu` reached in float32, and what it cost beside airbench94."""
    median = cost["median"]
    spent, seed = median["cpu_seconds_of_a_run"], run["seeds"][0]
    return "\n".join(
        [
            f"`cpu`: {100 * seed['accuracy_views']:.2f} % with the views in {seed['cpu_seconds']:.0f} CPU seconds, one "
            f"seed, beside tests ({run['device']}, one thread, {run['precision']}; "
            "[record](../records/speedrun_float32.json)).\n",
            f"All steps, in turns with `airbench94`'s as torch computes them, {cost['rounds']} rounds in one run: "
            f"{spent['cpu, ours']:.0f} CPU seconds, `airbench94`'s {spent['airbench94, torch']:.0f}: "
            f"**{median['ratio']:.2f} of them**. By torch alone `cpu` would take {median['ratio_both_by_torch']:.2f}; "
            f"`airbench94` itself takes {spent['airbench94, ours'] / spent['airbench94, torch']:.2f} by ours "
            "([record](../records/speedrun_cost_float32.json)).",
        ]
    )


if __name__ == "__main__":
    main()
