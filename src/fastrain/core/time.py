"""Times: always UTC, always on a regular axis whose origin is fixed early, so that no slot ever moves.

An archive's slot is `index = (valid_time − origin) / cadence`. The origin lies within one cadence of 1970-01-01, at
the phase of the first frame seen, so that earlier pictures can still be added and a radar that scans at :01, :11, :21
has its frames in the middle of their slots.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from typing import Any

from fastrain.core.errors import SettingError, UnknownTime

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LAST_YEAR = 2100  # the axis ends here; a zarr array's declared length costs nothing

# Patterns of file names, the most telling first. Each is bounded by non-digits when searched for.
NAME_PATTERNS = (
    "%Y%m%dT%H%M%SZ",
    "%Y%m%dT%H%MZ",
    "%Y%m%dT%H%M",
    "%Y%m%d_%H%M%S",
    "%Y%m%d_%H%M",
    "%Y-%m-%dT%H:%M",
    "%Y-%m-%d_%H-%M",
    "%Y_%m_%d_%H_%M",
    "%Y%m%d%H%M%S",
    "%Y%m%d%H%M",
)

_FIELDS = {
    "%Y": r"(\d{4})",
    "%y": r"(\d{2})",
    "%j": r"(\d{3})",
    "%m": r"(\d{2})",
    "%d": r"(\d{2})",
    "%H": r"(\d{2})",
    "%M": r"(\d{2})",
    "%S": r"(\d{2})",
}
_ONE_DIGIT = str.maketrans("123456789", "0" * 9)
_ORDER = ("%Y", "%m", "%d", "%H", "%M", "%S")


def time_in_name(name: str, pattern: str | None = None) -> datetime:
    """Return the UTC time that stands in a file's name.

    Args:
        name: the file's name, without its folder.
        pattern: what to look for, in strptime's %Y %y %m %d %j %H %M %S; the known patterns if None.

    Raises:
        UnknownTime: no such time stands there, or it is no date.
        SettingError: the pattern lacks a field.
    """
    for candidate in (pattern,) if pattern else _standing_in(name.translate(_ONE_DIGIT)):
        fields, regex = _compiled(candidate)
        found = regex.search(name)
        if not found:
            continue
        parts = dict(zip(fields, map(int, found.groups()), strict=True))
        if "%y" in parts:
            parts["%Y"] = 1969 + (parts["%y"] - 69) % 100  # as strptime: 69 is 1969, 68 is 2068
        try:
            if "%j" in parts:
                parts["%m"], parts["%d"] = _month_and_day(parts["%Y"], parts["%j"])
            return datetime(*(parts.get(field, 0) for field in _ORDER), tzinfo=UTC)  # type: ignore[misc, arg-type]
        except ValueError:
            continue
    looked_for = f"the pattern {pattern!r}" if pattern else "a date and time"
    raise UnknownTime(f"{name}: {looked_for} does not stand in the name; give --time-pattern, e.g. %Y%m%d%H%M.")


@lru_cache(maxsize=64)
def _standing_in(shape: str) -> tuple[str, ...]:
    """Return the known patterns that a name fits by where its digits stand, which a radar's names have in common."""
    return tuple(pattern for pattern in NAME_PATTERNS if _compiled(pattern)[1].search(shape))


def _month_and_day(year: int, day: int) -> tuple[int, int]:
    date = datetime(year, 1, 1, tzinfo=UTC) + timedelta(days=day - 1)
    if date.year != year:
        raise ValueError
    return date.month, date.day


@cache
def _compiled(pattern: str) -> tuple[list[str], re.Pattern[str]]:
    fields = re.findall(r"%.", pattern)
    unknown = [field for field in fields if field not in _FIELDS]
    whole = any(set(day) <= set(fields) for day in ({"%Y", "%m", "%d"}, {"%y", "%m", "%d"}, {"%Y", "%j"}, {"%y", "%j"}))
    if unknown or not whole or not {"%H", "%M"} <= set(fields) or len(set(fields)) != len(fields):
        raise SettingError(
            f"--time-pattern {pattern!r}: needs %Y (or %y), %m and %d (or %j, the day of the year), %H and %M, "
            "each once; %S may be added."
        )
    literal = [re.escape(part) for part in re.split(r"%.", pattern)]
    body = literal[0] + "".join(_FIELDS[f] + part for f, part in zip(fields, literal[1:], strict=True))
    return fields, re.compile(rf"(?<!\d){body}(?!\d)")


def parse_time(text: str) -> datetime:
    """Return the UTC time that an ISO 8601 text names; a text without a zone is UTC.

    Raises:
        SettingError: the text is no time.
    """
    try:
        time = datetime.fromisoformat(text)
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        raise SettingError(f"{text!r} is no time; write it like 2024-07-01T12:00Z.") from None


def utc_of(value: Any) -> datetime:
    """Return the UTC time of a numpy datetime64, or of an array of one, to the second."""
    return datetime.fromtimestamp(int(value.astype("datetime64[s]").astype(int)), tz=UTC)


def show_time(time: datetime) -> str:
    """Return a UTC time as people and programs read it: 2024-07-01T12:00Z, with seconds only where there are any."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M" + (":%S" if time.second else "") + "Z")


def show_times(times: Sequence[datetime], most: int = 4) -> str:
    """Return times of a gap in one phrase: `11:10Z and 11:20Z`, the date only where it changes."""
    shown = [
        show_time(t) if i == 0 or t.date() != times[0].date() else t.strftime("%H:%MZ") for i, t in enumerate(times)
    ]
    if len(shown) > most:
        return f"{', '.join(shown[: most - 1])} … {shown[-1]} ({len(shown)} frames)"
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


@dataclass(frozen=True)
class TimeAxis:
    """A regular time axis: whole seconds, from near 1970 to 2100."""

    origin: datetime
    cadence: timedelta

    def __post_init__(self) -> None:
        if self.cadence < timedelta(seconds=30) or self.cadence > timedelta(hours=6):
            minutes = self.cadence.total_seconds() / 60
            raise SettingError(f"A cadence of {minutes:g} minutes: expected one from half a minute to 6 hours.")

    @classmethod
    def through(cls, time: datetime, cadence: timedelta) -> TimeAxis:
        """Return the axis of this cadence that has a slot exactly at `time`."""
        return cls(origin=EPOCH + (time - EPOCH) % cadence, cadence=cadence)

    @property
    def size(self) -> int:
        """Number of slots up to the end of the axis."""
        return (datetime(LAST_YEAR, 1, 1, tzinfo=UTC) - self.origin) // self.cadence

    def slot(self, time: datetime) -> tuple[int, timedelta]:
        """Return the index of the nearest slot and how far the time lies after it (before it, if negative)."""
        index = (time - self.origin + self.cadence / 2) // self.cadence
        return index, time - self.time(index)

    def time(self, index: int) -> datetime:
        """Return the UTC time of a slot."""
        return self.origin + index * self.cadence


def cadence_of(times: Iterable[datetime]) -> timedelta | None:
    """Return the commonest step between neighbouring times, to the second; None where there are fewer than two."""
    ordered = sorted(set(times))
    steps: dict[timedelta, int] = {}
    for before, after in itertools.pairwise(ordered):
        steps[after - before] = steps.get(after - before, 0) + 1
    if not steps:
        return None
    return max(steps, key=lambda step: (steps[step], -step))
