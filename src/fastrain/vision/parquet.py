"""Image data sets in Parquet, in the layout of `uoft-cs/cifar10` and those like it."""

from __future__ import annotations

import re
from pathlib import Path

from fastrain.core.errors import DamagedFile, first_line
from fastrain.vision.cifar import CIFAR10
from fastrain.vision.images import Reading, decoded
from fastrain.vision.splits import Parts, Picture, Split, split_of

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
    splits: list[Split] = []
    names: tuple[str, ...] | None = None
    broken: list[tuple[str, str]] = []
    held: list[tuple[list[Picture], list[int | str | None]]] = []
    for paths in files:
        rows: list[Picture] = []
        marks: list[int | str | None] = []
        for path in paths:
            more, of_file, names = _parquet_rows(path, names)
            rows += more
            marks += of_file
        if paths:
            held.append((rows, marks))
    known = {mark for _, marks in held for mark in marks if mark is not None}
    classes, number_of = _numbered(known, names, files[0][0].name)
    for paths, (rows, marks) in zip(files, held, strict=False):
        where = f"{paths[0].resolve().parent.name}/{paths[0].stem.split('-')[0]}"
        # What has no label has no picture either, as far as we go.
        rows = [
            row if mark is not None else (f"{row[0]} (its label is null)", b"")
            for row, mark in zip(rows, marks, strict=True)
        ]
        labels = [0 if mark is None else number_of[mark] for mark in marks]
        splits.append(split_of(decoded(rows, where, reading), rows, labels, broken))
    if classes == _NUMBERS and splits[0].images.shape[1:] == (32, 32, 3) and len(splits) == 2:
        # The copies of CIFAR-10 are often written without names; nothing else of ten classes is called so.
        classes = CIFAR10
    return Parts(classes, splits[0], splits[1] if len(splits) > 1 else None, tuple(broken))


_NUMBERS = tuple(map(str, range(len(CIFAR10))))


def _numbered(
    known: set[int | str], names: tuple[str, ...] | None, file: str
) -> tuple[tuple[str, ...], dict[int | str, int]]:
    """Return the names of the classes, and the class of each label: its name, a number of names, or just a number."""
    if len({type(mark) for mark in known}) > 1:
        raise DamagedFile(f"{file}: labels as text in one file, as numbers in another.")
    numbers = sorted(mark for mark in known if isinstance(mark, int))
    if numbers and numbers[0] < 0:
        raise DamagedFile(f"{file}: has a label of {numbers[0]}, expected 0 or more.")
    if numbers and names is not None:
        if numbers[-1] >= len(names):
            raise DamagedFile(f"{file}: has a label of {numbers[-1]}, and names of {len(names)} classes.")
        return names, {number: number for number in numbers}
    ordered = sorted(known, key=lambda mark: (isinstance(mark, str), mark))
    if len(ordered) > MOST_CLASSES:
        raise DamagedFile(f"{file}: {len(ordered)} different labels, expected {MOST_CLASSES} classes at most.")
    return tuple(map(str, ordered)), {mark: i for i, mark in enumerate(ordered)}


def _parquet_rows(
    path: Path, names: tuple[str, ...] | None
) -> tuple[list[Picture], list[int | str | None], tuple[str, ...] | None]:
    import json

    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise DamagedFile(f"{path.name}: truncated, or no Parquet file ({first_line(error)}).") from None
    image = next((name for name in ("img", "image") if name in table.column_names), None)
    label = next((name for name in ("label", "labels", "fine_label") if name in table.column_names), None)
    if image is None or label is None:
        held = ", ".join(table.column_names)
        raise DamagedFile(
            f"{path.name}: has columns {held}; expected img or image (a picture's bytes, or {{bytes, path}}), and "
            "label."
        )
    rows: list[Picture] = []
    for i, held in enumerate(table.column(image).to_pylist()):
        contents = held.get("bytes") if isinstance(held, dict) else held
        if contents is not None and not isinstance(contents, bytes):
            raise DamagedFile(f"{path.name}: {image} of row {i} is no picture's bytes, nor {{bytes, path}} with them.")
        rows.append((f"{path.name}, image {i}", contents or b""))
    marks = [_mark(mark, f"{path.name}: {label} of row {i}") for i, mark in enumerate(table.column(label).to_pylist())]
    try:
        said = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"))
        names = tuple(str(name) for name in said["info"]["features"][label]["names"])
    except (ValueError, LookupError, TypeError):
        pass  # without names of its own
    return rows, marks, names


def _mark(held: object, where: str) -> int | str | None:
    """Return a label: a whole number, a name, or None where there is none."""
    if held is None or isinstance(held, str):
        return held
    if isinstance(held, int | float) and held == held // 1:
        return int(held)
    raise DamagedFile(f"{where} is {held!r}; expected a whole number, or the class's name.")
