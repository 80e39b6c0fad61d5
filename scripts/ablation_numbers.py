"""Write the table of docs/how-it-got-fast.md anew from records/ablation.json: scripts/ablation_numbers.py."""

from __future__ import annotations

from typing import Any

from marks import ROOT, between_marks, record

from fastrain.vision.ablate import Ablation, Gain, Worth, table_of

PAGE = ROOT / "docs" / "how-it-got-fast.md"


def main() -> None:
    """Put it there."""
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def filled(page: str) -> str:
    """Return the page with the table of the record."""
    return between_marks(page, {"ablation": table_of(_ablation(record("ablation"))).rstrip("\n")})


def _ablation(found: dict[str, Any]) -> Ablation:
    """Return what a record holds."""
    worths = tuple(
        Worth(**{**worth, "accuracy": Gain(**worth["accuracy"]), "beyond": Gain(**worth["beyond"])})
        for worth in found["worths"]
    )
    return Ablation(found["base"], found["seconds"], worths, found["facts"])


if __name__ == "__main__":
    main()
