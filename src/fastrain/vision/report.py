"""The report of an image run: one self-contained page with curve, confusion, honesty of chances and worst mistakes."""

from __future__ import annotations

import base64
import html
import io
from importlib.resources import files
from pathlib import Path
from string import Template

import numpy as np
from numpy import ndarray
from PIL import Image

from fastrain.core.files import write_whole
from fastrain.core.shapes import Float, UInt8
from fastrain.vision.datasets import Dataset, some
from fastrain.vision.judge import BINS, Judgement
from fastrain.vision.run import ImageRun
from fastrain.vision.svg import Chart, Line, svg

MOST_MISTAKES = 48
MOST_CLASSES = 30  # in a table of all against all; of more, the pairs that are confused most
MOST_PAIRS = 20
SHOWN_EDGE = 128  # pixels that a mistake is shown at
FEW = 200  # test images, under which figures are shaky
FEW_OF_A_CLASS = 10


def write_report(
    path: Path, run: ImageRun, data: Dataset, found: Judgement, chances: Float[ndarray, "image class"]
) -> None:
    """Write the report of a run.

    Args:
        path: of the HTML file.
        run: that is reported on.
        data: it was trained and judged on.
        found: how right it is on the test images.
        chances: of the test images.
    """
    template = Template((files("fastrain.vision") / "report.html").read_text(encoding="utf-8"))
    facts = run.facts
    page = template.substitute(
        title=_escape(f"{data.name}: {len(run.classes)} classes told apart"),
        summary=_summary(run, found),
        caveat=_caveats(run, data),
        charts=_charts(run, data, chances),
        confusion=_confusion(run.classes, found),
        classes=_classes(run, found),
        mistakes=_mistakes(run, data, chances),
        choices=_choices(run),
        identity=_escape(f"images {facts['data_identity']}, fastrain {facts['fastrain']}, torch {facts['torch']}"),
    )
    write_whole(path, page)


def _summary(run: ImageRun, found: Judgement) -> str:
    facts = run.facts
    views = "" if facts["recipe"]["views"] == "one" else ", by the average of their views"
    rows = (
        ("told right", f"{found.accuracy:.2%} of {found.confusion.sum():,} test images{views}"),
        ("mean over the classes", f"{found.balanced_accuracy:.2%}: each class counts the same, however rare"),
        ("log loss", f"{found.log_loss:.3f}; by chance alone it is {np.log(len(run.classes)):.3f}"),
        ("error of the chances", f"{found.calibration_error:.2%}: how far a chance is from the share that comes true"),
        (
            "took",
            f"{facts['seconds']:.0f} s, {facts['cpu_seconds']:.0f} s of processor, {facts['threads']} "
            f"thread{'s' if facts['threads'] > 1 else ''}, {facts['peak_bytes'] / 2**20:,.0f} MiB at the peak",
        ),
    )
    return "<table>" + "".join(f"<tr><th>{k}</th><td>{_escape(v)}</td></tr>" for k, v in rows) + "</table>"


def _caveats(run: ImageRun, data: Dataset) -> str:
    out = []
    tests = len(data.test.labels)
    if tests < FEW:
        out.append(f"Only {tests} test images: a figure may be off by {1 / np.sqrt(tests):.0%} by chance alone.")
    counts = np.array(run.facts["images"]["train"])
    if none := data.without_images:
        out.append(f"{len(none)} of {len(run.classes)} classes have no image to train on ({some(none)}).")
    held = np.where(counts > 0, counts, counts.max())
    if held.min() * 10 <= held.max():
        out.append(
            f"The classes are unbalanced: {held.max():,} images of {run.classes[counts.argmax()]}, {held.min():,} "
            f"of {run.classes[held.argmin()]}. Judge by the mean over the classes."
        )
    tested = np.array(run.facts["images"]["test"])
    if rare := [name for name, count in zip(run.classes, tested, strict=True) if count < FEW_OF_A_CLASS]:
        out.append(
            f"{len(rare)} of {len(run.classes)} classes have under {FEW_OF_A_CLASS} test images ({some(rare)}): their "
            "figures and the mean over the classes are shaky."
        )
    out += data.doubles.lines(tests)
    if data.held_out:
        out.append("The test images were held out; none of them has a twin in training.")
    said = "".join(f"<p class='caveat'>{_escape(line)}</p>" for line in out)
    if not data.broken:
        return said
    lost = "".join(f"<li>{_escape(name)}: {_escape(reason)}</li>" for name, reason in data.broken)
    return (
        f"{said}<details class='caveat'><summary>{len(data.broken)} images could not be read and were left out"
        f"</summary><ul>{lost}</ul></details>"
    )


def _charts(run: ImageRun, data: Dataset, chances: Float[ndarray, "image class"]) -> str:
    epochs = run.facts["epochs"]
    loss = Chart(
        "Loss by epoch", "epoch", "loss", [Line([(e["epoch"], e["loss"]) for e in epochs], "#b5522b", dots=True)]
    )
    told = Chart(
        "Accuracy by epoch, by one view of each image",
        "epoch",
        "told right by one view, %",
        [Line([(e["epoch"], 100 * e["accuracy"]) for e in epochs if e["accuracy"] is not None], "#2b6cb0", dots=True)],
        y_least=0.0,
        y_most=100.0,
    )
    chance, right = chances.max(axis=1), chances.argmax(axis=1) == data.test.labels
    place = np.minimum((chance * BINS).astype(int), BINS - 1)
    count = np.bincount(place, minlength=BINS)
    held = count > 0
    points = list(
        zip(
            np.bincount(place, chance, BINS)[held] / count[held],
            np.bincount(place, right, BINS)[held] / count[held],
            strict=True,
        )
    )
    honest = Chart(
        "How often the likeliest class is right, by its chance",
        "chance it gave",
        "share that came true",
        [Line([(0, 0), (1, 1)], "#5c6a73", dashed=True), Line(points, "#2b8a3e", dots=True)],
        x_range=(0, 1),
        y_range=(0, 1),
    )
    return "".join(f"<div>{svg(chart)}</div>" for chart in (loss, told, honest))


def _confusion(classes: tuple[str, ...], found: Judgement) -> str:
    matrix = found.confusion
    share = matrix / np.maximum(1, matrix.sum(axis=1, keepdims=True))
    pairs = _pairs(classes, matrix)
    if len(classes) > MOST_CLASSES:
        return f"<p>{len(classes)} classes; the pairs that are confused most:</p>{pairs}"
    head = "".join(f"<th class='up'>{_named(name)}</th>" for name in classes)
    rows = "".join(
        f"<tr><th>{_named(name)}</th>"
        + "".join(
            f"<td style='background:{_shade(share[i, j], right=i == j)}'>{matrix[i, j] or ''}</td>"
            for j in range(len(classes))
        )
        + "</tr>"
        for i, name in enumerate(classes)
    )
    return (
        "<p>Rows: what an image is. Columns: what it was taken for.</p>"
        f"<div class='scroll'><table class='confusion'><tr><td></td>{head}</tr>{rows}</table></div>{pairs}"
    )


def _pairs(classes: tuple[str, ...], matrix: ndarray) -> str:
    wrong = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-wrong, axis=None, kind="stable")[:MOST_PAIRS]
    lines = [
        f"<li>{_escape(classes[i])} taken for {_escape(classes[j])}: {wrong[i, j]} of {matrix[i].sum()}</li>"
        for i, j in zip(*np.unravel_index(order, wrong.shape), strict=True)
        if wrong[i, j]
    ]
    return f"<ul>{''.join(lines[: MOST_PAIRS if len(classes) > MOST_CLASSES else 6])}</ul>" if lines else ""


def _shade(share: float, *, right: bool) -> str:
    """Return a colour: from white to green where right, to red where wrong."""
    ends = (107, 176, 112) if right else (214, 92, 72)
    depth = float(np.sqrt(share))  # the few wrong ones are to be seen
    return "#" + "".join(f"{round(255 + depth * (end - 255)):02x}" for end in ends)


def _classes(run: ImageRun, found: Judgement) -> str:
    trained = run.facts["images"]["train"]
    rows = "".join(
        f"<tr><th>{_named(name)}</th><td class='n'>{trained[i]:,}</td><td class='n'>{found.confusion[i].sum():,}</td>"
        f"<td class='n'>{_share(found.recall[i])}</td><td class='n'>{_share(found.precision[i])}</td></tr>"
        for i, name in enumerate(run.classes)
    )
    return (
        "<table><tr><th>class</th><th>trained on</th><th>tested on</th><th>found of these</th><th>right when named</th>"
        f"</tr>{rows}</table>"
    )


def _share(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.1%}"


def _mistakes(run: ImageRun, data: Dataset, chances: Float[ndarray, "image class"]) -> str:
    labels = data.test.labels
    guess = chances.argmax(axis=1)
    wrong = np.flatnonzero(guess != labels)
    order = wrong[np.argsort(-chances[wrong, guess[wrong]], kind="stable")][:MOST_MISTAKES]
    out = []
    for i in order:
        said = f"{run.classes[guess[i]]} {chances[i, guess[i]]:.0%}, is {run.classes[labels[i]]}"
        name = f"<br><small>{_escape(data.test.names[i])}</small>" if data.test.names else ""
        out.append(
            f"<figure><img src='{_address(data.test.images[i])}' alt='{_escape(said)}'>"
            f"<figcaption>{_escape(said)}{name}</figcaption></figure>"
        )
    if not out:
        return "<p>None: every test image was told right.</p>"
    return f"<div class='mistakes'>{''.join(out)}</div>"


def _address(image: UInt8[ndarray, "y x channel"]) -> str:
    picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    edge = max(picture.size)
    if edge > SHOWN_EDGE:
        picture.thumbnail((SHOWN_EDGE, SHOWN_EDGE))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _choices(run: ImageRun) -> str:
    facts = run.facts
    recipe = facts["recipe"]
    height, width, channels = run.shape
    lines = (
        f"images of {width}×{height} pixels, {'grey' if channels == 1 else 'colour'}",
        f"{recipe['epochs']:.3g} epochs in batches of {recipe['batch']}, seed {facts['seed']}",
        f"network of {facts['weights']:,} weights, widths {', '.join(map(str, recipe['net']['widths']))}, "
        f"{recipe['net']['activation']}",
        f"views that are averaged: {recipe['views']}; temperature {facts['temperature']:.3g}",
    )
    return "<ul>" + "".join(f"<li>{_escape(line)}</li>" for line in lines) + "</ul>"


def _named(name: str) -> str:
    """Return a class's name for a table: one that is too long is cut by the page, and told whole beside the pointer."""
    return f"<span class='name' title='{_escape(name)}'>{_escape(name)}</span>"


def _escape(text: str) -> str:
    return html.escape(text, quote=True)
