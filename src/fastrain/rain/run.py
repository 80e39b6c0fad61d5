"""A run: a folder that holds a trained network and everything a forecast with it needs to know."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import nn

from fastrain.archive.store import Archive
from fastrain.core.errors import ArchiveError, RunError, SettingError, first_line
from fastrain.core.grid import Grid
from fastrain.core.time import parse_time
from fastrain.engine import checkpoint
from fastrain.engine.precision import computing
from fastrain.nets.rain_net import RainNet
from fastrain.rain.chances import Calibration
from fastrain.rain.inputs import CONDITIONS, Inputs, channels_of
from fastrain.rain.radar import Radar, Truth
from fastrain.rain.smoothing import GUESSES
from fastrain.samples.layout import Layout

if TYPE_CHECKING:
    from datetime import datetime

    import xarray as xr

Net = TypeVar("Net", bound=nn.Module)

RUN_VERSION = 4
FACTS, WEIGHTS, STATE = "run.json", "weights.pt", "training.pt"
LOG, CURVE = "log.jsonl", "loss.png"  # what training came through, by line and as a picture
SHIPPED_WEIGHTS = "weights.safetensors"
BASE = "base"  # name of the run that ships in the package
GRID = "grid"  # the recipe of chances for every cell
CELL_KM = 4.0  # the coarseness whose blocks come nearest to this is the default


@dataclass(frozen=True)
class Run:
    """A trained network.

    Attributes:
        path: of the folder.
        facts: what run.json holds.
        calibration: of its chances.
    """

    path: Path
    facts: dict[str, Any]
    calibration: Calibration

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Thresholds in mm/h, rising."""
        return tuple(self.facts["thresholds"])

    @property
    def layout(self) -> Layout:
        """History and periods, in minutes."""
        kept = self.facts["layout"]
        return Layout(kept["history"], tuple((a, b) for a, b in kept["periods"]), kept["guard"])

    @property
    def recipe(self) -> str:
        """`grid`, of chances for every cell, or a recipe of one place."""
        return str(self.facts.get("recipe", GRID))

    @property
    def cell_km(self) -> float | None:
        """Edge of its cells in km; None of a run of no one radar."""
        return None if self.grid is None else self.grid.coarsened(int(self.facts["coarseness"])).cell_km

    @property
    def is_base(self) -> bool:
        """Whether it is of no one radar: the network that ships in the package."""
        return bool(self.facts["archive"] is None)

    def coarseness_on(self, archive: Archive) -> int:
        """Return the edge of its cells, in pixels; a run of no one radar takes that nearest to 4 km."""
        kept = self.facts["coarseness"]
        return default_coarseness(archive) if kept is None else int(kept)

    @property
    def truth(self) -> Truth:
        """Of which of a block's two rates its chances speak: the maximum or the mean."""
        kept: Truth = self.facts["settings"].get("truth", "maximum")
        return kept

    def speaking_of(self, truth: Truth | None) -> Run:
        """Return the run with chances of a truth; only the one in the package learned both.

        Raises:
            SettingError: its network speaks of the other.
        """
        if truth is None or truth == self.truth:
            return self
        if "means" not in self.facts:
            raise SettingError(
                f"{self.path}: its chances speak of the cells' {self.truth}; train a run with --truth {truth}."
            )
        other = self.facts["means"]  # what goes with the truth that it does not speak of at present
        mine = {name: self.facts[name] for name in other}
        settings = {**self.facts["settings"], "truth": truth}
        return replace(self, facts={**self.facts, **other, "means": mine, "settings": settings})

    @property
    def identity(self) -> str:
        """Digest of the weights."""
        return str(self.facts["network"]["identity"])

    @property
    def grid(self) -> Grid | None:
        """Grid, at coarseness 1, of the archive it was trained on; None of a run of no one radar."""
        kept = self.facts["grid"]
        return None if kept is None else Grid.from_attributes(kept)

    @property
    def learned(self) -> list[tuple[Grid, tuple[str, str]]]:
        """Where and when it was trained and calibrated: grids, and the first and last time on each."""
        found = [(Grid.from_attributes(one["grid"]), tuple(one["times"])) for one in self.facts["events"]]
        if self.grid is not None:
            split = self.facts["split"]
            found.append((self.grid, (split["train"][0], split["calibrate"][1])))
        return found

    @property
    def frames_seen(self) -> frozenset[bytes]:
        """Digests of the frames that it learned from, as archives keep them; of a run of one radar its time tells."""
        return frozenset(bytes.fromhex(digest) for one in self.facts["events"] for digest in one.get("digests", ()))

    def place_on(self, grid: Grid) -> tuple[int, int] | None:
        """Return the pixel, on a grid, of the place it was trained for; None where there is no such place.

        Raises:
            PlaceError: the place lies outside that grid.
        """
        pixel = self.facts["place"]
        if pixel is None or self.grid is None:
            return None
        if grid.identity == self.grid.identity:
            return int(pixel[0]), int(pixel[1])
        return grid.pixel(*self.grid.place(*pixel))

    def archive(self, path: str | Path | None = None) -> Archive:
        """Open an archive, by default the one the run was trained on.

        Raises:
            RunError: the archive is not where it was, or the run is of none.
        """
        if path is None:
            if self.is_base:
                raise RunError(f"The run {BASE} is of no archive; name yours with --archive.")
            path = Path(self.facts["archive"]["path"])
            # The two are often moved together: then the archive is where it was as seen from the run.
            if not path.exists():
                path = (self.path / self.facts["archive"]["relative"]).resolve()
        try:
            return Archive.open(path)
        except ArchiveError as error:
            raise RunError(f"{self.path}: {error} Name the archive with --archive.") from None

    def radar(self, archive: Archive) -> Radar:
        """Return what inputs are made from, for an archive."""
        layout = self.layout.frames(archive.schema.axis.cadence)
        thresholds = self.thresholds
        if self.is_base:
            thresholds = tuple(archive.schema.table.nearest_edge(t) for t in thresholds)
            if len(set(thresholds)) < len(thresholds):
                asked = ", ".join(f"{t:g}" for t in self.thresholds)
                raise RunError(
                    f"{archive.path}: its levels do not tell {asked} mm/h apart, which the run {BASE} speaks of; train "
                    "a run on it."
                )
        return Radar.of(archive.schema, self.coarseness_on(archive), thresholds, layout, self.truth)

    @cached_property
    def network(self) -> RainNet:
        """The network of the grid, ready to be asked."""
        return self.loaded(make_network(len(self.thresholds), self.facts["network"]["width"]))

    def loaded(self, network: Net) -> Net:
        """Return a network with the run's weights, ready to be asked.

        Raises:
            RunError: they cannot be read, or are of another network.
        """
        try:
            network.load_state_dict(_weights(self.path))
        except checkpoint.UNREADABLE as error:
            raise RunError(
                f"{self.path}: its weights cannot be read ({first_line(error)}): they are damaged, or another version "
                "of this program learned them; train again."
            ) from None
        return network.eval()

    def parts(self, inputs: Inputs) -> tuple[Float[ndarray, "period threshold y x"], Float[ndarray, ...]]:
        """Return both summands of the logits of a window's conditional chances; see `predict_parts`."""
        return predict_parts(self.network, inputs)

    def forecast(self, archive: str | Path | None = None, *, at: datetime | str | None = None) -> xr.Dataset:
        """Return the chances of rain on the grid, or at its place; see `fastrain.rain.forecast.forecast_grid`.

        Args:
            archive: path; the one the run was trained on if None.
            at: issue time, UTC; that of the last frame if None.
        """
        from fastrain.rain.forecast import forecast_grid

        time = parse_time(at) if isinstance(at, str) else at
        return forecast_grid(self, self.archive(archive), time)


def default_coarseness(archive: Archive) -> int:
    """Return the coarseness of an archive whose cells come nearest to 4 km."""
    pixel = archive.schema.grid.cell_km
    return min((1, *archive.schema.coarseness), key=lambda c: (abs(np.log(c * pixel / CELL_KM)), c))


def base_path() -> Path:
    """Return the folder of the run that ships in the package."""
    return Path(str(files("fastrain.rain") / BASE))


def _weights(path: Path) -> dict[str, torch.Tensor]:
    if not (path / SHIPPED_WEIGHTS).exists():
        return checkpoint.load(path / WEIGHTS)
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError:
        raise RunError(f"{path}: needs safetensors: pip install 'fastrain[rain]'.") from None
    try:
        held: dict[str, torch.Tensor] = load_file(str(path / SHIPPED_WEIGHTS))
    except SafetensorError as error:
        raise RunError(f"{path}: its weights cannot be read ({first_line(error)}).") from None
    return held


def open_run(path: str | Path) -> Run:
    """Open a run; `base` is the one that ships in the package, unless a folder of that name is there.

    Raises:
        RunError: there is none at the path, it is unfinished, or newer than this program.
    """
    path = Path(path)
    if str(path) == BASE and not path.exists():
        path = base_path()
    try:
        facts = json.loads((path / FACTS).read_text(encoding="utf-8"))
    except NotADirectoryError:
        raise RunError(f"{path}: is a file; a run is a folder that `fastrain train` makes.") from None
    except FileNotFoundError:
        if (path / STATE).exists():
            raise RunError(f"{path}: training is not finished; the same `fastrain train` goes on with it.") from None
        raise RunError(f"{path}: no run is here; make one with `fastrain train ARCHIVE --run {path}`.") from None
    except (OSError, ValueError) as error:
        raise RunError(f"{path / FACTS}: cannot be read ({error}).") from None
    version = facts.get("fastrain_run") if isinstance(facts, dict) else None
    if version is None and isinstance(facts, dict) and "fastrain_image_run" in facts:
        raise RunError(f"{path}: a run on images; `fastrain vision predict` asks it.")
    if version != RUN_VERSION:
        raise RunError(f"{path / FACTS}: its version is {version}, this program reads {RUN_VERSION}; train again.")
    needed = {
        "events",
        "archive",
        "grid",
        "coarseness",
        "thresholds",
        "layout",
        "place",
        "split",
        "calibration",
        "reference",
    }
    missing = sorted((needed | {"decide", "network"}) - set(facts))
    if missing:
        raise RunError(f"{path / FACTS}: lacks {', '.join(missing)}; it is damaged, train again.")
    return Run(path, facts, Calibration.from_attributes(facts["calibration"]))


def make_network(thresholds: int, width: int) -> RainNet:
    """Return an untrained network for a number of thresholds."""
    return RainNet(
        channels_of(thresholds),
        guesses=GUESSES,
        thresholds=thresholds,
        conditions=CONDITIONS,
        width=width,
    )


def network_identity(network: nn.Module) -> str:
    """Return a digest of a network's weights."""
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensor.numpy()).tobytes())
    return digest.hexdigest()


def predict(network: RainNet, inputs: Inputs) -> Float[ndarray, "period threshold y x"]:
    """Return a network's logits for a window."""
    straight, learned = predict_parts(network, inputs)
    return np.asarray(straight + learned)


@torch.inference_mode()
def predict_parts(
    network: RainNet, inputs: Inputs
) -> tuple[Float[ndarray, "period threshold y x"], Float[ndarray, "period threshold y x"]]:
    """Return the straight line through the first guesses, and the learned correction to it, as logits.

    Period by period, so that memory does not grow with their number. To periods that the network is not asked about,
    what it learned is carried from those around.
    """
    straight: list[torch.Tensor] = []
    learned: list[torch.Tensor] = []
    device = next(network.parameters()).device
    for p in range(len(inputs.known)):
        guess, known = (part[p : p + 1].to(device).float() for part in (inputs.guess, inputs.known))
        with computing(device):
            if p in inputs.asked:
                x = inputs.x[len(learned)][None].to(device).float()
                line, more = network.parts(x, guess, known)
                learned.append(more.float().cpu())
            else:
                line = network.line(guess, known)
            straight.append(line.float().cpu())
    found = torch.cat(learned)
    if inputs.between is not None:
        found = inputs.between.all_of(found)
    return torch.cat(straight).numpy(), found.numpy()
