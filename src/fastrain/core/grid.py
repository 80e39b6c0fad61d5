"""The grid of a radar's picture: rows north to south, columns west to east, and where on Earth each pixel lies."""

from __future__ import annotations

import hashlib
import math
import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from fastrain.core.errors import PlaceError, SettingError

EARTH_RADIUS = 6_371_000.0  # m, the sphere used where a source names none


@dataclass(frozen=True)
class Grid:
    """A regular grid in a map projection, in metres.

    Attributes:
        crs: the projection, in any form pyproj reads (proj string or WKT).
        west: x of the centre of the first column, m.
        north: y of the centre of the first row, m.
        step_x: width of a pixel, m.
        step_y: height of a pixel, m; positive, though y falls with the row.
        shape: rows and columns.
    """

    crs: str
    west: float
    north: float
    step_x: float
    step_y: float
    shape: tuple[int, int]

    def __post_init__(self) -> None:
        places = (self.west, self.north, self.step_x, self.step_y)
        if min(self.shape) < 1 or not all(map(math.isfinite, places)) or min(self.step_x, self.step_y) <= 0:
            # A ValueError, which readers turn into a word about the file that says so.
            raise ValueError(f"a grid of {self.shape} pixels of {self.step_x} × {self.step_y} m is none")

    @classmethod
    def around(
        cls,
        latitude: float,
        longitude: float,
        pixel_km: float,
        shape: tuple[int, int],
        centre: tuple[float, float],
    ) -> Grid:
        """Return the grid of a picture drawn around a radar, equal steps of latitude and of longitude.

        Args:
            latitude: of the radar, degrees north.
            longitude: of the radar, degrees east.
            pixel_km: edge of a pixel, km, true at the radar's latitude.
            shape: rows and columns of the picture.
            centre: row and column of the pixel in which the radar stands.
        """
        if not (-90 < latitude < 90 and -180 <= longitude <= 180 and 0 < pixel_km <= 100):
            raise SettingError(
                f"--centre {latitude},{longitude} --pixel-size {pixel_km}: expected latitude, longitude and km."
            )
        crs = (
            f"+proj=eqc +lat_ts={latitude} +lat_0={latitude} +lon_0={longitude} +R={EARTH_RADIUS:.0f} +units=m +no_defs"
        )
        step = pixel_km * 1000.0
        return cls(crs, -centre[1] * step, centre[0] * step, step, step, shape)

    @classmethod
    def of_degrees(cls, north: float, west: float, step_y: float, step_x: float, shape: tuple[int, int]) -> Grid:
        """Return the grid of even latitudes and longitudes; its metres are true at its middle latitude.

        Args:
            north: latitude of the first row's centre, degrees.
            west: longitude of the first column's centre, degrees.
            step_y: degrees of latitude from row to row, positive.
            step_x: degrees of longitude from column to column.
            shape: rows and columns.

        Raises:
            ValueError: they lie outside the globe.
        """
        south, east = north - step_y * (shape[0] - 1), west + step_x * (shape[1] - 1)
        if not (-90 <= south <= north <= 90 and -180 <= west <= east <= 540 and step_x > 0 and step_y > 0):
            raise ValueError(f"a grid from {north:g},{west:g} to {south:g},{east:g} degrees is none")
        middle = round((north + south) / 2, 6), round((west + east) / 2, 6)
        degree = math.radians(1.0) * EARTH_RADIUS  # m
        crs = (
            f"+proj=eqc +lat_ts={middle[0]} +lat_0={middle[0]} +lon_0={middle[1]} +R={EARTH_RADIUS:.0f} "
            "+units=m +no_defs"
        )
        along = degree * math.cos(math.radians(middle[0]))
        return cls(
            crs, (west - middle[1]) * along, (north - middle[0]) * degree, step_x * along, step_y * degree, shape
        )

    @property
    def cell_km(self) -> float:
        """Edge of a pixel in km, the mean of both directions."""
        return math.sqrt(self.step_x * self.step_y) / 1000.0

    @cached_property
    def x(self) -> Float[ndarray, columns]:
        """Easting of the columns' centres, m."""
        return np.asarray(self.west + self.step_x * np.arange(self.shape[1]))

    @cached_property
    def y(self) -> Float[ndarray, rows]:
        """Northing of the rows' centres, m, falling."""
        return np.asarray(self.north - self.step_y * np.arange(self.shape[0]))

    @cached_property
    def identity(self) -> str:
        """A digest that tells two grids apart."""
        numbers = [round(v, 3) for v in (self.west, self.north, self.step_x, self.step_y)]
        return hashlib.blake2b(repr((self.crs, numbers, self.shape)).encode(), digest_size=8).hexdigest()

    def coarsened(self, coarseness: int) -> Grid:
        """Return the grid of the blocks of c×c pixels; a block at the edge keeps the spacing of the others."""
        shift = (coarseness - 1) / 2
        return Grid(
            self.crs,
            self.west + shift * self.step_x,
            self.north - shift * self.step_y,
            self.step_x * coarseness,
            self.step_y * coarseness,
            (-(-self.shape[0] // coarseness), -(-self.shape[1] // coarseness)),
        )

    def part(self, corner: tuple[int, int], shape: tuple[int, int]) -> Grid:
        """Return the grid of a part of the picture, from a row and column on."""
        row, column = corner
        west, north = self.west + column * self.step_x, self.north - row * self.step_y
        return Grid(self.crs, west, north, self.step_x, self.step_y, shape)

    def pixel(self, latitude: float, longitude: float) -> tuple[int, int]:
        """Return the row and column of the pixel in which a place lies.

        Raises:
            PlaceError: the place is outside the picture; the message names its corners.
        """
        there = f"Place {latitude:.6g},{longitude:.6g}"
        if not (-90 <= latitude <= 90 and -180 <= longitude <= 360):
            raise PlaceError(f"{there}: expected degrees, latitude first: --place 52.1,5.18.")
        x, y = self._transformer.transform(longitude, latitude)
        if not (math.isfinite(x) and math.isfinite(y)):
            raise PlaceError(f"{there} lies nowhere in this radar's projection. {self._extent()}")
        row = math.floor((self.north - y) / self.step_y + 0.5)
        column = math.floor((x - self.west) / self.step_x + 0.5)
        if not (0 <= row < self.shape[0] and 0 <= column < self.shape[1]):
            raise PlaceError(f"{there} is outside the radar's picture. {self._extent()}")
        return row, column

    def require(self, pixel: tuple[int, int]) -> None:
        """See that a pixel, row and column, is one of the picture's.

        Raises:
            PlaceError: it is not.
        """
        (row, column), (rows, columns) = pixel, self.shape
        if not (0 <= row < rows and 0 <= column < columns):
            raise PlaceError(f"Pixel {row},{column} is outside the picture of {rows} rows and {columns} columns.")

    def place(self, row: float, column: float) -> tuple[float, float]:
        """Return latitude and longitude, in degrees, of a pixel's centre."""
        longitude, latitude = self._transformer.transform(
            self.west + column * self.step_x, self.north - row * self.step_y, direction="INVERSE"
        )
        return float(latitude), float(longitude)

    def places(
        self, rows: Int[ndarray, "*shape"], columns: Int[ndarray, "*shape"]
    ) -> tuple[Float[ndarray, "*shape"], Float[ndarray, "*shape"]]:
        """Return latitudes and longitudes, in degrees, of pixels' centres."""
        longitude, latitude = self._transformer.transform(
            self.west + columns * self.step_x, self.north - rows * self.step_y, direction="INVERSE"
        )
        return np.asarray(latitude), np.asarray(longitude)

    def cf_mapping(self) -> dict[str, Any]:
        """Return the attributes of CF's grid mapping of the projection, as far as CF has a name for it."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in _to_cf(self._pyproj_crs).items()}

    def overlaps(self, other: Grid) -> bool:
        """Tell whether two grids show some of the same ground, by a lattice of their points."""
        return self._reaches(other) or other._reaches(self)

    def _reaches(self, other: Grid) -> bool:
        for row in np.linspace(0, self.shape[0] - 1, 7):
            for column in np.linspace(0, self.shape[1] - 1, 7):
                try:
                    other.pixel(*self.place(float(row), float(column)))
                except PlaceError:
                    continue
                return True
        return False

    def cf_coordinates(self) -> dict[str, tuple[Any, dict[str, Any]]]:
        """Return values and attributes of the CF variables `y`, `x` and `crs`.

        Metres in the projection; or degrees, where the grid has equal steps of latitude and of longitude, for which CF
        has no projection's name.

        Source: CF Conventions 1.11, sections 4.1, 4.2, 5.6 and appendix F.
        """
        rows, columns = self.shape
        if self.crs.startswith("+proj=eqc"):
            values = {
                "y": np.array([self.place(row, 0)[0] for row in range(rows)]),
                "x": np.array([self.place(0, column)[1] for column in range(columns)]),
            }
            names = {"y": ("latitude", "degrees_north"), "x": ("longitude", "degrees_east")}
            mapping = _to_cf(self._pyproj_crs.geodetic_crs)
        else:
            values = {"y": self.y, "x": self.x}
            names = {axis: (f"projection_{axis}_coordinate", "m") for axis in "yx"}
            mapping = _to_cf(self._pyproj_crs)
        described: dict[str, tuple[Any, dict[str, Any]]] = {
            axis: (values[axis], {"standard_name": name, "units": units, "axis": axis.upper()})
            for axis, (name, units) in names.items()
        }
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in mapping.items() if v is not None}
        return {**described, "crs": (np.int32(0), plain)}

    def proj_string(self) -> str:
        """Return the projection as a proj string, as pysteps wants it; what it cannot say is lost."""
        if self.crs.startswith("+"):
            return self.crs
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return str(self._pyproj_crs.to_proj4())

    def as_attributes(self) -> dict[str, Any]:
        """Return the grid as plain values, as an archive or a checkpoint keeps it."""
        names = ("crs", "west", "north", "step_x", "step_y")
        return {**{name: getattr(self, name) for name in names}, "shape": list(self.shape)}

    @classmethod
    def from_attributes(cls, kept: dict[str, Any]) -> Grid:
        """Return the grid that `as_attributes` wrote."""
        return cls(**{**kept, "shape": (int(kept["shape"][0]), int(kept["shape"][1]))})

    def _extent(self) -> str:
        rows, columns = self.shape
        corners = [self.place(r, c) for r in (0, rows - 1) for c in (0, columns - 1)]
        south, north = min(c[0] for c in corners), max(c[0] for c in corners)
        west, east = min(c[1] for c in corners), max(c[1] for c in corners)
        return f"It covers about {south:.2f}..{north:.2f} N, {west:.2f}..{east:.2f} E."

    @cached_property
    def _pyproj_crs(self) -> Any:
        from pyproj import CRS

        return CRS.from_user_input(self.crs)

    @cached_property
    def _transformer(self) -> Any:
        from pyproj import Transformer

        # From the projection's own geographic base (sphere included), so that a sphere stays the source's sphere.
        return Transformer.from_crs(self._pyproj_crs.geodetic_crs, self._pyproj_crs, always_xy=True)


def _to_cf(crs: Any) -> dict[str, Any]:
    with warnings.catch_warnings():
        # Of parameters that CF has no attribute for: `crs_wkt`, among the attributes, has them.
        warnings.simplefilter("ignore")
        mapping = dict(crs.to_cf())
    if mapping.get("grid_mapping_name") == "polar_stereographic" and "latitude_of_projection_origin" not in mapping:
        # CF asks for the pole beside the parallel of true scale, and PROJ gives only the parallel.
        mapping["latitude_of_projection_origin"] = math.copysign(90.0, mapping.get("standard_parallel", 90.0))
    return mapping


def parse_pair(text: str, what: str) -> tuple[float, float]:
    """Return the two numbers of `52.1,5.18`.

    Raises:
        PlaceError: the text is not two numbers.
    """
    parts = text.split(",")
    try:
        first, second = (float(part) for part in parts)
        if not (math.isfinite(first) and math.isfinite(second)):
            raise ValueError
    except ValueError:
        like = "160,240" if what == "--pixel" else "52.1,5.18"
        raise PlaceError(f"{what} {text!r}: expected two numbers with a comma between, like {like}.") from None
    return first, second
