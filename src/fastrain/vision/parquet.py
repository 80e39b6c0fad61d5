"""Image data sets in Parquet, in the layout of `uoft-cs/cifar10` and those like it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from fastrain.core.errors import DamagedFile, first_line
from fastrain.vision.cifar import CIFAR10
from fastrain.vision.images import Reading, decoded
from fastrain.vision.splits import Parts, Picture, Split, split_of

IMAGES, LABELS = ("img", "image"), ("label", "labels", "fine_label")  # names of columns, the first that is there
SHARD = re.compile(r"(.+)-(\d+)-of-(\d+)")
MOST_CLASSES = 10_000
MOST_SHARDS = 100_000


def parquet_at(path: Path) -> list[list[Path]] | None:
    """Return the files to train on and to test on."""
    if path.suffix == ".parquet" and path.is_file():
        return [[path], []]
    for folder in (path, path / "data", path / "plain_text"):
        if train := sorted(folder.glob("train*.parquet")):
            test = sorted(folder.glob("test*.parquet")) or sorted(folder.glob("valid*.parquet"))
            _require_all_shards([*train, *test])
            return [train, test]
    return None


def _require_all_shards(files: list[Path]) -> None:
    """See that of files called …-00000-of-00003 none is missing.

    Raises:
        DamagedFile: one is.
    """
    held = {path.stem for path in files}
    for path in files:
        if found := SHARD.fullmatch(path.stem):
            start, number, count = found[1], found[2], int(found[3])
            for i in range(min(count, MOST_SHARDS)):
                other = f"{start}-{i:0{len(number)}d}-of-{found[3]}"
                if other not in held:
                    raise DamagedFile(
                        f"{path.parent / other}.parquet: is missing; {path.name} is one of {count} parts."
                    )


def parquet(files: list[list[Path]], reading: Reading) -> Parts:
    """Return what Parquet files give: those to train on, and those to test on where there are any.

    Raises:
        DamagedFile: a file is none, lacks a column, or has a label that is no class; or a picture cannot be read.
    """
    files = [paths for paths in files if paths]
    names: tuple[str, ...] | None = None
    marks: list[list[Mark]] = []
    for paths in files:
        marks.append([])
        for path in paths:
            of_file, said = _marks(path)
            names = said or names
            marks[-1] += of_file
    classes, number_of = _numbered(marks, names, [paths[0].name for paths in files])
    splits: list[Split] = []
    broken: list[tuple[str, str]] = []
    for paths, of_split in zip(files, marks, strict=True):
        where = f"{paths[0].resolve().parent.name}/{paths[0].stem.split('-')[0]}"
        rows = [row for path in paths for row in _pictures(path)]
        # What has no label has no picture either, as far as we go.
        for i, mark in enumerate(of_split):
            if mark is None:
                rows[i] = f"{rows[i][0]} (its label is null)", b""
        labels = [0 if mark is None else number_of[mark] for mark in of_split]
        splits.append(split_of(decoded(rows, where, reading), rows, labels, broken))
    ten = names is None and number_of == {number: number for number in range(len(CIFAR10))}
    if ten and splits[0].images.shape[1:] == (32, 32, 3) and len(splits) == 2:
        # The copies of CIFAR-10 are often written without names; nothing else of ten classes is called so.
        classes = CIFAR10
    return Parts(classes, splits[0], splits[1] if len(splits) > 1 else None, tuple(broken))


Mark = int | str | None  # a label as a file has it


def _numbered(
    marks: list[list[Mark]], names: tuple[str, ...] | None, files: list[str]
) -> tuple[tuple[str, ...], dict[int | str, int]]:
    """Return the names of the classes, and the class of each label: its name, a number of names, or just a number."""
    known: set[int | str] = set()
    for file, of_split in zip(files, marks, strict=True):
        held = {mark for mark in of_split if mark is not None}
        known |= held
        if len({type(mark) for mark in known}) > 1:
            raise DamagedFile(f"{file}: labels as text beside labels as numbers; expected one kind.")
        numbers = [mark for mark in held if isinstance(mark, int)]
        if numbers and min(numbers) < 0:
            raise DamagedFile(f"{file}: has a label of {min(numbers)}, expected 0 or more.")
        if numbers and names is not None and max(numbers) >= len(names):
            raise DamagedFile(f"{file}: has a label of {max(numbers)}, and names of {len(names)} classes.")
    if names is not None and all(isinstance(mark, int) for mark in known):
        return names, {mark: int(mark) for mark in known}
    ordered = sorted(known, key=lambda mark: (isinstance(mark, str), mark))
    if len(ordered) > MOST_CLASSES:
        raise DamagedFile(f"{files[0]}: {len(ordered)} different labels, expected {MOST_CLASSES} classes at most.")
    return tuple(map(str, ordered)), {mark: i for i, mark in enumerate(ordered)}


def _column(path: Path, names: tuple[str, ...]) -> tuple[list[Any], str, dict[bytes, bytes]]:
    """Return the column of a file that has one of some names, its name, and the file's metadata."""
    import pyarrow
    import pyarrow.parquet

    try:
        schema = pyarrow.parquet.read_schema(path)
        found = next((name for name in names if name in schema.names), None)
        if found is not None:
            return pyarrow.parquet.read_table(path, columns=[found])[found].to_pylist(), found, schema.metadata or {}
    except (pyarrow.ArrowException, OSError) as error:
        raise DamagedFile(f"{path.name}: truncated, or no Parquet file ({first_line(error)}).") from None
    raise DamagedFile(
        f"{path.name}: has columns {', '.join(schema.names)}; expected img or image (a picture's bytes, or "
        "{bytes, path}), and label."
    )


def _marks(path: Path) -> tuple[list[Mark], tuple[str, ...] | None]:
    """Return the labels of a file, and the names of the classes if it has them."""
    held, label, metadata = _column(path, LABELS)
    marks = [_mark(mark, f"{path.name}: {label} of row {i}") for i, mark in enumerate(held)]
    try:
        said = json.loads(metadata.get(b"huggingface", b"{}"))
        return marks, tuple(str(name) for name in said["info"]["features"][label]["names"])
    except (ValueError, LookupError, TypeError):
        return marks, None


def _mark(held: object, where: str) -> Mark:
    """Return a label: a whole number, a name, or None where there is none."""
    if held is None or isinstance(held, str):
        return held
    if isinstance(held, int | float) and held == held // 1:
        return int(held)
    raise DamagedFile(f"{where} is {held!r}; expected a whole number, or the class's name.")


def _pictures(path: Path) -> list[Picture]:
    """Return names and bytes of a file's pictures; no bytes where there is none."""
    rows: list[Picture] = []
    held, image, _ = _column(path, IMAGES)
    for i, row in enumerate(held):
        contents = row.get("bytes", NotImplemented) if isinstance(row, dict) else row
        if contents is not None and not isinstance(contents, bytes):
            raise DamagedFile(f"{path.name}: {image} of row {i} is no picture's bytes, nor {{bytes, path}} with them.")
        rows.append((f"{path.name}, image {i}", contents or b""))
    return rows
