"""What a run says of picture files."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from fastrain.core.errors import DamagedFile, SourceError, UsageError
from fastrain.core.shapes import Float
from fastrain.vision.images import SUFFIXES, not_read, picture, pictures_in
from fastrain.vision.run import ImageRun

_AT_ONCE = 256  # pictures that are held at a time, however many there are


@dataclass(frozen=True)
class Prediction:
    """What a run says of one picture.

    Attributes:
        file: as it was named.
        chances: of the classes, in the run's order.
        scaled: the picture was of another size than the run's images, and brought to it.
    """

    file: Path
    chances: Float[ndarray, class_]
    scaled: bool


def pictures_under(paths: Sequence[Path]) -> list[Path]:
    """Return the picture files among paths: files as they are, of folders all that look like pictures.

    Raises:
        UsageError: a path is not there, or no picture is.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += pictures_in(path)
        elif path.exists():
            files.append(path)
        else:
            raise UsageError(f"{path}: no such file or folder.")
    if not files:
        others = [line for path in paths if path.is_dir() for line in not_read(path)]
        raise UsageError(" ".join([f"{paths[0]}: no picture ({', '.join(SUFFIXES)}) is there.", *others[:1]]))
    return files


def predict(
    run: ImageRun,
    files: Sequence[Path],
    *,
    broken: Callable[[Path, str], None],
    progress: Callable[[int, int, str], None] = lambda *_: None,
) -> Iterator[Prediction]:
    """Yield what a run says of pictures, a few hundred at a time.

    Args:
        run: see there.
        files: of the pictures; another size is cut and scaled to the run's, grey and colour brought to its own.
        broken: called with each file that cannot be read, and why.
        progress: called with files done, files in all, and a word.
    """
    height, width, channels = run.shape
    for start in range(0, len(files), _AT_ONCE):
        held: list[tuple[Path, ndarray, bool]] = []
        for file in files[start : start + _AT_ONCE]:
            try:
                pixels, scaled = picture(file, (height, width), channels)
            except DamagedFile as error:
                broken(file, str(error))
            else:
                held.append((file, pixels, scaled))
        if held:
            chances = run.chances(np.stack([pixels for _, pixels, _ in held]))
            for (file, _, scaled), row in zip(held, chances, strict=True):
                yield Prediction(file, row, scaled)
        progress(min(len(files), start + _AT_ONCE), len(files), "pictures")


def as_attributes(run: ImageRun, found: Prediction) -> dict[str, Any]:
    """Return a prediction as plain values."""
    best = int(found.chances.argmax())
    return {
        "file": str(found.file),
        "class": run.classes[best],
        "chance": float(found.chances[best]),
        "chances": {name: float(c) for name, c in zip(run.classes, found.chances, strict=True)},
        "scaled": found.scaled,
    }


def as_csv(run: ImageRun, found: Sequence[Prediction]) -> str:
    """Return predictions as a table: file, class, chance, and the chance of every class."""
    file = io.StringIO()
    table = csv.writer(file, lineterminator="\n")
    table.writerow(["file", "class", "chance", *(f"chance of {name}" for name in run.classes)])
    for one in found:
        best = int(one.chances.argmax())
        table.writerow([one.file, run.classes[best], f"{one.chances[best]:.6f}", *(f"{c:.6f}" for c in one.chances)])
    return file.getvalue()


def refuse_none(found: Sequence[object], files: Sequence[Path]) -> None:
    """Refuse where not one picture could be read.

    Raises:
        SourceError: so it is.
    """
    if not found:
        raise SourceError(f"None of {len(files)} pictures could be read.")
