"""What training a map's network takes, from short measurements."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import ceil

import numpy as np
import torch

from fastrain.engine.threads import cores
from fastrain.rain.batches import BATCH, BLOCK, CROP, LINE_CELLS, LINE_WINDOWS, STEM_WINDOWS, crop_of, steps_of, turn
from fastrain.rain.budget import Allowed, grid_needs
from fastrain.rain.chances import Calibration
from fastrain.rain.costs import Ground, Line, on_gpu, spent_on, state_bytes
from fastrain.rain.hindcast import TRIED, Network, Reference, hindcasts
from fastrain.rain.inputs import channels_of, make_inputs, move
from fastrain.rain.new_run import share_varied
from fastrain.rain.plan_row import Row
from fastrain.rain.radar import happened
from fastrain.rain.run import GRID, make_network, predict_parts
from fastrain.rain.settle import MOST_WINDOWS, settled_cells
from fastrain.rain.smoothing import GUESSES
from fastrain.rain.start import start_of
from fastrain.rain.straight import CELLS, StraightLine
from fastrain.rain.survey import FEWEST_EVENTS
from fastrain.rain.survey import MOST_WINDOWS as SURVEYED
from fastrain.rain.train import trial_of
from fastrain.samples.frames import load_frames, window_slots

PIECES = ("truth", "make", "move", "predict", "judge")
PART = 4  # of a batch, one of which is timed: so planning takes a fraction of the memory that it speaks of
TIMES = 3  # that a step is timed, of which the middle counts
LEAN = 2.0  # times as long takes a step whose maps are computed again (LOG.md)
CHECKPOINTS = 3  # on the disk at once: the last, the one before, and one that is being written


class GridPlanner:
    """Plans trainings of a map's network on an archive."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        count, width = len(ground.thresholds), ground.settings.width
        start, _ = start_of(ground.archive, ground.split, ground.settings.start, thresholds=count, width=width)
        self.keeps_all = start is not None
        step = trial_of(count, width, BATCH // PART, ground.device)
        step()
        self.step = spent_on(step, TIMES) * PART
        self.gpu = on_gpu(ground.device)
        self.assembling = spent_on(_assembling(count), TIMES)
        self.pieces = {name: Line() for name in PIECES}
        warm, *measured = ground.two
        self._measure(warm, ("make", "predict"))
        for c in measured:
            self._measure(c)

    def _measure(self, coarseness: int, names: tuple[str, ...] = PIECES) -> None:
        """Time what is done to one window; a later time at the same coarseness takes an earlier one's place."""
        ground = self.ground
        radar, issue = ground.radar(coarseness), int(ground.split.issues["calibrate"][0])
        shape = len(radar.layout.periods), len(radar.thresholds)
        network = make_network(shape[1], ground.settings.width).eval()
        frames = load_frames(ground.archive, coarseness, window_slots(np.array([issue]), ground.layout), memory=2**62)
        inputs, _ = make_inputs(frames, issue, radar)
        judge = Network(partial(predict_parts, network), Calibration())
        reference = Reference(np.full(shape, 0.1), 0.3, StraightLine.of(network.straight, shape[1]))
        work: dict[str, Callable[[], object]] = {
            "truth": partial(happened, frames, issue, radar),
            "make": partial(make_inputs, frames, issue, radar),
            "move": partial(move, frames, issue, radar),
            "predict": partial(predict_parts, network, inputs),
            "judge": lambda: list(hindcasts(frames, np.array([issue]), radar, reference, network=judge)),
        }
        for name in names:
            self.pieces[name].add(ground.cells(coarseness), spent_on(work[name]))

    def row(self, coarseness: int) -> Row:
        """Return what training at a coarseness takes."""
        ground, width = self.ground, self.ground.settings.width
        cells, shape, periods = ground.cells(coarseness), ground.shape(coarseness), len(ground.layout.periods)
        read = ground.reading.at(cells)
        piece = {name: line.at(cells) for name, line in self.pieces.items()}
        surveyed = min(len(ground.split.issues["train"]), SURVEYED)
        windows = max(1, round(surveyed * ground.kept_share))
        count = self._learned(coarseness, surveyed)
        box = self._box(coarseness)
        crop, maps = crop_of(box), windows * periods
        steps = steps_of(maps, box, ground.settings.cells)
        passes = steps * BATCH / maps

        issues = len(ground.split.issues["calibrate"])
        needs = grid_needs(
            ground.archive, coarseness, ground.radar(coarseness, count), width, calibrated=issues, base=ground.base
        )
        allowed = Allowed.within(needs, ground.memory) or Allowed(True, 0, 0)
        every = windows * needs.window
        kept = min(every, allowed.kept) if passes > 1 else 0
        varied = share_varied(ground.settings, ground.split, ground.archive.schema.axis.cadence)
        made = min(windows, passes * windows + BLOCK)
        if passes > 1:
            made = windows * _made(passes, kept / every, varied)

        a_window = read * ground.layout.length + piece["truth"] + piece["make"]
        # What is looked at first comes again, as far as it is kept; what is varied never is.
        line = (min(windows, LINE_WINDOWS) + min(windows, STEM_WINDOWS)) * (varied if kept == every else 1)
        calibrated, tried = min(issues, MOST_WINDOWS), min(issues, TRIED)
        before = (
            read * ground.slots_of(surveyed, "train")
            + piece["truth"] * (1.5 * surveyed)
            + a_window * line
            + self.step * 4
            + ground.straight_line(min(min(windows, LINE_WINDOWS) * periods * CELLS, LINE_CELLS))
        )
        after = (
            (a_window + piece["predict"]) * calibrated
            + (read * ground.layout.length + piece["truth"] + piece["move"] * 2) * tried
            + (read * ground.layout.length + piece["judge"]) * calibrated
            + ground.settling(settled_cells(cells, issues))
        )
        learning, making = (self.step + self.assembling) * (steps * crop[0] * crop[1] / CROP**2), a_window * made
        if allowed.lean:
            learning = learning * LEAN
        both = learning.wall + making.wall
        if allowed.makers:  # windows are made while the network learns, as far as there are cores for both
            both = max(learning.wall, making.wall, (learning.cpu + making.cpu) / cores())
        network = make_network(count, width)
        disk = CHECKPOINTS * state_bytes(network)
        return Row(
            recipe=GRID,
            coarseness=coarseness,
            cell_km=ground.archive.schema.grid.coarsened(coarseness).cell_km,
            cells=shape,
            values=channels_of(count) * crop[0] * crop[1],
            weights=sum(p.numel() for p in network.parameters()),
            windows=windows,
            memory=needs.peak(lean=allowed.lean, makers=allowed.makers, kept=kept),
            least_memory=needs.least,
            disk=disk,
            steps=steps,
            epochs=passes,
            seconds_per_epoch=both / passes,
            seconds=ground.began.wall + before.wall + both + after.wall,
            cpu_seconds=ground.began.cpu + (before + learning + making + after).cpu,
            gpu_memory=None if self.gpu is None else PART * self.gpu,
            fits=needs.least <= ground.memory and disk <= ground.free_disk,
        )

    def _learned(self, coarseness: int, surveyed: int) -> int:
        """Return how many thresholds the training time is expected to reach often enough."""
        ground, seen = self.ground, self.ground.seen
        if self.keeps_all:
            return len(ground.thresholds)
        scale = surveyed / len(seen.issues) * ground.cells(coarseness) / ground.cells(ground.coarsenesses[-1])
        return max(1, int((seen.reached.sum(axis=0) * scale >= FEWEST_EVENTS).sum()))

    def _box(self, coarseness: int) -> tuple[int, int]:
        """Return rows and columns of what has truth."""
        ground, coarsest = self.ground, self.ground.coarsenesses[-1]
        rows, columns = (
            min(size, ceil((part.stop - part.start) * coarsest / coarseness))
            for part, size in zip(ground.seen.box, ground.shape(coarseness), strict=True)
        )
        return rows, columns


def _made(passes: float, kept: float, varied: float) -> float:
    """Return how often a window is made, on average, in some passes over all.

    Args:
        passes: how many.
        kept: share of the windows that memory keeps, once they have been made as they were.
        varied: share that is not shown as it was, and made anew each time.
    """
    made, left = 0.0, passes
    for before in range(ceil(passes)):
        there = kept * (1 - varied**before)  # was shown as it was, before
        made += min(1.0, left) * (1 - (1 - varied) * there)
        left -= 1
    return made


def _assembling(thresholds: int) -> Callable[[], object]:
    """Return what puts the crops of a batch together, and turns them."""
    x = [torch.zeros(channels_of(thresholds), CROP, CROP, dtype=torch.float16) for _ in range(BATCH)]
    guess = [torch.zeros(thresholds, GUESSES, CROP, CROP, dtype=torch.float16) for _ in range(BATCH)]
    return lambda: turn(5, torch.stack([one.clone() for one in x]).float(), torch.stack(guess).float())
