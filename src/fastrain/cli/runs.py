"""The verb `runs`: what has been trained here, what is being trained, and what was left unfinished."""

from __future__ import annotations

import json as coding
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from fastrain.cli.show import Json, clean, duration, print_json, print_table, size
from fastrain.core.errors import UsageError
from fastrain.core.files import is_occupied

FACTS = "run.json"
UNFINISHED = {"plan.json": "rain", "training.json": "images"}  # what a run holds until it is finished, by task
JOURNALS = ("log.jsonl", "curve.jsonl")
DEEPEST = 3  # folders below the one asked for


@dataclass(frozen=True)
class Listed:
    """One run.

    Attributes:
        path: of its folder.
        task: rain or images.
        recipe: of its network.
        state: finished, training (now, by some process), stopped (the same `train` goes on with it) or damaged.
        step, steps: how far it is; None where that is not known.
        loss: smoothed, the last one noted.
        created: when it was finished, UTC.
        seconds: that its training took.
        peak_bytes: of memory.
        weights: of its network.
        figures: of a finished run, what it is judged by: accuracy, or issue times that it was trained on.
    """

    path: str
    task: str
    recipe: str | None
    state: str
    step: int | None = None
    steps: int | None = None
    loss: float | None = None
    created: str | None = None
    seconds: float | None = None
    peak_bytes: int | None = None
    weights: int | None = None
    figures: dict[str, Any] | None = None


def runs(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to look, three folders deep.")] = Path(),
    json: Json = False,
) -> None:
    """List the runs in a folder: finished, training now, or left unfinished."""
    if not folder.is_dir():
        raise UsageError(f"{folder}: is no folder.")
    found = [listed for path in _folders(folder, DEEPEST) for listed in [look(path)] if listed is not None]
    if json:
        print_json({"runs": found})
    elif not found:
        typer.echo(f"No run in {folder}; make one with `fastrain train ARCHIVE --run RUN`.")
    else:
        _show(found, folder)


def look(path: Path) -> Listed | None:
    """Return what a folder holds, if it is a run's."""
    if (path / FACTS).exists():
        return _finished(path)
    name = next((name for name in UNFINISHED if (path / name).exists()), None)
    if name is None:
        return None
    plan = _read(path / name)
    recipe = plan.get("recipe")
    step, steps, loss = _last(path)
    return Listed(
        str(path),
        UNFINISHED[name],
        recipe.get("name") if isinstance(recipe, dict) else recipe,
        "training" if is_occupied(path) else "stopped",
        step,
        steps,
        loss,
    )


def _finished(path: Path) -> Listed | None:
    facts = _read(path / FACTS)
    if "fastrain_run" in facts:
        network = facts.get("network", {})
        return Listed(
            str(path),
            "rain",
            facts.get("recipe", "grid"),
            "finished",
            created=facts.get("created"),
            seconds=facts.get("seconds"),
            peak_bytes=facts.get("peak_bytes"),
            weights=network.get("weights"),
            steps=network.get("steps"),
            step=network.get("steps"),
            figures={"trained_on": facts.get("trained_on"), "share_kept": network.get("share_kept")},
        )
    if "fastrain_image_run" in facts:
        recipe = facts.get("recipe")
        return Listed(
            str(path),
            "images",
            recipe.get("name") if isinstance(recipe, dict) else recipe,
            "finished",
            created=facts.get("created"),
            seconds=facts.get("seconds"),
            peak_bytes=facts.get("peak_bytes"),
            weights=facts.get("weights"),
            figures={"accuracy": facts.get("judged", {}).get("accuracy")},
        )
    return Listed(str(path), "", None, "damaged") if not facts else None  # or another program's run.json


def _last(path: Path) -> tuple[int | None, int | None, float | None]:
    """Return step, steps and loss of the last line that a training noted."""
    for name in JOURNALS:
        try:
            lines = (path / name).read_text(encoding="utf-8").splitlines()
            last = next(line for line in map(_parsed, reversed(lines)) if line)
        except (OSError, ValueError, StopIteration):
            continue
        return last.get("step"), last.get("steps"), last.get("loss")
    return None, None, None


def _parsed(text: str) -> dict[str, Any]:
    try:
        value = coding.loads(text)
    except ValueError:
        return {}  # cut off by a kill
    return value if isinstance(value, dict) else {}


def _read(path: Path) -> dict[str, Any]:
    try:
        return _parsed(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _folders(folder: Path, deep: int) -> list[Path]:
    """Return a folder and those below it that can be read, down to some depth, in order; no hidden ones, no links."""
    out = [folder]
    if deep:
        try:
            below = sorted(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())
        except OSError:
            return out
        for path in below:
            if not path.name.startswith("."):
                out += _folders(path, deep - 1)
    return out


def _show(found: list[Listed], folder: Path) -> None:
    from rich.box import SIMPLE
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=SIMPLE)
    for name in ("run", "recipe", "state", "time", "memory", "weights", ""):
        table.add_column(name, justify="right" if name in ("time", "memory", "weights") else "left")
    for run in found:
        state = run.state
        if state in ("training", "stopped") and run.step is not None and run.steps:
            state += f" at {run.step / run.steps:.0%}"
        elif run.created:
            state += f" {run.created[:16]}Z"
        figures = run.figures or {}
        last = ""
        if figures.get("accuracy") is not None:
            last = f"{figures['accuracy']:.2%} right"
        elif figures.get("trained_on") is not None:
            last = f"{figures['trained_on']:,} windows"
        elif run.loss is not None:
            last = f"loss {run.loss:.4f}"
        table.add_row(
            escape(clean(str(Path(run.path).relative_to(folder)))),
            escape(clean(str(run.recipe or run.task))),
            state,
            "" if run.seconds is None else duration(run.seconds),
            "" if run.peak_bytes is None else size(run.peak_bytes),
            "" if run.weights is None else f"{run.weights:,}",
            last,
        )
    print_table(table)
