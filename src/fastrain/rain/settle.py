"""What the calibration time settles: how much of what was learned to keep, honest chances, and which counts as yes."""

from __future__ import annotations

from numpy import ndarray

from fastrain.nets.rain_net import RainNet
from fastrain.rain.batches import shuffled
from fastrain.rain.chances import Calibration, isotonic, pooled_temperature
from fastrain.rain.hindcast import Network, Reference, hindcasts
from fastrain.rain.inputs import InputCache, Radar, happened
from fastrain.rain.run import predict_parts
from fastrain.samples.frames import Frames
from fastrain.samples.split import Split, evenly
from fastrain.verification.tally import Decider

SHARES_KEPT = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the learned correction, of which the calibration time chooses one
MOST_WINDOWS = 100  # looked at, spread over the calibration time; more would only take memory
DECIDED_ON = 200  # windows that settle which chance counts as yes; more would only take time


def calibrate(
    network: RainNet, cache: InputCache, split: Split, radar: Radar, *, control: int | None = None
) -> tuple[float, Calibration]:
    """Return how much of what was learned to keep, and the calibration that goes with it, from the calibration time.

    A network trained on a single night is right about some things and sure about too many: the calibration time says
    how much of its correction to smoothed advection holds.
    """
    chosen = evenly(split.issues["calibrate"], MOST_WINDOWS)
    truth = [happened(cache.frames, int(i), radar) for i in chosen]
    if control is not None:
        truth = shuffled(truth, control + 1)
    parts = [predict_parts(network, cache[int(i)]) for i in chosen]
    return settle(parts, truth, long=split.is_long("calibrate", radar.cadence))


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


def decide(
    network: RainNet, calibration: Calibration, frames: Frames, split: Split, radar: Radar, reference: Reference
) -> dict[str, ndarray]:
    """Return for each forecaster the chance from which on it should count as yes, (period, threshold)."""
    shape = (len(radar.layout.periods), len(radar.thresholds))
    judge = Network(lambda inputs: predict_parts(network, inputs), calibration)
    deciders: dict[str, Decider] = {}
    for cast in hindcasts(frames, evenly(split.issues["calibrate"], DECIDED_ON), radar, reference, network=judge):
        for name, chance in cast.chances.items():
            deciders.setdefault(name, Decider(shape)).add(chance, cast.event(), cast.judged)
    return {name: decider.best() for name, decider in deciders.items()}
