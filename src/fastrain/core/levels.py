"""Levels: the byte stored for a pixel, and the range of rain rate it stands for.

0 is dry, 1..254 rise with the rain rate, 255 is not observed. A source with at most 254 codes of its own keeps them;
others are binned by `LevelTable.binned`, whose edges lie on every default threshold, so that a threshold never cuts a
level.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped, UInt8
from numpy import ndarray

from fastrain.core.errors import SettingError

DRY = 0
NOT_OBSERVED = 255
DEFAULT_THRESHOLDS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0)  # mm/h
WET = 0.1  # mm/h: what counts as wet in shares and when dry windows are thinned
CUT = 1.15  # a level whose upper rate is less than this times its lower one is narrow: its middle decides


def rain_rate_of_reflectivity(
    reflectivity: Float[ndarray, ...], a: float = 200.0, b: float = 1.6
) -> Float[ndarray, ...]:
    """Return the rain rate in mm/h of a reflectivity in dBZ, by Z = a·R^b.

    Source: Marshall, Langille and Palmer (1947); a = 200, b = 1.6 unless the radar's service says otherwise.
    """
    return np.asarray((10.0 ** (reflectivity / 10.0) / a) ** (1.0 / b))


@dataclass(frozen=True)
class LevelTable:
    """What each level stands for: `lower[i] <= rain_rate < upper[i]` in mm/h, and its representative rate."""

    lower: tuple[float, ...]
    upper: tuple[float, ...]
    rate: tuple[float, ...]

    def __post_init__(self) -> None:
        sizes = {len(self.lower), len(self.upper), len(self.rate)}
        if sizes != {len(self.rate)} or not 1 <= len(self.rate) <= 254:
            raise SettingError(f"A level table has 1 to 254 wet levels, each with its range; found {sorted(sizes)}.")
        if any(b <= a for a, b in zip(self.rate, self.rate[1:], strict=False)) or self.rate[0] <= 0:
            raise SettingError("A level table's rain rates must rise from above 0.")

    @classmethod
    def legend(cls, edges: Sequence[float]) -> LevelTable:
        """Return the table of a picture's legend: level i reaches from edge i to the next, the last one upwards.

        The representative rate is the geometric mean of the edges, as rain rates are spread evenly in their logarithm.
        """
        upper = [*edges[1:], float("inf")]
        rate = [*(float(np.sqrt(a * b)) for a, b in itertools.pairwise(edges)), edges[-1] * 1.25]
        return cls(tuple(map(float, edges)), tuple(upper), tuple(rate))

    @classmethod
    def codes(cls, rate: Sequence[float]) -> LevelTable:
        """Return the table of a source whose bytes 1..n stand for these rain rates, in mm/h."""
        between = [float(np.sqrt(a * b)) for a, b in itertools.pairwise(rate)]
        lower = [rate[0] ** 2 / between[0] if between else rate[0], *between]
        return cls(tuple(lower), (*between, float("inf")), tuple(map(float, rate)))

    @classmethod
    def binned(cls, thresholds: Sequence[float] = DEFAULT_THRESHOLDS, lowest: float = 0.01) -> LevelTable:
        """Return bins of 0.5 dBZ from `lowest` to 300 mm/h, with an edge at every threshold.

        An edge that lies within 0.25 dBZ of a threshold gives way to it.
        """
        dbz = np.arange(_dbz(lowest), _dbz(300.0), 0.5)
        own = np.array([_dbz(t) for t in thresholds])
        keep = np.abs(dbz[:, None] - own[None, :]).min(axis=1) >= 0.25
        edges = sorted([*(_rate(d) for d in dbz[keep]), *thresholds])
        return cls.legend(edges)

    @property
    def count(self) -> int:
        """Number of wet levels."""
        return len(self.rate)

    @cached_property
    def rates(self) -> Float[ndarray, 256]:
        """Representative rain rate of each byte, mm/h: 0 for dry, NaN for bytes that mean nothing and not observed."""
        table = np.full(256, np.nan)
        table[DRY] = 0.0
        table[1 : self.count + 1] = self.rate
        return table

    @cached_property
    def identity(self) -> str:
        """A digest that tells two tables apart."""
        parts = np.array([self.lower, self.upper, self.rate])
        return hashlib.blake2b(np.round(parts, 9).tobytes(), digest_size=8).hexdigest()

    def encode(self, rain_rate: Float[ndarray, "*shape"]) -> UInt8[ndarray, "*shape"]:
        """Return the level of each rain rate in mm/h; below the lowest edge is dry, NaN is not observed."""
        edges = np.asarray(self.lower, dtype=np.float64)
        # A rate that equals an edge but for rounding (12 × 0.01 mm) belongs above it.
        level = np.searchsorted(edges * (1 - 1e-6), rain_rate, side="right").astype(np.uint8)
        level[np.isnan(rain_rate)] = NOT_OBSERVED
        return level

    def decode(self, level: UInt8[ndarray, "*shape"]) -> Float[ndarray, "*shape"]:
        """Return the representative rain rate in mm/h, NaN where not observed."""
        return np.asarray(self.rates.astype(np.float32)[level])

    def first_level(self, threshold: float) -> int:
        """Return the lowest level that reaches a threshold in mm/h.

        Raises:
            SettingError: the threshold cuts a broad level, so that it cannot be told from the byte, or lies above all.
        """
        for level, (low, high, rate) in enumerate(zip(self.lower, self.upper, self.rate, strict=True), start=1):
            if low >= threshold * (1 - 1e-6):
                return level
            if threshold * (1 + 1e-6) < high < float("inf"):
                if high / low < CUT:
                    return level if rate >= threshold else level + 1
                edges = ", ".join(f"{edge:g}" for edge in self.lower if edge > 0)
                raise SettingError(f"A threshold of {threshold:g} mm/h cuts a level of this radar; its edges: {edges}.")
        raise SettingError(
            f"A threshold of {threshold:g} mm/h lies above every level ({self.lower[-1]:g} mm/h and up)."
        )

    def nearest_edge(self, threshold: float) -> float:
        """Return the threshold itself where the levels can tell it, else the nearest edge (in ratio), in mm/h."""
        try:
            self.first_level(threshold)
        except SettingError:
            return min(self.lower, key=lambda edge: abs(float(np.log(edge / threshold))))
        return threshold

    def scaled(self, factor: float) -> LevelTable:
        """Return the table of the same levels standing for `factor` times as much rain."""
        return LevelTable(*(tuple(factor * rate for rate in field) for field in (self.lower, self.upper, self.rate)))

    def as_attributes(self) -> dict[str, Any]:
        """Return the table as plain lists, as an archive or a checkpoint keeps it; an open end is None."""
        upper = [None if np.isinf(u) else u for u in self.upper]
        return {"lower": list(self.lower), "upper": upper, "rate": list(self.rate)}

    @classmethod
    def from_attributes(cls, kept: dict[str, Any]) -> LevelTable:
        """Return the table that `as_attributes` wrote."""
        upper = tuple(float("inf") if u is None else u for u in kept["upper"])
        return cls(tuple(kept["lower"]), upper, tuple(kept["rate"]))


def wet_from(level: Shaped[ndarray, "*shape"], first: int) -> Shaped[ndarray, "*shape"]:
    """Return where a level reaches `first`; what is not observed counts as not reaching it."""
    return np.asarray((level >= first) & (level != NOT_OBSERVED))


def _dbz(rate: float) -> float:
    return float(10 * np.log10(200.0 * rate**1.6))


def _rate(dbz: float) -> float:
    return float((10 ** (dbz / 10) / 200.0) ** (1 / 1.6))
