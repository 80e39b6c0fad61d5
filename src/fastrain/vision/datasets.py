"""Image data sets as bytes: the Parquet layout of `uoft-cs/cifar10`, CIFAR-10's own batches, folders of images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy import ndarray

from fastrain.core.errors import DamagedFile, SourceError, UsageError, first_line
from fastrain.core.shapes import Int, UInt8
from fastrain.vision.cifar import CIFAR10, batches, batches_at
from fastrain.vision.images import Decoded, Reading, decoded, pictures_in, shape_of

TEST_FOLDERS = ("test", "val", "valid", "validation")
MOST_CLASSES = 10_000


@dataclass(frozen=True)
class Split:
    """Images and their classes.

    Attributes:
        images: (image, y, x, channel) bytes.
        labels: the class of each.
        names: of each, where they have one.
    """

    images: UInt8[ndarray, "image y x channel"]
    labels: Int[ndarray, image]
    names: tuple[str, ...] = ()

    def take(self, places: Int[ndarray, chosen]) -> Split:
        """Return some of the images."""
        names = tuple(self.names[i] for i in places) if self.names else ()
        return Split(self.images[places], self.labels[places], names)


@dataclass(frozen=True)
class Dataset:
    """A data set: what to train on and what to test on.

    Attributes:
        name: to show beside its figures: the folder's.
        classes: their names.
        train: see `Split`.
        test: see `Split`.
        held_out: the test part was taken from the one to train on, as the data set has none.
        broken: name and reason of each image that was left out.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    test: Split
    held_out: bool = False
    broken: tuple[tuple[str, str], ...] = ()

    @property
    def identity(self) -> str:
        """Digest of images, classes and the parting."""
        digest = hashlib.blake2b(repr(self.classes).encode(), digest_size=8)
        for split in (self.train, self.test):
            digest.update(repr(split.images.shape).encode())
            digest.update(np.ascontiguousarray(split.images).data)
            digest.update(np.ascontiguousarray(split.labels).data)
        return digest.hexdigest()


@dataclass(frozen=True)
class _Parts:
    """What a layout gives: both splits, or one that a test part has yet to be taken from."""

    classes: tuple[str, ...]
    train: Split
    test: Split | None
    broken: tuple[tuple[str, str], ...] = ()


def open_dataset(path: Path, reading: Reading | None = None) -> Dataset:
    """Return the data set at a path, whichever of the layouts it has.

    Args:
        path: a folder with train*.parquet and test*.parquet; with CIFAR-10's python or binary batches; with folders
            train and test (or val) that hold a folder of images for each class; or with those folders of images alone.
            Or one Parquet file. What has no test part is parted.
        reading: see there.

    Raises:
        UsageError: nothing of the kind is there.
        DamagedFile: a file of it cannot be read.
    """
    reading = reading or Reading()
    if not path.exists():
        raise UsageError(f"{path}: no such folder; a data set is a folder of Parquet files, CIFAR batches, or images.")
    for opens, reads in LAYOUTS:
        found = opens(path)
        if found is None:
            continue
        parts = reads(found, reading)
        name = _called(path)
        held_out = parts.test is None
        train, test = (parts.train, parts.test) if parts.test else _parted(parts, name, reading.hold_out)
        train, test = _alike(train, test)
        return _checked(Dataset(name, parts.classes, train, test, held_out, parts.broken))
    raise UsageError(
        f"{path}: no data set that is known: train*.parquet and test*.parquet, CIFAR-10's data_batch_1 … test_batch "
        "(or .bin), folders train/CLASS and test/CLASS of images, or CLASS/ alone."
    )


def _checked(data: Dataset) -> Dataset:
    """Return a data set whose splits fit each other and its classes."""
    for which, split in (("train", data.train), ("test", data.test)):
        if not len(split.labels):
            raise DamagedFile(f"{data.name}: {which} holds no image.")
        low, high = int(split.labels.min()), int(split.labels.max())
        if low < 0 or high >= len(data.classes):
            raise DamagedFile(
                f"{data.name}: {which} has labels from {low} to {high}, expected 0 to {len(data.classes) - 1}."
            )
    if len(np.unique(data.train.labels)) < 2:
        raise SourceError(f"{data.name}: all images to train on are of one class; there is nothing to tell apart.")
    train, test = (shape_of(split.images) for split in (data.train, data.test))
    if train != test:
        raise DamagedFile(f"{data.name}: train is of {train}, test of {test}; both must be the same.")
    return data


def _alike(train: Split, test: Split) -> tuple[Split, Split]:
    """Return both in colour where one is: a split whose images all happen to be grey has one channel."""
    if train.images.shape[3] == test.images.shape[3]:
        return train, test
    most = max(train.images.shape[3], test.images.shape[3])
    wide = [replace(s, images=np.repeat(s.images, most // s.images.shape[3], axis=3)) for s in (train, test)]
    return wide[0], wide[1]


def _parted(parts: _Parts, name: str, hold_out: float) -> tuple[Split, Split]:
    """Part a split in two: the same share of every class, the same images whatever their order.

    Images that are the same to the byte go the same way, so that none is judged by its twin.
    """
    split = parts.train
    digests = np.array([hashlib.blake2b(image.tobytes(), digest_size=8).digest() for image in split.images])
    order = np.argsort(digests, kind="stable")
    test = np.zeros(len(order), bool)
    for label in range(len(parts.classes)):
        own = order[split.labels[order] == label]
        unique = np.unique(digests[own])
        if len(unique) > 1:
            count = min(len(unique) - 1, max(1, round(hold_out * len(unique))))
            test[np.isin(digests, unique[:count])] = True
    if not test.any() or test.all():
        raise SourceError(f"{name}: too few images to keep some to test on; two different ones a class at least.")
    return split.take(np.flatnonzero(~test)), split.take(np.flatnonzero(test))


def _parquet_at(path: Path) -> list[list[Path]] | None:
    """Return the files to train on and to test on."""
    if path.suffix == ".parquet" and path.is_file():
        return [[path], []]
    for folder in (path, path / "data", path / "plain_text"):
        if train := sorted(folder.glob("train*.parquet")):
            return [train, sorted(folder.glob("test*.parquet")) or sorted(folder.glob("valid*.parquet"))]
    return None


def _parquet(files: list[list[Path]], reading: Reading) -> _Parts:
    splits: list[Split] = []
    names: tuple[str, ...] | None = None
    broken: list[tuple[str, str]] = []
    for paths in files:
        rows: list[tuple[str, bytes | Path]] = []
        labels: list[int] = []
        for path in paths:
            more, marks, names = _parquet_rows(path, names)
            rows += more
            labels += marks
        if paths:
            where = f"{paths[0].resolve().parent.name}/{paths[0].stem.split('-')[0]}"
            splits.append(_split(decoded(rows, where, reading), rows, labels, broken))
    count = int(max(split.labels.max() for split in splits)) + 1
    if count > MOST_CLASSES:
        raise DamagedFile(f"{files[0][0].name}: a label of {count - 1}, expected 0 to {MOST_CLASSES - 1} at most.")
    # The copies of CIFAR-10 are often written without names; nothing else of ten classes is called so.
    cifar = count == len(CIFAR10) and splits[0].images.shape[1:] == (32, 32, 3) and len(splits) == 2
    classes = names or (CIFAR10 if cifar else tuple(map(str, range(count))))
    return _Parts(classes, splits[0], splits[1] if len(splits) > 1 else None, tuple(broken))


def _split(
    found: Decoded, rows: list[tuple[str, bytes | Path]], labels: list[int], broken: list[tuple[str, str]]
) -> Split:
    broken += found.broken
    return Split(found.images, np.array(labels, np.int64)[found.kept], tuple(rows[i][0] for i in found.kept))


def _parquet_rows(
    path: Path, names: tuple[str, ...] | None
) -> tuple[list[tuple[str, bytes | Path]], list[int], tuple[str, ...] | None]:
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
        raise DamagedFile(f"{path.name}: has columns {held}; expected img (bytes of a picture) and label.")
    try:
        pictures = table.column(image).to_pylist()
        rows: list[tuple[str, bytes | Path]] = [
            (f"{path.name}, image {i}", memoryview(row["bytes"]).tobytes()) for i, row in enumerate(pictures)
        ]
        marks = [int(mark) for mark in table.column(label).to_pylist()]
    except (TypeError, KeyError, ValueError):
        raise DamagedFile(f"{path.name}: expected {image} as {{bytes, path}} and {label} as a number.") from None
    try:
        said = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"))
        names = tuple(str(name) for name in said["info"]["features"][label]["names"])
    except (ValueError, LookupError, TypeError):
        pass  # without names of its own
    return rows, marks, names


def _batches(folder: Path, reading: Reading) -> _Parts:
    train, test = batches(folder)
    if reading.edge not in (None, train[0].shape[1]):
        raise UsageError(f"--edge {reading.edge}: {folder.name} holds images of one size, 32×32 pixels; leave it out.")
    return _Parts(CIFAR10, Split(*train), Split(*test))


def _folders_at(path: Path) -> list[Path] | None:
    """Return the folder to train on, and the one to test on where there is one."""
    if not path.is_dir():
        return None
    # Pictures in train/ itself make it a class that is called so.
    if (path / "train").is_dir() and _folders_in(path / "train"):
        test = [path / name for name in TEST_FOLDERS if (path / name).is_dir()]
        return [path / "train", *test[:1]]
    return [path] if _folders_in(path) else None


def without_pictures(path: Path) -> list[Path]:
    """Return the folders beside a data set's classes that hold no picture, and so are none of them."""
    beside = (folder for top in _folders_at(path) or [] for folder in _shown_folders(top))
    no_class = (folder for folder in beside if folder.name not in TEST_FOLDERS and not (folder / "run.json").exists())
    return sorted(folder for folder in no_class if not pictures_in(folder))


def _folders_in(path: Path) -> list[Path]:
    """Return the folders in a folder that hold a picture; one without is a run, a cache, anything but a class."""
    return sorted(folder for folder in _shown_folders(path) if pictures_in(folder))


def _shown_folders(path: Path) -> Iterator[Path]:
    return (folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith("."))


def _folders(found: list[Path], reading: Reading) -> _Parts:
    classes = tuple(folder.name for folder in _folders_in(found[0]))
    if len(classes) < 2:
        raise SourceError(f"{found[0]}: {len(classes)} classes; expected a folder of images for each of two or more.")
    for other in found[1:]:
        unknown = sorted({folder.name for folder in _folders_in(other)} - set(classes))
        if unknown:
            raise SourceError(f"{other}: class {unknown[0]} is not in {found[0].name}.")
    splits: list[Split] = []
    broken: list[tuple[str, str]] = []
    for folder in found:
        files = [(f, label) for label, name in enumerate(classes) for f in pictures_in(folder / name)]
        rows: list[tuple[str, bytes | Path]] = [(str(file.relative_to(folder)), file) for file, _ in files]
        where = f"{folder.parent.name}/{folder.name}" if len(found) > 1 else folder.resolve().name
        splits.append(_split(decoded(rows, where, reading), rows, [label for _, label in files], broken))
    return _Parts(classes, splits[0], splits[1] if len(splits) > 1 else None, tuple(broken))


def _called(path: Path) -> str:
    """Return what to call a data set; the lossy copies are never plain CIFAR-10."""
    path = path.resolve()
    while path.name in ("data", "plain_text", "cifar-10-batches-py", "cifar-10-batches-bin") and path.parent != path:
        path = path.parent
    return "CIFAR-10 (JPEG copies)" if path.name == "cifar10-jpeg" else path.name


Layout = tuple[Callable[[Path], object | None], Callable[..., _Parts]]
LAYOUTS: tuple[Layout, ...] = ((_parquet_at, _parquet), (batches_at, _batches), (_folders_at, _folders))
