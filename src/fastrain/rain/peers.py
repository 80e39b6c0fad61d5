"""What pysteps forecasts of a window, as chances: its Lagrangian probability, STEPS and S-PROG, where it is installed.

All start from the same cells, history and truth as the network. Motion is pysteps' Lucas-Kanade. What pysteps does not
know is NaN; there it is not judged.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray

from fastrain.core.errors import SettingError, TooBig
from fastrain.core.memory import available_bytes
from fastrain.rain.baselines import apart_of
from fastrain.rain.radar import Radar, rain_rates
from fastrain.rain.smoothing import exceedance_chance
from fastrain.samples.frames import Frames
from fastrain.samples.layout import middle

PEERS = ("pysteps", "steps", "sprog")
MEMBERS = 20
SPREAD = 1.0  # km of smoothing a minute: what Germann and Zawadzki (2004) found, and pysteps' default
FRAMES = 3  # successive ones, that STEPS and S-PROG want
NO_RAIN, LEAST = -15.0, -10.0  # dB of rain rate: of dry cells, and of 0.1 mm/h
LEVELS, FEWEST_LEVELS = 6, 3  # of the cascade, fewer on a small map
COPIES = 4  # of all members' fields that STEPS holds at once, about


def peer(name: str, frames: Frames, issue: int, radar: Radar) -> Float[ndarray, "period threshold y x"]:
    """Return a peer's chances for one window, NaN where it knows nothing.

    Args:
        name: one of PEERS. `pysteps`: the last frame advected, the share of a neighbourhood of 1 km a minute that
            reaches the threshold. `steps`: the share of 20 members that does. `sprog`: whether S-PROG's field does.
        frames: that hold the window's history.
        issue: slot.
        radar: of the archive.

    A window that pysteps cannot do (a lone echo that stands still, a frame without any) is NaN throughout.

    Raises:
        SettingError: pysteps is not installed, or the history is too short for it.
        TooBig: its members do not fit into memory.
    """
    ahead = radar.layout.ahead
    if name != "pysteps" and radar.layout.history < FRAMES:
        raise SettingError(
            f"--against {name}: needs {FRAMES} frames of history; this run's is {radar.layout.history} frames "
            f"of {radar.minutes:g} min."
        )
    need = COPIES * MEMBERS * ahead * frames.maximum[0].size * 8
    if name == "steps" and need > available_bytes():
        raise TooBig(
            f"--against steps: {MEMBERS} members, {ahead} frames ahead, need about {need / 1e9:.0f} GB of memory."
        )
    try:
        rate, motion = history_and_motion(frames, issue, radar)
        if name == "pysteps":
            return _in_neighbourhood(extrapolated(rate[-1], motion, ahead), radar)
        members = _steps(rate, motion, ahead, radar) if name == "steps" else _sprog(rate, motion, ahead)[None]
    except SettingError:
        raise
    except Exception:  # noqa: BLE001  # whatever pysteps throws at a window that it cannot do; `verify` counts them
        return np.full((len(radar.layout.periods), len(radar.thresholds), *frames.maximum.shape[1:]), np.nan)
    return shares(members, radar)


def history_and_motion(frames: Frames, issue: int, radar: Radar) -> tuple[ndarray, ndarray]:
    """Return the last frames, mm/h (frame, y, x), NaN where not observed, and pysteps' motion (2, y, x)."""
    try:
        with _quiet():
            from pysteps import motion
            from pysteps.utils import transformation
    except ImportError:
        raise SettingError("Baselines of pysteps need it: pip install pysteps.") from None

    def rates(slots: Int[ndarray, slots]) -> Float[ndarray, "slots y x"]:
        highest, mean, observed = rain_rates(frames, frames.rows(slots), radar)
        return np.where(observed.numpy(), radar.spoken(highest, mean).numpy(), np.nan).astype(float)

    rate = rates(np.arange(issue - min(FRAMES, radar.layout.history) + 1, issue + 1))
    shown = rates(issue - np.array(radar.motion_ages))  # the frames that ours is sought in
    with _quiet():
        decibel, _ = transformation.dB_transform(shown, threshold=0.1, zerovalue=NO_RAIN)
        found = np.asarray(motion.get_method("LK")(np.ma.masked_invalid(decibel))) / apart_of(radar.motion_ages)
    # Without an echo there is no motion.
    return rate, found if np.isfinite(found).all() else np.zeros((2, *rate.shape[1:]))


def extrapolated(rate: ndarray, motion: ndarray, ahead: int) -> Float[ndarray, "step y x"]:
    """Return a field advected by 1, 2, … frames, by pysteps; NaN where it is not known."""
    from pysteps import nowcasts

    with _quiet():
        return np.asarray(nowcasts.get_method("extrapolation")(rate, motion, ahead))


def _in_neighbourhood(fields: ndarray, radar: Radar) -> Float[ndarray, "period threshold y x"]:
    out = []
    for a, b in radar.layout.periods:
        part = fields[a:b]
        known = torch.from_numpy(np.isfinite(part).mean(axis=0) >= 0.75)
        highest = torch.from_numpy(np.nan_to_num(part).max(axis=0)).float()
        radius = SPREAD * middle((a, b)) * radar.minutes / radar.cell_km
        chance = exceedance_chance(highest, known, radar.thresholds, radius)
        out.append(torch.where(known, chance, torch.nan).numpy())
    return np.stack(out)


def _steps(rate: ndarray, motion: ndarray, ahead: int, radar: Radar) -> Float[ndarray, "member step y x"]:
    from pysteps import nowcasts

    with _quiet():
        members = nowcasts.get_method("steps")(
            _decibel(rate),
            motion,
            ahead,
            n_ens_members=MEMBERS,
            n_cascade_levels=_levels(rate),
            precip_thr=LEAST,
            kmperpixel=radar.cell_km,
            timestep=radar.minutes,
            seed=0,
            num_workers=1,
        )
    return _rate(members)


def _sprog(rate: ndarray, motion: ndarray, ahead: int) -> Float[ndarray, "step y x"]:
    from pysteps import nowcasts

    with _quiet():
        field = nowcasts.get_method("sprog")(
            _decibel(rate), motion, ahead, precip_thr=LEAST, n_cascade_levels=_levels(rate)
        )
    return _rate(field)


def shares(members: Float[ndarray, "member step y x"], radar: Radar) -> Float[ndarray, "period threshold y x"]:
    """Return the share of members that reach each threshold in each period, NaN where any is unknown throughout."""
    out = []
    for a, b in radar.layout.periods:
        part = members[:, a:b]
        known = np.isfinite(part).any(axis=1).all(axis=0)
        highest = np.nan_to_num(part).max(axis=1)
        reached = [(highest >= t * (1 - 1e-6)).mean(axis=0) for t in radar.thresholds]
        out.append(np.where(known, np.stack(reached), np.nan))
    return np.stack(out)


def _levels(rate: ndarray) -> int:
    return max(FEWEST_LEVELS, min(LEVELS, int(np.log2(min(rate.shape[1:]))) - 1))


def _decibel(rate: ndarray) -> ndarray:
    from pysteps.utils import transformation

    return np.asarray(transformation.dB_transform(np.nan_to_num(rate), threshold=0.1, zerovalue=NO_RAIN)[0])


def _rate(decibel: Any) -> ndarray:
    from pysteps.utils import transformation

    return np.asarray(transformation.dB_transform(np.asarray(decibel), threshold=LEAST, inverse=True)[0])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what pysteps prints and warns of off the screen."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield
