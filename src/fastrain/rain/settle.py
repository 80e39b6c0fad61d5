"""What the calibration time settles: how much of what was learned to keep, honest chances, and which counts as yes."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from fastrain.archive.store import Archive
from fastrain.nets.rain_net import RainNet
from fastrain.rain.chances import Calibration, isotonic, pooled_temperature
from fastrain.rain.hindcast import Network, Reference, hindcasts
from fastrain.rain.radar import Radar
from fastrain.rain.run import predict_parts
from fastrain.rain.straight import StraightLine
from fastrain.rain.windows import Windows
from fastrain.samples.frames import stretches
from fastrain.samples.split import evenly
from fastrain.verification.tally import Decider

SHARES_KEPT = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the learned correction, of which the calibration time chooses one
MOST_WINDOWS = 100  # looked at, spread over the calibration time; more would only take time
MOST_CELLS, FEWEST_CELLS = 400_000, 2048  # of all those windows' maps together, and of each


def calibrate(
    network: RainNet, windows: Windows, issues: Int[ndarray, issues], line: StraightLine, *, long: bool
) -> tuple[float, Calibration, Calibration]:
    """Return how much of what was learned to keep, and the calibration of that and of a straight line alone.

    A network trained on a single night is right about some things and sure about too many: the calibration time says
    how much of its correction to the first guesses holds.

    Args:
        network: fitted.
        windows: gives them.
        issues: slots of the calibration time.
        line: a baseline, calibrated as the network is.
        long: whether the issues span a day or more.
    """
    chosen = np.unique(evenly(issues, MOST_WINDOWS))
    cells = cells_of_each(len(chosen))
    parts, lines, truth = [], [], []
    for issue in chosen:
        window = windows[int(issue)]
        straight, learned = predict_parts(network, window.inputs)
        alone = line.logits(window.inputs.guess, window.inputs.known)
        # Of a large map some cells, drawn anew of each: all of all of them would only take memory.
        at = np.random.default_rng([int(issue), 11]).permutation(window.truth[0].size)[:cells]
        every = (straight, learned, alone, window.truth)
        found = [field.reshape(*field.shape[:-2], 1, -1)[..., at] for field in every]
        parts.append((found[0], found[1]))
        lines.append(found[2])
        truth.append(found[3])
    return (*settle(parts, truth, long=long), calibration_of(lines, truth, long=long))


def cells_of_each(windows: int) -> int:
    """Return how many cells of each of some windows' maps are looked at, at most."""
    return max(FEWEST_CELLS, MOST_CELLS // max(1, windows))


def settled_cells(cells: int, issues: int) -> int:
    """Return how many cells of maps of some size are looked at where there are so many issue times, all together."""
    windows = min(issues, MOST_WINDOWS)
    return windows * min(cells, cells_of_each(windows))


def settle(parts: list[tuple[ndarray, ndarray]], truth: list[ndarray], *, long: bool) -> tuple[float, Calibration]:
    """Return how much of what was learned to keep, and the calibration that goes with it.

    Args:
        parts: of each window, the straight line and what was learned, (period, threshold, y, x) logits.
        truth: (period, y, x) thresholds reached, −1 without truth.
        long: whether the windows span a day or more, which isotonic regression needs.
    """
    best: tuple[float, float, float] = (float("inf"), -1.0, 1.0)
    for share in SHARES_KEPT:
        logits = [straight + share * learned for straight, learned in parts]
        temperature, loss = pooled_temperature(logits, truth)
        best = min(best, (loss, -share, temperature))  # all of it where that is as good
    _, negative, temperature = best
    share = -negative
    if long:
        return share, isotonic([straight + share * learned for straight, learned in parts], truth)
    return share, Calibration(temperature)


def calibration_of(logits: list[ndarray], truth: list[ndarray], *, long: bool) -> Calibration:
    """Return what makes honest chances of the logits of some windows; the arguments are those of `settle`."""
    return isotonic(logits, truth) if long else Calibration(pooled_temperature(logits, truth)[0])


def decide(
    network: RainNet,
    calibration: Calibration,
    archive: Archive,
    coarseness: int,
    issues: Int[ndarray, issues],
    radar: Radar,
    reference: Reference,
    memory: int,
) -> dict[str, ndarray]:
    """Return for each forecaster the chance from which on it should count as yes, (period, threshold).

    Args:
        network: fitted.
        calibration: of its chances.
        archive: to read.
        coarseness: of the cells.
        issues: slots of the calibration time, rising.
        radar: of the archive.
        reference: what the baselines know.
        memory: bytes that frames may take.
    """
    shape = (len(radar.layout.periods), len(radar.thresholds))
    judge = Network(lambda inputs: predict_parts(network, inputs), calibration)
    deciders: dict[str, Decider] = {}
    chosen = np.unique(evenly(issues, MOST_WINDOWS))
    for part, frames in stretches(archive, coarseness, chosen, radar.layout, memory):
        for cast in hindcasts(frames, part, radar, reference, network=judge):
            for name, chance in cast.chances.items():
                deciders.setdefault(name, Decider(shape)).add(chance, cast.event(), cast.judged)
    return {name: decider.best() for name, decider in deciders.items()}
