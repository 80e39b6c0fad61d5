"""Synthetic radar: years of made rain that moves, grows and decays, and whose best possible forecast is known.

A latent field of a power-law spectrum lives in a frame of its own that moves and turns over the ground; each of its
waves fades and is renewed at the pace of its length (an autoregressive process for every wave number), and it rains
where the field lies above a level that the weather raises and lowers. All of it is Gaussian, so that the chance of
exceeding a rain rate at a later time follows exactly from the field now: no forecast can be better than `best_chance`.

A file in TOML describes such a radar; `fastrain ingest rain.toml --archive A` makes it. Its first line is
`fastrain = "synthetic radar"`; every other key is a field of `Weather`.

Source: the cascades of Seed (2003), doi:10.1175/1520-0450(2003)042<0381:ADASSA>2.0.CO;2, and of STEPS, Bowler et al.
(2006), doi:10.1256/qj.04.100, with a wave number each instead of a few levels.
"""

from __future__ import annotations

import copy
import math
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from fastrain.core.errors import DamagedFile, SettingError
from fastrain.core.frame import Frame
from fastrain.core.grid import Grid
from fastrain.sources.reader import MOST_PIXELS, Reader, ReadOptions, binned_table

KIND = "synthetic radar"
WET = 0.1  # mm/h: where rain begins
MARGIN = 1.5  # the waves' plane is at least so much wider than the picture: what leaves it must not come back at once
LIMITS = {
    "rows": (8, 8192),
    "columns": (8, 8192),
    "pixel_km": (0.05, 50),
    "cadence_minutes": (1, 60),
    "frames": (1, 10**8),
    "seed": (0, 2**63),
    "wet": (1e-4, 0.999),
    "swing": (0, 5),
    "swing_hours": (0.1, 10**4),
    "spread": (0.1, 40),
    "slope": (0, 6),
    "outer_km": (1, 10**5),
    "life_minutes": (0.1, 10**5),
    "life_exponent": (0, 4),
    "speed": (0, 500),
    "direction": (-360, 720),
    "turning": (-360, 360),
    "veer": (0, 180),
    "stretch": (1, 10),
    "stretch_direction": (-360, 720),
    "clutter": (0, 0.5),
    "gaps": (0, 0.9),
    "blind": (0.1, 2),
}


@dataclass(frozen=True)
class Weather:
    """What a synthetic radar shows.

    Attributes:
        rows, columns: of the picture.
        pixel_km: edge of a pixel, km.
        cadence_minutes: between frames.
        frames: how many.
        start: time of the first, UTC.
        seed: of everything that is drawn.
        wet: share of the pixels that are wet, in the long run.
        swing: how far the weather raises and lowers the level from which on it rains, standard deviations of the field.
        swing_hours: how long the weather stays alike.
        spread: dB of rain rate for each standard deviation of the field.
        slope: of the spectrum: a wave's power falls with this power of its wave number.
        outer_km: longest wave; longer ones are as strong as this.
        life_minutes: after which the waves of 10 km have lost all but 1/e of their likeness.
        life_exponent: with which this grows with the wave's length.
        speed: km/h.
        direction: whence the rain comes, degrees from north, clockwise.
        turning: degrees an hour that the rain turns around the middle of the picture.
        veer: how far the direction wanders, degrees, within `swing_hours`.
        stretch: how many times longer the waves are along `stretch_direction` than across it.
        stretch_direction: degrees from north.
        clutter: share of the pixels that show false rain in one frame of five.
        gaps: share of the frames that are missing.
        blind: share of the picture's half width beyond which nothing is observed; 2 for none.
    """

    rows: int = 256
    columns: int = 256
    pixel_km: float = 1.0
    cadence_minutes: int = 5
    frames: int = 288
    start: datetime = datetime(2024, 1, 1, tzinfo=UTC)
    seed: int = 0
    wet: float = 0.2
    swing: float = 0.3
    swing_hours: float = 6.0
    spread: float = 12.0
    slope: float = 2.7
    outer_km: float = 250.0
    life_minutes: float = 20.0
    life_exponent: float = 1.5
    speed: float = 40.0
    direction: float = 240.0
    turning: float = 0.0
    veer: float = 0.0
    stretch: float = 1.0
    stretch_direction: float = 0.0
    clutter: float = 0.0
    gaps: float = 0.0
    blind: float = 2.0

    def __post_init__(self) -> None:
        for name, (low, high) in LIMITS.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise SettingError(f"{name} = {value:g}: expected {low:g} to {high:g}.")
        if self.rows * self.columns > MOST_PIXELS:
            raise SettingError(f"{self.rows}×{self.columns} pixels: more than {MOST_PIXELS:,}.")
        if self.start.tzinfo is None:
            raise SettingError(f"start = {self.start}: expected a time with its zone, such as 2024-01-01T00:00:00Z.")

    @classmethod
    def from_attributes(cls, said: dict[str, Any]) -> Weather:
        """Return the weather that a file describes.

        Raises:
            SettingError: a key is unknown or a value out of bounds.
        """
        known = {field.name for field in fields(cls)}
        for name in said:
            if name not in known:
                raise SettingError(f"{name}: no such setting of a synthetic radar; known: {', '.join(sorted(known))}.")
        for name, value in said.items():
            default = getattr(cls, name)
            if isinstance(default, datetime):
                if not isinstance(value, datetime):
                    raise SettingError(f"{name} = {value!r}: expected a time, such as 2024-01-01T00:00:00Z.")
            elif isinstance(value, bool) or not isinstance(value, int if isinstance(default, int) else (int, float)):
                raise SettingError(f"{name} = {value!r}: expected a {'whole ' * isinstance(default, int)}number.")
        right: dict[str, Any] = {n: float(v) if isinstance(getattr(cls, n), float) else v for n, v in said.items()}
        return cls(**right)

    @property
    def cadence(self) -> timedelta:
        """Between frames."""
        return timedelta(minutes=self.cadence_minutes)


class SyntheticRadar:
    """A made radar, frame by frame.

    Attributes:
        weather: what it shows.
        step: number of the frame it stands at, from 0.
    """

    def __init__(self, weather: Weather) -> None:
        # Here and below: every reader's module is loaded whatever is read, and scipy takes its time.
        from scipy import fft

        self.weather, self.step = weather, 0
        self._member = 0
        w = weather
        self._shape = tuple(fft.next_fast_len(math.ceil(MARGIN * edge), real=True) for edge in (w.rows, w.columns))
        wave_y = fft.fftfreq(self._shape[0], w.pixel_km)[:, None]
        wave_x = fft.rfftfreq(self._shape[1], w.pixel_km)[None, :]
        angle = math.radians(w.stretch_direction)
        along = -math.cos(angle) * wave_y + math.sin(angle) * wave_x  # rows run south
        across = math.sin(angle) * wave_y + math.cos(angle) * wave_x
        number = np.hypot(along * math.sqrt(w.stretch), across / math.sqrt(w.stretch))  # waves a km
        held = np.maximum(number, 1 / w.outer_km)
        amplitude = held ** (-w.slope / 2)
        amplitude[0, 0] = 0.0  # the mean is the weather's, not the waves'
        # Waves of the half plane stand for two, but for those that are their own mirror image.
        weight = np.full(number.shape, 2.0)
        weight[:, 0] = 1.0
        if self._shape[1] % 2 == 0:
            weight[:, -1] = 1.0
        power = weight * amplitude**2
        self._power = power / power.sum()
        self._amplitude = (amplitude / math.sqrt(power.sum()) * math.prod(self._shape)).astype(np.float32)
        life = w.life_minutes * (1 / (10 * held)) ** w.life_exponent
        self._likeness = np.exp(-w.cadence_minutes / life).astype(np.float32)
        self._waves = self._noise(0)
        self._mood, self._veer = (float(x) for x in np.random.default_rng([w.seed, 1]).normal(size=2))
        self._shift = np.zeros(2)  # of the waves' plane, km south and east
        self._turned = 0.0
        self._clutter = self._clutter_map()

    def advance(self) -> None:
        """Go on to the next frame."""
        w = self.weather
        self.step += 1
        renewal = np.sqrt(1 - self._likeness**2)
        self._waves = self._likeness * self._waves + renewal * self._noise(self.step)
        hours = w.cadence_minutes / 60
        self._shift += np.array(self._velocity()) * hours
        self._turned += math.radians(w.turning) * hours
        stays = math.exp(-hours / w.swing_hours)
        draw = np.random.default_rng([w.seed, 2, self.step, self._member]).normal(size=2)
        self._mood, self._veer = (
            float(stays * old + math.sqrt(1 - stays**2) * new)
            for old, new in zip((self._mood, self._veer), draw, strict=True)
        )

    def future(self, member: int) -> SyntheticRadar:
        """Return the radar as it stands, with another future for each member from 1 on; 0 is its own."""
        other = copy.copy(self)
        other._shift = self._shift.copy()
        other._member = member
        return other

    @property
    def level(self) -> float:
        """Of the field, from which on it rains."""
        from scipy.special import ndtri

        # In the long run the field and the mood of the weather together are what `wet` speaks of.
        rarely = float(ndtri(1 - self.weather.wet)) * math.sqrt(1 + self.weather.swing**2)
        return rarely - self.weather.swing * self._mood

    def rain_rate(self) -> Float[ndarray, "y x"]:
        """Return the rain rate of the present frame, mm/h, without clutter and blind parts."""
        over = self._seen(self._waves) - self.level
        return np.where(over >= 0, WET * 10 ** (self.weather.spread * over / 10), 0.0)

    def observed(self) -> Float[ndarray, "y x"]:
        """Return the rain rate of the present frame as a radar shows it, mm/h, NaN where it is blind."""
        rate = self.rain_rate()
        flicker = np.random.default_rng([self.weather.seed, 3, self.step]).random(rate.shape, np.float32) < 0.2
        rate[self._clutter & flicker] += 1.0
        rate[self._blind()] = np.nan
        return rate

    def best_chance(self, then: SyntheticRadar, thresholds: tuple[float, ...]) -> Float[ndarray, "threshold y x"]:
        """Return the chance of each rain rate at a later moment, given all of the field now: none can be better.

        It knows the motion, and how wet the weather will be, as well: a bound, not a forecast that could be made.

        Args:
            then: the same radar at the later frame; what its waves are is not looked at.
            thresholds: mm/h.
        """
        from scipy.special import ndtr

        faded = self._likeness ** (then.step - self.step)
        expected = then._seen(self._waves * faded)
        left = math.sqrt(float((self._power * (1 - faded.astype(float) ** 2)).sum()))
        chances = []
        for threshold in thresholds:
            needed = then.level + 10 * math.log10(max(threshold, WET) / WET) / self.weather.spread
            certain = (expected >= needed).astype(float)
            chances.append(ndtr((expected - needed) / left) if left > 0 else certain)
        return np.stack(chances)

    def _noise(self, step: int) -> ndarray:
        from scipy import fft

        white = np.random.default_rng([self.weather.seed, 0, step, self._member]).standard_normal(
            self._shape, np.float32
        )
        spectrum = fft.rfft2(white) / math.sqrt(math.prod(self._shape))
        return np.asarray((spectrum * self._amplitude).astype(np.complex64))

    def _seen(self, waves: ndarray) -> Float[ndarray, "y x"]:
        """Return the field of some waves, of unit variance in the long run, as it lies over the picture now."""
        from scipy import fft
        from scipy.ndimage import map_coordinates

        w = self.weather
        plane = fft.irfft2(waves, s=self._shape)
        y, x = np.mgrid[: w.rows, : w.columns].astype(np.float32)
        middle = (w.rows - 1) / 2, (w.columns - 1) / 2
        cos, sin = math.cos(self._turned), math.sin(self._turned)
        y, x = y - middle[0], x - middle[1]
        rows = cos * y + sin * x + middle[0] - self._shift[0] / w.pixel_km
        columns = -sin * y + cos * x + middle[1] - self._shift[1] / w.pixel_km
        return np.asarray(map_coordinates(plane, [rows, columns], order=1, mode="grid-wrap"))

    def _velocity(self) -> tuple[float, float]:
        """Return km/h to the south and to the east."""
        w = self.weather
        whence = math.radians(w.direction + w.veer * self._veer)
        return w.speed * math.cos(whence), -w.speed * math.sin(whence)

    def _clutter_map(self) -> Bool[ndarray, "y x"]:
        draw = np.random.default_rng([self.weather.seed, 4])
        return np.asarray(draw.random((self.weather.rows, self.weather.columns), np.float32) < self.weather.clutter)

    def _blind(self) -> Bool[ndarray, "y x"]:
        w = self.weather
        y, x = np.mgrid[: w.rows, : w.columns]
        far = np.hypot((y - (w.rows - 1) / 2) / (w.rows / 2), (x - (w.columns - 1) / 2) / (w.columns / 2))
        return np.asarray(far > w.blind)


def frames_of(weather: Weather, name: str) -> Iterator[Frame]:
    """Yield the frames of a synthetic radar, without its gaps."""
    table = binned_table()
    shape = weather.rows, weather.columns
    grid = Grid.around(50.0, 10.0, weather.pixel_km, shape, (weather.rows // 2, weather.columns // 2))
    radar = SyntheticRadar(weather)
    missing = np.random.default_rng([weather.seed, 5])
    for i in range(weather.frames):
        if i:
            radar.advance()
        if missing.random() >= weather.gaps:
            level = table.encode(np.minimum(radar.observed(), 299.0))
            yield Frame(level, weather.start + i * weather.cadence, grid, table, f"{name}, frame {i + 1}")


def _read(path: Path, options: ReadOptions) -> Iterator[Frame]:
    try:
        said = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DamagedFile(f"{path.name}: is no TOML: {error}.") from None
    said.pop("fastrain", None)
    try:
        weather = Weather.from_attributes(said)
    except SettingError as error:
        raise DamagedFile(f"{path.name}: {error}") from None
    yield from frames_of(weather, path.name)


def _recognises(path: Path, head: bytes) -> bool:
    return path.suffix == ".toml" and head.lstrip().startswith(b"fastrain") and KIND.encode() in head.splitlines()[0]


READER = Reader(
    recognises=_recognises,
    read=_read,
    average="rain_rate",
    credit="made by fastrain: synthetic, no rain that ever fell",
    many=True,
)
