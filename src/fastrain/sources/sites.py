"""Where Environment Canada's radars stand, by the code or the name in a file's name."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True)
class Site:
    """One radar site.

    Attributes:
        code: as the file's name has it.
        name: of the place.
        latitude: degrees north.
        longitude: degrees east.
        range_km: how far its pictures show rain, km.
    """

    code: str
    name: str
    latitude: float
    longitude: float
    range_km: float


S_BAND_RANGE = 240.0  # km; measured: no rain pixel of 22 radars' pictures lies beyond 240.9 px of the cross
C_BAND_RANGE = 256.0  # km; measured: the farthest rain of the 2012 and 2013 pictures lies at 256.3 px

_CODE = re.compile(r"(?<![A-Z0-9])(CAS[A-Z]{2}|[XW][A-Z]{2})(?![A-Z0-9])", re.IGNORECASE)


def code_in_name(name: str) -> str | None:
    """Return the radar's code that stands in a file's name, or None."""
    found = _CODE.search(name.replace("_", " "))
    if found:
        return found.group(1).upper()
    words = set(re.findall(r"[^\W\d_]+", name.lower()))
    return next((site.code for site in _sites().values() if site.name.lower() in words), None)


def site_of(code: str) -> Site | None:
    """Return the site of a code, old or new; None where the table lacks it."""
    return _sites().get(code.upper())


@cache
def _sites() -> dict[str, Site]:
    table = tomllib.loads((files("fastrain.sources") / "sites.toml").read_text(encoding="utf-8"))
    sites = {}
    for row in table["site"]:
        for code in row["codes"]:
            range_km = S_BAND_RANGE if code.startswith("CAS") else C_BAND_RANGE
            latitude, longitude = row["position"]
            sites[code] = Site(code, row["name"], latitude, longitude, range_km)
    return sites
