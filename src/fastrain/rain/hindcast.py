"""Forecasts of the past that use only what was known at issue: the network's and the baselines', on the same cells."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int8
from numpy import ndarray

from fastrain.core.errors import SettingError
from fastrain.rain.chances import Calibration
from fastrain.rain.inputs import Inputs, Moved, Radar, exceedance_chance, happened, make_inputs, rain_rates
from fastrain.samples.frames import Frames
from fastrain.samples.truth import observed_now

BASELINES = ("climatology", "persistence", "advection", "lagrangian")
SPREADS = (0.15, 0.3, 0.6, 1.2)  # km of smoothing a minute, of which the calibration time chooses the best


@dataclass(frozen=True)
class Reference:
    """What the baselines know from the time before the test.

    Attributes:
        climatology: (period, threshold) how often each event happened in the training time.
        spread: km of smoothing a minute of lead, of the Lagrangian probability.
    """

    climatology: Float[ndarray, "period threshold"]
    spread: float


@dataclass(frozen=True)
class Hindcast:
    """One issue time's forecasts and truth.

    Attributes:
        issue: slot.
        chances: name of the forecaster to (period, threshold, y, x).
        outcome: (period, y, x) thresholds reached, −1 without truth.
        judged: (period, y, x) where there is truth and every forecaster says something.
    """

    issue: int
    chances: dict[str, Float[ndarray, "period threshold y x"]]
    outcome: Int8[ndarray, "period y x"]
    judged: Bool[ndarray, "period y x"]

    def event(self) -> Bool[ndarray, "period threshold y x"]:
        """Return whether each threshold was reached."""
        count = next(iter(self.chances.values())).shape[1]
        return np.asarray(self.outcome[:, None] > np.arange(count)[None, :, None, None])


@dataclass(frozen=True)
class Network:
    """A network with its calibration, as a forecaster."""

    logits: Callable[[Inputs], ndarray]
    calibration: Calibration

    def chances(self, inputs: Inputs) -> Float[ndarray, "period threshold y x"]:
        """Return the calibrated chances of a window."""
        return self.calibration.chances(self.logits(inputs))


def hindcasts(
    frames: Frames,
    issues: ndarray,
    radar: Radar,
    reference: Reference,
    *,
    against: tuple[str, ...] = BASELINES,
    network: Network | None = None,
) -> Iterator[Hindcast]:
    """Yield the forecasts of some issue times, one window in memory at a time.

    Args:
        frames: that hold the windows.
        issues: slots.
        radar: of the archive.
        reference: what the baselines know.
        against: names of baselines.
        network: of the run to be judged, if any.

    Raises:
        SettingError: a baseline is unknown.
    """
    unknown = [name for name in against if name not in BASELINES]
    if unknown:
        raise SettingError(f"--against {unknown[0]}: no such baseline; known: {', '.join(BASELINES)}.")
    for issue in issues:
        inputs, moved = make_inputs(frames, int(issue), radar)
        outcome = happened(frames, int(issue), radar)
        seen = observed_now(frames, int(issue))
        chances = {}
        if network is not None:
            chances["network"] = network.chances(inputs)
        for name in against:
            chances[name] = baseline(name, frames, int(issue), moved, radar, reference)
        # All are judged on the same cells: where there is truth, the radar sees the cell, and advection reaches it.
        judged = (outcome >= 0) & seen[None] & moved.known.numpy()
        yield Hindcast(int(issue), chances, outcome, judged)


def baseline(
    name: str, frames: Frames, issue: int, moved: Moved, radar: Radar, reference: Reference
) -> Float[ndarray, "period threshold y x"]:
    """Return a baseline's chances for one window."""
    shape = (len(radar.layout.periods), len(radar.thresholds), *frames.maximum.shape[1:])
    if name == "climatology":
        return np.broadcast_to(reference.climatology[:, :, None, None], shape)
    if name == "persistence":
        highest, mean, _ = rain_rates(frames, frames.rows(np.array([issue])), radar)
        now = (mean if radar.truth == "mean" else highest)[0].numpy()
        reached = np.stack([now >= t * (1 - 1e-6) for t in radar.thresholds])
        return np.broadcast_to(reached[None].astype(float), shape)
    if name == "advection":
        carried = moved.highest.numpy()[:, None]
        return (carried >= np.array(radar.thresholds)[None, :, None, None] * (1 - 1e-6)).astype(float)
    return lagrangian(moved, radar, reference.spread)


def lagrangian(moved: Moved, radar: Radar, spread: float) -> Float[ndarray, "period threshold y x"]:
    """Return the Lagrangian probability: shares around each cell of the advected frame, wider with the lead."""
    out = []
    for p, (a, b) in enumerate(radar.layout.periods):
        radius = spread * (a + b + 1) / 2 * radar.minutes / radar.cell_km
        out.append(exceedance_chance(moved.highest[p], moved.known[p], radar.thresholds, radius).numpy())
    return np.stack(out)


def learn_reference(frames: Frames, train: ndarray, calibrate: ndarray, radar: Radar) -> Reference:
    """Return what the baselines learn: frequencies from the training time, smoothing from the calibration time."""
    reached = np.zeros((len(radar.layout.periods), len(radar.thresholds)))
    cells = np.zeros(len(radar.layout.periods))
    for issue in train:
        outcome = happened(frames, int(issue), radar)
        cells += (outcome >= 0).sum(axis=(1, 2))
        for k in range(len(radar.thresholds)):
            reached[:, k] += (outcome > k).sum(axis=(1, 2))
    climatology = reached / np.maximum(cells, 1)[:, None]
    squared = np.zeros(len(SPREADS))
    for issue in calibrate:
        _, moved = make_inputs(frames, int(issue), radar)
        outcome = happened(frames, int(issue), radar)
        judged = (outcome >= 0) & moved.known.numpy()
        event = outcome[:, None] > np.arange(len(radar.thresholds))[None, :, None, None]
        for i, spread in enumerate(SPREADS):
            error = (lagrangian(moved, radar, spread) - event) ** 2
            squared[i] += (error * judged[:, None]).sum()
    return Reference(climatology, SPREADS[int(squared.argmin())])
