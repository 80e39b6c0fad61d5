"""Forecasts of the past that use only what was known at issue: the network's and the baselines', on the same cells."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Int8
from numpy import ndarray
from torch import Tensor

from fastrain.archive.store import Archive
from fastrain.core.errors import SettingError
from fastrain.rain.adapt import Adapter
from fastrain.rain.area import Carried, shifts
from fastrain.rain.between import asked_of
from fastrain.rain.chances import Calibration
from fastrain.rain.inputs import Inputs, Moved, make_inputs, move, passing, within_reach
from fastrain.rain.peers import PEERS, peer
from fastrain.rain.radar import Radar, happened, rain_rates
from fastrain.rain.run import Run
from fastrain.rain.smoothing import exceedance_chance
from fastrain.rain.straight import StraightLine
from fastrain.samples.frames import Frames, load_frames, stretches
from fastrain.samples.layout import middle
from fastrain.samples.split import evenly
from fastrain.samples.truth import OBSERVED_SHARE

BASELINES = ("climatology", "persistence", "advection", "lagrangian", "calibrated")
TRIED = 100  # windows, at most, that smoothed advection learns its smoothing from
SPREADS = (0.15, 0.3, 0.6, 1.2)  # km of smoothing a minute, of which the calibration time chooses the best


@dataclass(frozen=True)
class Reference:
    """What the baselines know from the time before the test.

    Attributes:
        climatology: (period, threshold) how often each event happened in the training time.
        spread: km of smoothing a minute of lead, of the Lagrangian probability.
        line: through the first guesses, fitted on the training time.
        calibration: of its chances, from the calibration time.
    """

    climatology: Float[ndarray, "period threshold"]
    spread: float
    line: StraightLine | None = None
    calibration: Calibration = field(default_factory=Calibration)

    def calibrated(
        self, guess: Float[Tensor, "period threshold guess *cells"], known: Float[Tensor, "period condition"]
    ) -> Float[ndarray, "period threshold *cells"]:
        """Return the chances of smoothed advection, calibrated: those of the straight line alone.

        Raises:
            ValueError: no line was fitted.
        """
        if self.line is None:
            raise ValueError("no straight line was fitted, so that nothing is known of calibrated advection")
        return self.calibration.chances(self.line.logits(guess, known))

    def as_attributes(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "climatology": self.climatology.tolist(),
            "spread": self.spread,
            "line": None if self.line is None else self.line.slopes.tolist(),
            "calibration": self.calibration.as_attributes(),
        }

    @classmethod
    def from_attributes(cls, kept: dict[str, Any]) -> Reference:
        """Return the one that `as_attributes` wrote."""
        line = None if kept["line"] is None else StraightLine(np.array(kept["line"]))
        calibration = Calibration.from_attributes(kept["calibration"])
        return cls(np.array(kept["climatology"]), kept["spread"], line, calibration)


@dataclass(frozen=True)
class Hindcast:
    """One issue time's forecasts and truth.

    Attributes:
        issue: slot.
        chances: name of the forecaster to (period, threshold, y, x).
        outcome: (period, y, x) thresholds reached, −1 without truth.
        judged: (period, y, x) where there is truth, the radar sees the cell and advection reaches it.
        now: (threshold, y, x) where each threshold is reached at issue.
        known: of pysteps' forecasters, of which of those cells they say something.
    """

    issue: int
    chances: dict[str, Float[ndarray, "period threshold y x"]]
    outcome: Int8[ndarray, "period y x"]
    judged: Bool[ndarray, "period y x"]
    now: Bool[ndarray, "threshold y x"]
    known: dict[str, Bool[ndarray, "period y x"]] = field(default_factory=dict)

    def judged_of(self, name: str) -> Bool[ndarray, "period y x"]:
        """Return the cells that a forecaster is judged on."""
        return self.judged & self.known[name] if name in self.known else self.judged

    def at(self, cell: tuple[int, int]) -> Hindcast:
        """Return it of one cell alone."""
        row, column = (slice(c, c + 1) for c in cell)
        chances = {name: chance[..., row, column] for name, chance in self.chances.items()}
        outcome, judged, now = (part[..., row, column] for part in (self.outcome, self.judged, self.now))
        known = {name: part[..., row, column] for name, part in self.known.items()}
        return Hindcast(self.issue, chances, outcome, judged, now, known)

    def event(self) -> Bool[ndarray, "period threshold y x"]:
        """Return whether each threshold was reached."""
        count = next(iter(self.chances.values())).shape[1]
        return np.asarray(self.outcome[:, None] > np.arange(count)[None, :, None, None])


@dataclass(frozen=True)
class Network:
    """A network with its calibration, as a forecaster.

    Attributes:
        parts: gives both summands of a window's logits: the straight line, and what was learned.
        calibration: of its chances.
        adapter: of a network that never saw the radar: what forecasts that came due say of it.
    """

    parts: Callable[[Inputs], tuple[ndarray, ndarray]]
    calibration: Calibration
    adapter: Adapter | None = None

    @classmethod
    def of(cls, run: Run, radar: Radar) -> Network:
        """Return a run's network, for a radar; that of no one radar learns from the radar's last hours."""
        adapter = (
            Adapter(radar.layout.periods, radar.minutes, len(radar.thresholds), radar.cell_km) if run.is_base else None
        )
        return cls(run.parts, run.calibration, adapter)

    def summands(
        self, frames: Frames, issue: int, inputs: Inputs, moved: Moved, radar: Radar
    ) -> tuple[ndarray, ndarray]:
        """Return both summands of a window's logits; of a radar that it never saw, tempered and with areas held."""
        parts = self.parts(inputs)
        return parts if self.adapter is None else self.held(parts, Carried.of(frames, issue, moved, radar), radar)

    def held(self, parts: tuple[ndarray, ndarray], carried: Carried, radar: Radar) -> tuple[ndarray, ndarray]:
        """Return what the network says of a radar that it never saw tempered and with areas held."""
        straight, learned = (part / self.calibration.temperature for part in parts)
        return straight + shifts(straight + learned, carried, radar)[:, :, None, None], learned

    def chances(self, parts: tuple[ndarray, ndarray], now: int) -> Float[ndarray, "period threshold y x"]:
        """Return the chances of a window that is issued at a slot, from its two summands."""
        straight, learned = parts
        if self.adapter is None:
            return self.calibration.chances(straight + learned)
        return Calibration().chances(self.adapter.logits(straight, learned, self.adapter.weights(now)))

    def remember(self, issue: int, parts: tuple[ndarray, ndarray], outcome: Int8[ndarray, "period y x"]) -> None:
        """Keep a forecast with what came, for later ones to learn from once it is due; see `Adapter.add`."""
        if self.adapter is not None:
            self.adapter.add(issue, *parts, outcome)


def hindcasts(
    frames: Frames,
    issues: ndarray,
    radar: Radar,
    reference: Reference,
    *,
    against: tuple[str, ...] = BASELINES,
    network: Network | None = None,
    scored: Container[int] | None = None,
) -> Iterator[Hindcast]:
    """Yield the forecasts of some issue times, one window in memory at a time.

    Args:
        frames: that hold the windows.
        issues: slots.
        radar: of the archive.
        reference: what the baselines know.
        against: names of baselines.
        network: of the run to be judged, if any.
        scored: slots whose forecasts are yielded, all if None; from the others a network that never saw the radar
            learns, as a forecast does from the last hours.

    Raises:
        SettingError: a baseline is unknown.
    """
    known_names(against)
    for issue in issues:
        inputs, moved = make_inputs(frames, int(issue), radar, every=False)
        outcome = happened(frames, int(issue), radar)
        due = judged_outcome(frames, int(issue), outcome, moved)
        if network is not None:
            parts = network.summands(frames, int(issue), inputs, moved, radar)
        if scored is None or int(issue) in scored:
            chances, known = {}, {}
            if network is not None:
                chances["network"] = network.chances(parts, int(issue))
            for name in against:
                if name in PEERS:
                    chances[name] = peer(name, frames, int(issue), radar)
                    known[name] = np.isfinite(chances[name]).all(axis=1)
                else:
                    chances[name] = baseline(name, frames, int(issue), inputs, moved, radar, reference)
            yield Hindcast(int(issue), chances, outcome, due >= 0, reached_now(frames, int(issue), radar), known)
        if network is not None:
            # By what the radar shows alone: what is learned must not hang on whom it is compared with.
            network.remember(int(issue), parts, due)


def known_names(against: tuple[str, ...]) -> None:
    """See that all baselines are known.

    Raises:
        SettingError: one is not.
    """
    unknown = [name for name in against if name not in (*BASELINES, *PEERS)]
    if unknown:
        raise SettingError(f"--against {unknown[0]}: no such baseline; known: {', '.join((*BASELINES, *PEERS))}.")


def learn_from_past(network: Network, archive: Archive, coarseness: int, radar: Radar, now: int) -> None:
    """Let a network's adapter learn from forecasts of an archive's last hours, as far as they are over by a slot."""
    adapter = network.adapter
    if adapter is None or archive.span is None:
        return
    layout = radar.layout
    asked = asked_of(layout.periods, radar.minutes)
    first = max(archive.span[0], now - adapter.reach - layout.history)
    held = archive.observed(first, now + 1)
    for issue in range(max(first + layout.history - 1, now - adapter.reach), now):
        if issue % adapter.every or not held[issue + 1 - layout.history - first : issue + 1 - first].all():
            continue
        count = 0  # of the first periods, those that are over and held well enough
        for a, b in layout.periods:
            if issue + b > now or held[issue + a + 1 - first : issue + b + 1 - first].mean() < OBSERVED_SHARE:
                break
            count += 1
        if not count:
            continue
        # As far as the next period that the network is asked about: those before it hang on it.
        until = 1 + asked[bisect_left(asked, count - 1)]
        short, longer = (replace(radar, layout=replace(layout, periods=layout.periods[:n])) for n in (count, until))
        frames = load_frames(archive, coarseness, np.arange(issue - layout.history + 1, issue + short.layout.ahead + 1))
        inputs, moved = make_inputs(frames, issue, longer, every=False)
        outcome = happened(frames, issue, short)
        straight, learned = network.summands(frames, issue, inputs, moved, longer)
        moved = replace(moved, highest=moved.highest[:count], known=moved.known[:count])
        due = judged_outcome(frames, issue, outcome, moved)
        network.remember(issue, (straight[:count], learned[:count]), due)


def judged_outcome(frames: Frames, issue: int, outcome: ndarray, moved: Moved) -> Int8[ndarray, "period y x"]:
    """Return the outcomes where there is truth, the radar sees the cell at issue and advection reaches it, else −1."""
    return np.where(within_reach(frames, issue, moved), outcome, -1).astype(np.int8)


def baseline(
    name: str, frames: Frames, issue: int, inputs: Inputs, moved: Moved, radar: Radar, reference: Reference
) -> Float[ndarray, "period threshold y x"]:
    """Return a baseline's chances for one window."""
    shape = (len(radar.layout.periods), len(radar.thresholds), *frames.maximum.shape[1:])
    if name == "climatology":
        return np.broadcast_to(reference.climatology[:, :, None, None], shape)
    if name == "persistence":
        return np.broadcast_to(reached_now(frames, issue, radar)[None].astype(float), shape)
    if name == "advection":
        return passing(moved, radar).astype(float)
    if name == "calibrated":
        return reference.calibrated(inputs.guess, inputs.known)
    return lagrangian(moved, radar, reference.spread)


def reached_now(frames: Frames, issue: int, radar: Radar) -> Bool[ndarray, "threshold y x"]:
    """Return where each threshold is reached at a slot, by the rate of which the chances speak."""
    highest, mean, _ = rain_rates(frames, frames.rows(np.array([issue])), radar)
    now = radar.spoken(highest, mean)[0].numpy()
    return np.stack([now >= t * (1 - 1e-6) for t in radar.thresholds])


def lagrangian(moved: Moved, radar: Radar, spread: float) -> Float[ndarray, "period threshold y x"]:
    """Return the Lagrangian probability: shares around each cell of the advected frame, wider with the lead."""
    out = []
    for p, period in enumerate(radar.layout.periods):
        radius = spread * middle(period) * radar.minutes / radar.cell_km
        out.append(exceedance_chance(moved.highest[p], moved.known[p], radar.thresholds, radius).numpy())
    return np.stack(out)


def learn_spread(archive: Archive, coarseness: int, issues: Int[ndarray, issues], radar: Radar, memory: int) -> float:
    """Return the smoothing, km a minute of lead, that gives advection the best Brier score.

    Args:
        archive: to read.
        coarseness: of the cells.
        issues: slots of the calibration time, rising.
        radar: of the archive.
        memory: bytes that frames may take.
    """
    squared = np.zeros(len(SPREADS))
    for part, frames in stretches(archive, coarseness, np.unique(evenly(issues, TRIED)), radar.layout, memory):
        for issue in part:
            moved = move(frames, int(issue), radar)
            outcome = happened(frames, int(issue), radar)
            judged = (outcome >= 0) & moved.known.numpy()
            event = outcome[:, None] > np.arange(len(radar.thresholds))[None, :, None, None]
            for i, spread in enumerate(SPREADS):
                error = (lagrangian(moved, radar, spread) - event) ** 2
                squared[i] += (error * judged[:, None]).sum()
    return SPREADS[int(squared.argmin())]
