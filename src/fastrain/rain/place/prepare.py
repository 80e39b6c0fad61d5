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
from fastrain.rain.place.views import View, ages
from fastrain.rain.place.windows import GUESSES, at_cells, carried, guesses_at, outcomes_at, seen_at_issue
from fastrain.rain.radar import Radar
from fastrain.samples.frames import Frames, frames_within, load_frames, stretch_of, window_slots
from fastrain.samples.rows import Rows
from fastrain.samples.truth import thin, wet_share

FOLDER, DONE = "prepared", "done.json"
FRAMES_AT_ONCE = 32  # whose rain rates are in memory as numbers
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
        guess = (places, periods, len(radar.thresholds), GUESSES)
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

    def bytes_at_most(self, wanted: Wanted) -> int:
        """Return what all windows will take on the disk, were none of them dry."""
        slots = sum(len(window_slots(issues, self.radar.layout, ahead=False)) for issues in wanted.issues.values())
        windows = sum(len(issues) for issues in wanted.issues.values())
        return slots * self.frames.row_bytes + windows * self.windows[BLOCKS[0]].row_bytes

    def fill(self, archive: Archive, coarseness: int, wanted: Wanted, memory: int, progress: Progress) -> None:
        """Make all windows ready that are not yet.

        Args:
            archive: to read.
            coarseness: of its blocks.
            wanted: windows.
            memory: bytes that the frames of a stretch may take.
            progress: called with issue times done, in all, and what is done.
        """
        most = frames_within(archive, coarseness, memory)
        done = self._done()
        total = sum(len(issues) for issues in wanted.issues.values())
        for name in BLOCKS:
            issues = wanted.issues[name]
            while done[name] < len(issues):
                count = stretch_of(issues[done[name] :], self.radar.layout, most)
                self._add(archive, coarseness, wanted, name, np.arange(done[name], done[name] + count))
                done[name] += count
                for rows in self._files.values():
                    rows.flush()
                counts = {what: len(rows) for what, rows in self._files.items()}
                write_whole(self.folder / DONE, json.dumps({"issues": done, "rows": counts}))
                progress(sum(done.values()), total, "windows made ready")

    def _done(self) -> dict[str, int]:
        """Return how many issue times of each block are ready, and forget what came after them."""
        try:
            said = json.loads((self.folder / DONE).read_text(encoding="utf-8"))
            done = {name: int(said["issues"][name]) for name in BLOCKS}
            for what, rows in self._files.items():
                rows.cut(said["rows"][what])
            return done
        except (OSError, ValueError, LookupError, TypeError):
            for rows in self._files.values():
                rows.cut(0)
            return dict.fromkeys(BLOCKS, 0)

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
        taught = (outcome[:, 0] >= 0).any(axis=1)  # at the place itself
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
            for some in np.array_split(shown, -(-len(shown) // FRAMES_AT_ONCE)):
                self.frames.add(self.view.records(frames, some))
                self.slots.add(some)
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
