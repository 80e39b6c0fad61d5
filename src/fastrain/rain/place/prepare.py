"""Windows made ready for training, on disk: memory does not grow with the years of an archive.

One pass over the archive, stretch by stretch: what a recipe sees of each frame, and of each window its first guesses,
motion and truth at the place and at the cells beside it. A pass that was killed goes on after its last stretch.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from fastrain.archive.store import Archive
from fastrain.core.files import write_whole
from fastrain.rain.inputs import GUESS_SPREAD, Radar
from fastrain.rain.place.views import View, ages
from fastrain.rain.place.windows import at_cells, carried, guesses_at, outcomes_at, seen_at_issue
from fastrain.samples.frames import Frames, frames_bytes, load_frames, window_slots
from fastrain.samples.rows import Rows
from fastrain.samples.truth import thin, wet_share

FOLDER = "prepared"
STRETCH = 144  # issue times of a stretch, at most
BLOCKS = ("train", "calibrate")

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Wanted:
    """Which windows of the archive are made ready.

    Attributes:
        issues: block of the split to its issue slots.
        draws: of each window of the training time, 0 to 1: whether it is kept though dry.
        keep_dry: share of the dry windows that are kept.
        dry_below: wet share of the history under which a window is dry.
    """

    issues: dict[str, Int[ndarray, issues]]
    draws: Float[ndarray, issues]
    keep_dry: float
    dry_below: float

    def of(self, frames: Frames, issues: Int[ndarray, issues], draws: ndarray, radar: Radar) -> tuple[ndarray, ndarray]:
        """Return which windows of the training time are kept, and what each then weighs: see `samples.truth.thin`."""
        wet = np.array([wet_share(frames, int(issue), radar.layout, radar.table) for issue in issues])
        return thin(wet, draws, keep=self.keep_dry, dry_below=self.dry_below)


class Prepared:
    """Windows on disk.

    Args:
        folder: of the files.
        view: what is kept of a frame.
        radar: of the frames.
    """

    def __init__(self, folder: Path, view: View, radar: Radar) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.view, self.radar = folder, view, radar
        places, periods = len(view.nearby), len(radar.layout.periods)
        guess = (places, periods, len(radar.thresholds), len(GUESS_SPREAD))
        self.frames = Rows(folder / "frames.rows", np.dtype(np.uint8), (view.record_bytes,))
        self.slots = Rows(folder / "slots.rows", np.dtype(np.int64))
        window = np.dtype(
            [("guess", np.float16, guess), ("outcome", np.int8, (places, periods)), ("motion", np.float32, (2,))]
        )
        kept = np.dtype([("issue", np.int64), ("weight", np.float32)])
        self.windows = {name: Rows(folder / f"{name}.rows", window) for name in BLOCKS}
        self.kept = {name: Rows(folder / f"{name}.kept", kept) for name in BLOCKS}

    @property
    def _files(self) -> dict[str, Rows]:
        return {
            "frames": self.frames,
            "slots": self.slots,
            **{f"{name} windows": rows for name, rows in self.windows.items()},
            **{f"{name} kept": rows for name, rows in self.kept.items()},
        }

    def fill(self, archive: Archive, coarseness: int, wanted: Wanted, progress: Progress) -> None:
        """Make all windows ready that are not yet."""
        size = frames_bytes(archive, coarseness, 1)
        length = int(np.clip(2**28 // size - self.radar.layout.length, 8, STRETCH))
        stretches = [
            (name, part)
            for name in BLOCKS
            for part in np.array_split(
                np.arange(len(wanted.issues[name])), max(1, -(-len(wanted.issues[name]) // length))
            )
            if len(part)
        ]
        done = self._done()
        for number, (name, part) in enumerate(stretches):
            if number >= done:
                self._add(archive, coarseness, wanted, name, part)
                for rows in self._files.values():
                    rows.flush()
                counts = {what: len(rows) for what, rows in self._files.items()}
                write_whole(self.folder / "done.json", json.dumps({"stretches": number + 1, "rows": counts}))
            progress(number + 1, len(stretches), "windows made ready")

    def _done(self) -> int:
        """Return how many stretches are whole, and forget what came after them."""
        try:
            said = json.loads((self.folder / "done.json").read_text(encoding="utf-8"))
            for what, rows in self._files.items():
                rows.cut(said["rows"][what])
            return int(said["stretches"])
        except (OSError, ValueError, LookupError, TypeError):
            for rows in self._files.values():
                rows.cut(0)
            return 0

    def _add(self, archive: Archive, coarseness: int, wanted: Wanted, name: str, part: ndarray) -> None:
        issues, radar = wanted.issues[name][part], self.radar
        frames = load_frames(archive, coarseness, window_slots(issues, radar.layout), memory=2**62)
        if name == "train":
            chosen, weights = wanted.of(frames, issues, wanted.draws[part], radar)
        else:
            chosen, weights = np.ones(len(issues), bool), np.ones(len(issues))
        issues, weights = issues[chosen], weights[chosen]
        there = at_cells(frames, self.view.nearby)
        outcome = outcomes_at(there, issues, radar)
        if len(issues):
            outcome[~seen_at_issue(there, issues)] = -1  # where no chance is given none is learned
        taught = (outcome >= 0).any(axis=(1, 2))
        issues, weights, outcome = issues[taught], weights[taught], outcome[taught]
        if len(issues) == 0:
            return
        rows = np.empty(len(issues), self.windows[name].dtype)
        rows["outcome"] = outcome
        cell = (int(self.view.nearby[0, 0]), int(self.view.nearby[0, 1]))
        for i, (lead, motion) in enumerate(carried(frames, issues, radar, cell)):
            rows["guess"][i] = guesses_at(lead, radar, self.view.nearby)
            rows["motion"][i] = motion
        shown = np.unique(issues[:, None] - ages(radar))
        held = self.slots.read(np.arange(max(0, len(self.slots) - 2 * radar.layout.history), len(self.slots)))
        shown = shown[~np.isin(shown, held)]
        if len(shown):
            self.frames.add(self.view.records(frames, shown))
            self.slots.add(shown)
        self.windows[name].add(rows)
        kept = np.empty(len(issues), self.kept[name].dtype)
        kept["issue"], kept["weight"] = issues, weights
        self.kept[name].add(kept)

    def close(self) -> None:
        """Close the files."""
        for rows in self._files.values():
            rows.close()

    def __enter__(self) -> Prepared:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
