"""Image data sets as bytes: the Parquet layout of `uoft-cs/cifar10`, CIFAR-10's own batches, folders of images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from fastrain.core.errors import DamagedFile, SourceError, UsageError
from fastrain.vision.cifar import batches, batches_at, names_of
from fastrain.vision.folders import folders, folders_at
from fastrain.vision.images import NAMED, Reading, not_read, shape_of
from fastrain.vision.parquet import parquet, parquet_at
from fastrain.vision.splits import Parts, Split


def some(names: Sequence[str]) -> str:
    """Return the first of names, as a sentence lists them."""
    return f"{', '.join(names[:NAMED])}{' and others' if len(names) > NAMED else ''}"


@dataclass(frozen=True)
class Doubles:
    """Images that are there more than once, to the byte.

    Attributes:
        tested: of the test images, how many are among those to train on, too.
        contradictory: how many images are of more than one class.
    """

    tested: int
    contradictory: int

    def lines(self, tests: int) -> list[str]:
        """Return what they mean for the figures, a line each."""
        out = []
        if self.tested:
            out.append(
                f"{self.tested:,} of {tests:,} test images are among those to train on, too, to the byte: how right it "
                "is on them says nothing of pictures that it never saw; take them out of one of both."
            )
        if self.contradictory:
            out.append(
                f"{self.contradictory:,} image{'s are' if self.contradictory > 1 else ' is'} in more than one class, "
                "to the byte: one of the labels is wrong."
            )
        return out


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
        notes: lines on what else was passed over.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    test: Split
    held_out: bool = False
    broken: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    @cached_property
    def doubles(self) -> Doubles:
        """Images that are there twice, to the byte, where that matters."""
        first: dict[bytes, int] = {}  # label of each image
        contradictory: set[bytes] = set()
        tested = 0
        for split in self._splits:
            trained = set(first) if split is self.test else set()
            for image, label in zip(split.images, split.labels, strict=True):
                digest = hashlib.blake2b(image.tobytes(), digest_size=16).digest()
                tested += digest in trained
                if first.setdefault(digest, int(label)) != label:
                    contradictory.add(digest)
        return Doubles(tested, len(contradictory))

    @property
    def without_images(self) -> tuple[str, ...]:
        """Names of the classes that have no image to train on."""
        counts = np.bincount(self.train.labels, minlength=len(self.classes))
        return tuple(name for name, count in zip(self.classes, counts, strict=True) if not count)

    @property
    def _splits(self) -> tuple[Split, Split]:
        return self.train, self.test

    @property
    def identity(self) -> str:
        """Digest of images, classes and the parting."""
        digest = hashlib.blake2b(repr(self.classes).encode(), digest_size=8)
        for split in self._splits:
            digest.update(repr(split.images.shape).encode())
            digest.update(np.ascontiguousarray(split.images).data)
            digest.update(np.ascontiguousarray(split.labels).data)
        return digest.hexdigest()


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
        return _checked(Dataset(name, parts.classes, train, test, held_out, parts.broken, parts.notes))
    others = " ".join(not_read(path)) if path.is_dir() else ""
    raise UsageError(
        f"{path}: no data set that is known: train*.parquet and test*.parquet, CIFAR-10's data_batch_1 … test_batch "
        f"(or .bin), folders train/CLASS and test/CLASS of images, or CLASS/ alone.{f' {others}' if others else ''}"
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


def _parted(parts: Parts, name: str, hold_out: float) -> tuple[Split, Split]:
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


def _batches(folder: Path, reading: Reading) -> Parts:
    train, test = batches(folder)
    classes = names_of(folder)
    if reading.edge not in (None, train[0].shape[1]):
        raise UsageError(f"--edge {reading.edge}: {folder.name} holds images of one size, 32×32 pixels; leave it out.")
    return Parts(classes, Split(*train), Split(*test))


def _called(path: Path) -> str:
    """Return what to call a data set; the lossy copies are never plain CIFAR-10."""
    path = path.resolve()
    while path.name in ("data", "plain_text", "cifar-10-batches-py", "cifar-10-batches-bin") and path.parent != path:
        path = path.parent
    return "CIFAR-10 (JPEG copies)" if path.name == "cifar10-jpeg" else path.name


Layout = tuple[Callable[[Path], object | None], Callable[..., Parts]]
LAYOUTS: tuple[Layout, ...] = ((parquet_at, parquet), (batches_at, _batches), (folders_at, folders))
