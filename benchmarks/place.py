"""The task of one place: ours, the ancestor's own network, and the map's network read off there, on the same windows.

    python benchmarks/place.py --work FOLDER [--issues 1200] [--recipes place,ancestor,grid] [--out records/place.json]

About 10,000 windows of training time of a synthetic radar (`benchmarks/place.toml`, made and kept in FOLDER): seconds
and CPU seconds an epoch, memory at the peak, and Brier scores at the place on the same issue times. Each training is a
fresh process; what is in FOLDER already is not made again, so that a run that was cut off goes on. Of made rain: the
scores compare networks, and say nothing of real weather.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from machine import machine

from fastrain.core.memory import keep_all_memory
from fastrain.rain.new_run import TrainSettings
from fastrain.rain.train import train

PIXEL, COARSENESS = (240, 240), 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--issues", type=int, default=1200)
    parser.add_argument("--recipes", default="place,ancestor,grid")
    parser.add_argument("--child")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    if asked.child:
        child(asked.work, asked.child)
        return
    asked.work.mkdir(parents=True, exist_ok=True)
    archive = asked.work / "A"
    if not archive.exists():
        source = Path(__file__).with_suffix(".toml")
        command = [sys.executable, "-m", "fastrain", "ingest", source, "--archive", archive, "--workers", "1"]
        subprocess.run([*command, "--coarseness", "2,3,4"], check=True)
    rows: dict[str, Any] = {}
    scores: list[dict[str, Any]] = []
    for recipe in asked.recipes.split(","):
        told = asked.work / f"{recipe}.json"
        if not told.exists():
            command = [sys.executable, __file__, "--work", asked.work, "--child", recipe]
            subprocess.run(command, check=True)
        rows[recipe] = json.loads(told.read_text())
        judged = asked.work / f"{recipe}.scores.json"
        if not judged.exists():
            command = [sys.executable, "-m", "fastrain", "verify", asked.work / recipe, "--json"]
            command += ["--pixel", f"{PIXEL[0]},{PIXEL[1]}", "--issues", str(asked.issues)]
            judged.write_text(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        found = json.loads(judged.read_text())
        for row in found["scores"]:
            name = recipe if row["forecaster"] == "network" else row["forecaster"]
            if row["forecaster"] == "network" or recipe == "place":
                kept = ("period_min", "threshold_mm_h", "brier", "roc_area", "cells", "events", "mean_chance")
                scores.append({"forecaster": name, **{key: row[key] for key in kept}})
    show(rows, scores)
    if asked.out:
        record = {
            **machine(),
            "script": "benchmarks/place.py",
            "threads": torch.get_num_threads(),
            "seeds": 1,
            "recipes": rows,
            "scores": scores,
        }
        asked.out.write_text(json.dumps(record, indent=1) + "\n")


def child(work: Path, recipe: str) -> None:
    """Train one recipe and write what it took."""
    keep_all_memory()
    marks: list[tuple[int, int, float, float]] = []

    def progress(done: int, total: int, text: str) -> None:
        if "loss" in text:
            marks.append((done, total, time.monotonic(), time.process_time()))

    began, spent = time.monotonic(), time.process_time()
    settings = TrainSettings(recipe=recipe, place=PIXEL, coarseness=COARSENESS)
    lines: list[str] = []
    run = train(work / "A", work / recipe, settings, say=lines.append, progress=progress)
    (first, steps, wall, cpu), (last, _, wall_end, cpu_end) = marks[0], marks[-1]
    a_step = (wall_end - wall) / (last - first), (cpu_end - cpu) / (last - first)
    facts = run.facts
    row = {
        "weights": facts["network"]["weights"],
        "windows": facts["trained_on"],
        "steps": steps,
        "seconds_all": round(time.monotonic() - began, 1),
        "cpu_seconds_all": round(time.process_time() - spent, 1),
        "seconds_before_the_first_step": round(wall - began, 1),
        "peak_MiB": round(facts["peak_bytes"] / 2**20),
    }
    if recipe != "grid":
        from fastrain.rain.place.recipes import RECIPES

        epoch = facts["trained_on"] / RECIPES[recipe].batch
        row |= {"epochs": round(steps / epoch, 1)}
        row |= {"seconds_an_epoch": round(a_step[0] * epoch, 1), "cpu_seconds_an_epoch": round(a_step[1] * epoch, 1)}
    (work / f"{recipe}.json").write_text(json.dumps(row))


def show(rows: dict[str, Any], scores: list[dict[str, Any]]) -> None:
    """Print the tables."""
    for recipe, row in rows.items():
        print(f"{recipe:>10} " + ", ".join(f"{name} {value:,}" for name, value in row.items()))
    names = list(dict.fromkeys(row["forecaster"] for row in scores))
    print(f"\n{'Brier score at the place':>26} " + " ".join(f"{name:>11}" for name in names) + "   events of")
    for period in dict.fromkeys(tuple(row["period_min"]) for row in scores):
        for threshold in dict.fromkeys(row["threshold_mm_h"] for row in scores):
            here = {
                row["forecaster"]: row
                for row in scores
                if tuple(row["period_min"]) == period and row["threshold_mm_h"] == threshold
            }
            values = " ".join(f"{here[name]['brier']:>11.4f}" if name in here else " " * 11 for name in names)
            one = next(iter(here.values()))
            label = f"{period[0]}–{period[1]} min, ≥ {threshold:g} mm/h"
            print(f"{label:>26} {values}   {one['events']} of {one['cells']}")


if __name__ == "__main__":
    main()
