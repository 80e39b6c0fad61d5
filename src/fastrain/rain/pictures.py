"""Pictures of forecasts and scores, drawn with matplotlib, without a display."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int8, UInt8
from numpy import ndarray

from fastrain.core.levels import NOT_OBSERVED, LevelTable
from fastrain.core.time import show_time, utc_of
from fastrain.verification.fss import EDGES

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

    from fastrain.rain.verified import Verification

# Rain rates: edges in mm/h and colours from light to heavy, readable with every kind of colour vision.
RATE_EDGES = (0.1, 0.5, 1, 2, 5, 10, 20, 50)
RATE_COLOURS = ("#cfe8f7", "#9dcdee", "#63a8dc", "#2f7dc1", "#7b52ab", "#c0428a", "#ef6a4a", "#ffc24d")
UNSEEN, DRY = "#d9d9d6", "#fbfbf9"
NAMES = {
    "network": "network",
    "climatology": "climatology",
    "persistence": "persistence",
    "advection": "advection",
    "lagrangian": "smoothed advection",
    "calibrated": "calibrated advection",
    "pysteps": "pysteps, Lagrangian",
    "steps": "pysteps, STEPS",
    "sprog": "pysteps, S-PROG",
}
INK = {
    "network": "#b3263f",
    "climatology": "#8a8a86",
    "persistence": "#c98a1b",
    "advection": "#2f7dc1",
    "lagrangian": "#1c4f82",
    "calibrated": "#0b8a8f",
    "pysteps": "#4c9a4a",
    "steps": "#7b52ab",
    "sprog": "#b58fc9",
}


def rain_picture(level: UInt8[ndarray, "y x"], table: LevelTable) -> UInt8[ndarray, "y x 4"]:
    """Return a frame as RGBA: grey where not observed."""
    rates = np.nan_to_num(table.rates)[level]
    index = np.searchsorted(RATE_EDGES, rates * (1 + 1e-6), side="right")
    palette = np.array([_rgba(c) for c in (DRY, *RATE_COLOURS)], dtype=np.uint8)
    picture = palette[index]
    picture[level == NOT_OBSERVED] = _rgba(UNSEEN)
    return np.asarray(picture)


def chance_picture(chance: Float[ndarray, "y x"]) -> UInt8[ndarray, "y x 4"]:
    """Return chances as RGBA, white at 0 to dark at 1; grey where there is none."""
    from matplotlib import colormaps

    picture = (colormaps["GnBu"](np.nan_to_num(chance)) * 255).astype(np.uint8)
    picture[np.nan_to_num(chance) < 0.02] = _rgba(DRY)
    picture[np.isnan(chance)] = _rgba(UNSEEN)
    return np.asarray(picture)


def png(picture: UInt8[ndarray, "y x 4"]) -> bytes:
    """Return a picture as PNG."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(picture).convert("RGB").quantize(64).save(out, format="PNG", optimize=True)
    return out.getvalue()


def forecast_figure(chances: xr.Dataset, cell: tuple[int, int] | None = None) -> Figure:
    """Return the maps of a forecast: a row a threshold, a column a period.

    Args:
        chances: of `forecast_grid`.
        cell: row and column of a place to mark.
    """
    periods, thresholds = chances.sizes["period"], chances.sizes["threshold"]
    from matplotlib.figure import Figure

    # Shown is the part that the radar sees, with a margin; a composite may be mostly sea without a radar.
    seen = np.isfinite(chances["chance"].values[0, 0])
    (top, bottom), (left, right) = (_ends(seen.any(axis=axis)) for axis in (1, 0))
    shape = (bottom - top + 1) / (right - left + 1)
    figure = Figure(figsize=(2.1 * periods + 0.9, 2.0 * thresholds * shape + 0.8), layout="constrained")
    axes = figure.subplots(thresholds, periods, squeeze=False)
    bounds = (chances["lead_bounds"].values / np.timedelta64(60, "s")).astype(int)
    image: Any = None
    for k in range(thresholds):
        for p in range(periods):
            axis = axes[k][p]
            axis.set_facecolor(UNSEEN)
            image = axis.imshow(chances["chance"].values[p, k], cmap="GnBu", vmin=0, vmax=1, interpolation="nearest")
            axis.set(xticks=[], yticks=[], xlim=(left - 0.5, right + 0.5), ylim=(bottom + 0.5, top - 0.5))
            if cell:
                axis.plot(cell[1], cell[0], "+", color="#d11", markersize=9, markeredgewidth=1.5)
            if k == 0:
                axis.set_title(f"{bounds[p, 0]}–{bounds[p, 1]} min", fontsize=10)
        axes[k][0].set_ylabel(f"≥ {float(chances['threshold'].values[k]):g} mm/h", fontsize=10)
    figure.colorbar(image, ax=axes, label="chance", shrink=0.8)
    figure.suptitle(f"Chance of rain, issued {show_time(utc_of(chances['issue_time'].values))}", fontsize=11)
    figure.supxlabel(f"Data: {chances.attrs['credit']}", fontsize=8, color="#555", x=0.01, ha="left")
    return figure


def reliability_figure(found: Verification) -> Figure:
    """Return the reliability diagrams of the network, a panel a threshold, with the counts below."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    tally = found.tallies["network"]
    count = len(found.thresholds)
    figure = Figure(figsize=(3.3 * count, 4.3), layout="constrained")
    axes = figure.subplots(2, count, squeeze=False, height_ratios=[3, 1], sharex="col")
    for k, threshold in enumerate(found.thresholds):
        cells, chance, event = tally.binned[:, :, k].sum(axis=1)
        enough = cells > 0
        top, low = axes[0][k], axes[1][k]
        top.plot([0, 1], [0, 1], color="#999", linewidth=1, linestyle="--")
        top.plot(
            chance[enough] / cells[enough],
            event[enough] / cells[enough],
            "o-",
            color=INK["network"],
            markersize=4,
        )
        top.set(xlim=(0, 1), ylim=(0, 1), title=f"≥ {threshold:g} mm/h")
        low.bar((np.arange(len(cells)) + 0.5) / len(cells), cells, width=0.9 / len(cells), color="#8fa6b8")
        low.set(yscale="log", xlabel="chance said")
        if enough.any():  # whole powers of ten at both ends, and labels at those alone
            low.set_ylim(10 ** np.floor(np.log10(cells[enough].min()) - 0.01), 10 ** np.ceil(np.log10(cells.max())))
        low.yaxis.set_minor_formatter(NullFormatter())
    axes[0][0].set_ylabel("share that happened")
    axes[1][0].set_ylabel("cells")
    return figure


def brier_figure(found: Verification) -> Figure:
    """Return the Brier scores of every forecaster by lead, a panel a threshold."""
    from matplotlib.figure import Figure

    count = len(found.thresholds)
    figure = Figure(figsize=(3.3 * count, 3.5 if count > 1 else 4.1), layout="constrained")
    axes = figure.subplots(1, count, squeeze=False)[0]
    ends = [end for _, end in found.periods]
    for k, threshold in enumerate(found.thresholds):
        for name, tally in found.tallies.items():
            axes[k].plot(
                ends,
                tally.brier[:, k],
                "o-",
                color=INK[name],
                label=NAMES[name],
                markersize=3,
                linewidth=2 if name == "network" else 1.2,
            )
        axes[k].set(title=f"≥ {threshold:g} mm/h", xlabel="end of period, min", ylim=(0, None))
    axes[0].set_ylabel("Brier score, lower is better")
    handles, labels = axes[0].get_legend_handles_labels()
    beside = min(5, 2 * count)  # as many as the figure is wide
    figure.legend(handles, labels, loc="outside lower center", ncols=beside, fontsize=9, frameon=False)
    return figure


def scale_figure(found: Verification) -> Figure:
    """Return the fractions skill score over the size of squares and the ROC curves, of the lowest threshold."""
    from matplotlib.figure import Figure

    alone = found.cell is not None  # one cell has no scales
    figure = Figure(figsize=(5.0 if alone else 9.9, 3.6), layout="constrained")
    *left, curve = figure.subplots(1, 1 if alone else 2, squeeze=False)[0]
    km = [edge * found.cell_km for edge in EDGES]
    middle = len(found.periods) // 2
    for name, fractions in found.fractions.items():
        if name == "climatology":  # says the same everywhere
            continue
        width = 2 if name == "network" else 1.2
        drawn = {"color": INK[name], "markersize": 3, "linewidth": width}
        for by_scale in left:
            by_scale.plot(km, fractions.score[:, middle, 0], "o-", **drawn)
        false, hit = found.tallies[name].roc(middle, 0)
        curve.plot(false, hit, "o-", label=NAMES[name], **drawn)
    a, b = found.periods[middle]
    said = f"≥ {found.thresholds[0]:g} mm/h, {a}–{b} min"
    for by_scale in left:
        by_scale.set(
            title=f"Rain in squares of …, {said}", xlabel="edge, km", ylabel="fractions skill score", ylim=(0, 1)
        )
    curve.plot([0, 1], [0, 1], color="#999", linewidth=1, linestyle="--")
    curve.set(title=f"ROC, {said}", xlabel="of dry cells, false alarms", ylabel="of wet cells, hits")
    handles, labels = curve.get_legend_handles_labels()
    columns = 3 if alone else 5
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=9, frameon=False)
    return figure


def loss_figure(lines: list[dict[str, Any]]) -> Figure:
    """Return the smoothed loss of a training by step, from the lines of its journal."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.plot([line["step"] for line in lines], [line["loss"] for line in lines], color=INK["network"], linewidth=1.5)
    axes.set(xlabel="step", ylabel="loss, nats a cell", xlim=(0, lines[-1]["steps"]))
    axes.grid(alpha=0.25)
    return figure


def case_figure(chances: xr.Dataset, outcome: Int8[ndarray, "period y x"], title: str) -> Figure:
    """Return the chances of the lowest threshold and what came, a column a period.

    Args:
        chances: of `forecast_grid`.
        outcome: thresholds reached, −1 without truth.
        title: to stand above.
    """
    from matplotlib.figure import Figure

    bounds = (chances["lead_bounds"].values / np.timedelta64(60, "s")).astype(int)
    chosen = sorted({0, len(bounds) // 2, len(bounds) - 1})
    shape = outcome.shape[1] / outcome.shape[2]
    figure = Figure(figsize=(2.3 * len(chosen) + 0.9, 4.4 * shape + 0.9), layout="constrained")
    axes = figure.subplots(2, len(chosen), squeeze=False)
    image: Any = None
    for i, p in enumerate(chosen):
        came = np.where(outcome[p] < 0, np.nan, outcome[p] > 0)
        image = axes[0][i].imshow(chances["chance"].values[p, 0], cmap="GnBu", vmin=0, vmax=1, interpolation="nearest")
        axes[1][i].imshow(came, cmap="GnBu", vmin=0, vmax=1, interpolation="nearest")
        axes[0][i].set_title(f"{bounds[p, 0]}–{bounds[p, 1]} min", fontsize=9)
        for axis in axes[:, i]:
            axis.set_facecolor(UNSEEN)
            axis.set(xticks=[], yticks=[])
    axes[0][0].set_ylabel("chance")
    axes[1][0].set_ylabel("what came")
    figure.colorbar(image, ax=axes, shrink=0.6)
    figure.suptitle(title, fontsize=10)
    return figure


def figure_png(figure: Figure, dpi: int = 110) -> bytes:
    """Return a figure as PNG."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=dpi)
    return out.getvalue()


def _ends(seen: ndarray, margin: int = 2) -> tuple[int, int]:
    """Return the first and last index of what is seen, a margin wider; all where nothing is."""
    at = np.flatnonzero(seen) if seen.any() else np.array([0, len(seen) - 1])
    return max(0, int(at[0]) - margin), min(len(seen) - 1, int(at[-1]) + margin)


def _rgba(colour: str) -> tuple[int, int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16), 255
