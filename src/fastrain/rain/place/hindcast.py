"""Forecasts of the past at one place: the network's and the baselines', judged on its cell alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int8
from numpy import ndarray
from torch import Tensor

from fastrain.rain.chances import Calibration
from fastrain.rain.hindcast import Hindcast, Reference, reached_now
from fastrain.rain.peers import PEERS, peer
from fastrain.rain.place.views import View, ages
from fastrain.rain.place.windows import Lead, at_cells, carried, guesses_at, known_of, outcomes_at, seen_at_issue
from fastrain.rain.radar import Radar
from fastrain.samples.frames import Frames

Parts = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[ndarray, ndarray]]


@dataclass(frozen=True)
class Case:
    """What is known of one issue time at a place, and what came.

    Attributes:
        issue: slot.
        lead: what of the last frame passes.
        x: the network's inputs, one window.
        guess: (period, threshold, guess) first guesses, as logits.
        motion: (dy, dx) of the air over the place.
        outcome: (period) thresholds reached, −1 without truth.
        judged: (period) where there is truth, the radar sees the cell, and what passes is known.
        now: (threshold) whether each is reached at issue.
        seen: whether the radar sees the cell at issue.
    """

    issue: int
    lead: Lead
    x: Tensor
    guess: Float[ndarray, "period threshold guess"]
    motion: Float[ndarray, 2]
    outcome: Int8[ndarray, period]
    judged: Bool[ndarray, period]
    now: Bool[ndarray, threshold]
    seen: bool


def cases(
    frames: Frames, issues: Int[ndarray, issues], view: View, radar: Radar, *, ahead: bool = True
) -> Iterator[Case]:
    """Yield what is known at some issue times.

    Args:
        frames: that hold the windows, or their histories alone.
        issues: slots.
        view: what the network sees.
        radar: of the frames.
        ahead: whether the frames hold what came; if not, outcomes are all −1.
    """
    cell = view.nearby[:1]
    row, column = (int(v) for v in cell[0])
    there = at_cells(frames, cell)
    shown = ages(radar)
    for issue, (lead, motion) in zip(issues, carried(frames, issues, radar, (row, column)), strict=True):
        one = np.array([issue])
        outcome = np.full(len(radar.layout.periods), -1, np.int8)
        if ahead:
            outcome = outcomes_at(there, one, radar)[0, 0]
        seen = bool(seen_at_issue(there, one)[0, 0])
        known = np.array([swept.known[row, column] for swept in lead.swept])
        record = view.records(frames, np.sort(issue - shown))[::-1]  # the newest first
        yield Case(
            int(issue),
            lead,
            view.inputs(record[None], np.zeros(1, int), 0),
            guesses_at(lead, radar, cell)[0],
            motion,
            outcome,
            (outcome >= 0) & known & seen,
            reached_now(there, int(issue), radar)[:, 0, 0],
            seen,
        )


def place_hindcasts(
    frames: Frames,
    issues: Int[ndarray, issues],
    view: View,
    radar: Radar,
    reference: Reference,
    *,
    against: tuple[str, ...],
    parts: Parts,
    calibration: Calibration,
) -> Iterator[Hindcast]:
    """Yield the forecasts of some issue times, as of maps of the one cell; the arguments are those of `hindcasts`."""
    for case in cases(frames, issues, view, radar):
        cast = cast_of(case, view, radar, reference, calibration.chances(logits_of(parts, case, radar)), against)
        row, column = view.nearby[0]
        for name in against:
            if name in PEERS:
                found = peer(name, frames, case.issue, radar)[:, :, row : row + 1, column : column + 1]
                cast.chances[name], cast.known[name] = found, np.isfinite(found).all(axis=1)
        yield cast


def cast_of(
    case: Case,
    view: View,
    radar: Radar,
    reference: Reference,
    chance: Float[ndarray, "period threshold 1 1"],
    against: tuple[str, ...],
) -> Hindcast:
    """Return a case as a hindcast of the network and of our own baselines."""
    chances = {"network": chance}
    for name in against:
        if name not in PEERS:
            chances[name] = place_baseline(name, case, view, radar, reference)[:, :, None, None]
    shape = (-1, 1, 1)
    return Hindcast(
        case.issue, chances, case.outcome.reshape(shape), case.judged.reshape(shape), case.now.reshape(shape)
    )


def place_baseline(
    name: str, case: Case, view: View, radar: Radar, reference: Reference
) -> Float[ndarray, "period threshold"]:
    """Return a baseline's chances at the place."""
    row, column = (int(v) for v in view.nearby[0])
    steps = np.arange(len(radar.thresholds))
    if name == "climatology":
        return reference.climatology
    if name == "persistence":
        return np.broadcast_to(case.now.astype(float), reference.climatology.shape)
    if name == "advection":
        return np.array([(swept.reached[row, column] > steps).astype(float) for swept in case.lead.swept])
    if name == "calibrated":
        return reference.calibrated(torch.from_numpy(case.guess)[..., None, None], known_of(radar))[..., 0, 0]
    return case.lead.chances(reference.spread, radar, (row,), (column,))[:, :, 0, 0]


def logits_of(parts: Parts, case: Case, radar: Radar) -> Float[ndarray, "period threshold 1 1"]:
    """Return a network's logits for a case."""
    straight, learned = parts(
        case.x, torch.from_numpy(case.guess[None]), known_of(radar), torch.from_numpy(case.motion[None])
    )
    return np.asarray((straight + learned)[0, :, :, None, None])
