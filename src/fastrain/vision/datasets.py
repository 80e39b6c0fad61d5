"""Image data sets as bytes: the Parquet layout of `uoft-cs/cifar10`, CIFAR-10's own batches, a folder of images."""

from __future__ import annotations

import codecs
import io
import pickle
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy import ndarray
from PIL import Image, UnidentifiedImageError

from fastrain.core.errors import DamagedFile, SourceError, TooBig, UsageError, first_line
from fastrain.core.memory import available_bytes
from fastrain.core.shapes import Int, UInt8

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")


@dataclass(frozen=True)
class Split:
    """Images and their classes.

    Attributes:
        images: (image, y, x, channel) bytes.
        labels: the class of each.
    """

    images: UInt8[ndarray, "image y x channel"]
    labels: Int[ndarray, image]


@dataclass(frozen=True)
class Dataset:
    """A data set: what to train on and what to test on.

    Attributes:
        name: to show beside its figures: the folder's.
        classes: their names.
        train: see `Split`.
        test: see `Split`.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    test: Split


def open_dataset(path: Path) -> Dataset:
    """Return the data set at a path, whichever of the layouts it has.

    Args:
        path: a folder with train*.parquet and test*.parquet; with CIFAR-10's python or binary batches; or with folders
            train and test that hold a folder of images for each class.

    Raises:
        UsageError: nothing of the kind is there.
        DamagedFile: a file of it cannot be read.
    """
    if not path.is_dir():
        raise UsageError(f"{path}: no such folder; a data set is a folder of Parquet files, CIFAR batches, or images.")
    for opens, reads in LAYOUTS:
        found = opens(path)
        if found is not None:
            return _checked(replace(reads(found), name=_called(path)))
    raise UsageError(
        f"{path}: no data set that is known: train*.parquet and test*.parquet, CIFAR-10's data_batch_1 … test_batch "
        "(or .bin), or folders train/CLASS and test/CLASS of images."
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
    train, test = (_shape(split.images) for split in (data.train, data.test))
    if train != test:
        raise DamagedFile(f"{data.name}: train is of {train}, test of {test}; both must be the same.")
    return data


def _shape(images: UInt8[ndarray, "image y x channel"]) -> str:
    height, width, channels = images.shape[1:]
    return f"{width}×{height} pixels, {'grey' if channels == 1 else 'colour'}"


def _parquet_at(path: Path) -> Path | None:
    for folder in (path, path / "data", path / "plain_text"):
        if any(folder.glob("train*.parquet")) and any(folder.glob("test*.parquet")):
            return folder
    return None


def _parquet(folder: Path) -> Dataset:
    splits = {}
    names: tuple[str, ...] | None = None
    for which in ("train", "test"):
        encoded: list[bytes] = []
        labels: list[int] = []
        for path in sorted(folder.glob(f"{which}*.parquet")):
            rows, marks, names = _parquet_rows(path, names)
            encoded += rows
            labels += marks
        splits[which] = Split(_decoded(encoded, f"{folder.name}/{which}"), np.array(labels, np.int64))
    count = int(max(split.labels.max() for split in splits.values())) + 1
    classes = names or (CIFAR10 if count == len(CIFAR10) else tuple(map(str, range(count))))
    return Dataset(folder.name, classes, splits["train"], splits["test"])


def _parquet_rows(path: Path, names: tuple[str, ...] | None) -> tuple[list[bytes], list[int], tuple[str, ...] | None]:
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
        rows = [row["bytes"] for row in table.column(image).to_pylist()]
        marks = [int(mark) for mark in table.column(label).to_pylist()]
    except (TypeError, KeyError, ValueError):
        raise DamagedFile(f"{path.name}: expected {image} as {{bytes, path}} and {label} as a number.") from None
    try:
        said = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"))
        names = tuple(str(name) for name in said["info"]["features"][label]["names"])
    except (ValueError, LookupError, TypeError):
        pass  # without names of its own
    return rows, marks, names


def _decoded(encoded: Sequence[bytes], where: str) -> UInt8[ndarray, "image y x channel"]:
    """Return pictures of one size as bytes; the library lets go of the interpreter while it decodes."""
    if not encoded:
        raise DamagedFile(f"{where}: holds no image.")
    first = _image(encoded[0], f"{where}, image 0")
    if first.shape[0] * first.shape[1] * 3 * len(encoded) > available_bytes():
        raise TooBig(f"{where}: {len(encoded)} images of {_shape(first[None])} do not fit into memory.")
    images = np.empty((len(encoded), *first.shape[:2], 3), np.uint8)
    grey = np.zeros(len(encoded), bool)

    def put(start: int) -> None:
        for i in range(start, min(start + 500, len(encoded))):
            image = _image(encoded[i], f"{where}, image {i}")
            if image.shape[:2] != first.shape[:2]:
                raise DamagedFile(
                    f"{where}, image {i}: {image.shape[1]}×{image.shape[0]} pixels, the first has "
                    f"{first.shape[1]}×{first.shape[0]}; a data set is of one size."
                )
            images[i] = image  # a grey one in each of the three
            grey[i] = image.shape[2] == 1

    with ThreadPoolExecutor(2) as pool:
        for _ in pool.map(put, range(0, len(encoded), 500)):
            pass
    return np.ascontiguousarray(images[..., :1]) if grey.all() else images


def _image(data: bytes, where: str) -> UInt8[ndarray, "y x channel"]:
    try:
        with Image.open(io.BytesIO(data)) as image:
            kept = image if image.mode in ("RGB", "L") else image.convert("RGB")
            pixels = np.asarray(kept)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DamagedFile(f"{where}: no picture that can be read ({first_line(error)}).") from None
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def _batches_at(path: Path) -> Path | None:
    for folder in (path, path / "cifar-10-batches-py", path / "cifar-10-batches-bin"):
        if (folder / "data_batch_1").is_file() or (folder / "data_batch_1.bin").is_file():
            return folder
    archives = [*path.glob("cifar-10-python.tar.gz"), *path.glob("cifar-10-binary.tar.gz")]
    if archives:
        raise UsageError(f"{archives[0]}: unpack it first: tar -xzf {archives[0]} -C {path}")
    return None


def _batches(folder: Path) -> Dataset:
    """Read CIFAR-10 as its authors publish it: python pickles, or records of a label and 3,072 bytes."""
    binary = (folder / "data_batch_1.bin").is_file()
    read: Callable[[Path], tuple[ndarray, ndarray]] = _binary_batch if binary else _python_batch
    suffix = ".bin" if binary else ""
    train = [read(folder / f"data_batch_{i}{suffix}") for i in range(1, 6)]
    test = read(folder / f"test_batch{suffix}")
    images, labels = (np.concatenate(parts) for parts in zip(*train, strict=True))
    return Dataset("CIFAR-10", CIFAR10, Split(images, labels), Split(*test))


class _Plain(pickle.Unpickler):
    """Reads numbers, texts and arrays only: a pickle may otherwise run any code."""

    _ALLOWED: ClassVar[dict[tuple[str, str], Any]] = {
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy", "ndarray"): ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): codecs.encode,
        ("__builtin__", "bytes"): bytes,
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"asks for {module}.{name}") from None


# What a damaged pickle has been seen to raise; a MemoryError is one that claims a huge array.
_OF_PICKLES = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
    SystemError,
)


def _python_batch(path: Path) -> tuple[ndarray, ndarray]:
    try:
        with path.open("rb") as file:
            held = _Plain(file, encoding="bytes").load()
        pixels = np.asarray(held[b"data"], np.uint8).reshape(-1, 3, 32, 32)
        labels = np.array(held[b"labels"], np.int64)
    except (OSError, pickle.UnpicklingError, EOFError, *_OF_PICKLES) as error:
        raise DamagedFile(f"{path.name}: no whole batch of CIFAR-10 ({first_line(error)}).") from None
    if len(pixels) != len(labels):
        raise DamagedFile(f"{path.name}: {len(pixels)} images and {len(labels)} labels.")
    return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)), labels


def _binary_batch(path: Path) -> tuple[ndarray, ndarray]:
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise DamagedFile(f"{path.name}: {error.strerror or error}.") from None
    record = 1 + 3 * 32 * 32
    if not data.size or data.size % record:
        raise DamagedFile(f"{path.name}: {data.size} bytes, expected a multiple of {record}; it is truncated.")
    data = data.reshape(-1, record)
    if data[:, 0].max() >= len(CIFAR10):
        raise DamagedFile(f"{path.name}: a label of {data[:, 0].max()}, expected 0 to 9.")
    pixels = data[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(pixels), data[:, 0].astype(np.int64)


def _folders_at(path: Path) -> Path | None:
    return path if (path / "train").is_dir() and (path / "test").is_dir() else None


def _folders(path: Path) -> Dataset:
    classes = tuple(sorted(folder.name for folder in (path / "train").iterdir() if folder.is_dir()))
    if len(classes) < 2:
        raise SourceError(f"{path}/train: {len(classes)} classes; expected a folder of images for each of two or more.")
    unknown = sorted({f.name for f in (path / "test").iterdir() if f.is_dir()} - set(classes))
    if unknown:
        raise SourceError(f"{path}/test: class {unknown[0]} is not in train.")
    splits = []
    for which in ("train", "test"):
        files = [
            (file, label)
            for label, name in enumerate(classes)
            if (path / which / name).is_dir()
            for file in sorted((path / which / name).iterdir())
            if file.suffix.lower() in SUFFIXES
        ]
        images = _decoded([file.read_bytes() for file, _ in files], f"{path.name}/{which}")
        splits.append(Split(images, np.array([label for _, label in files], np.int64)))
    return Dataset(path.name, classes, *splits)


def _called(path: Path) -> str:
    """Return what to call a data set; the lossy copies are never plain CIFAR-10."""
    path = path.resolve()
    while path.name in ("data", "plain_text", "cifar-10-batches-py", "cifar-10-batches-bin") and path.parent != path:
        path = path.parent
    return "CIFAR-10 (JPEG copies)" if path.name == "cifar10-jpeg" else path.name


Layout = tuple[Callable[[Path], Path | None], Callable[[Path], Dataset]]
LAYOUTS: tuple[Layout, ...] = ((_parquet_at, _parquet), (_batches_at, _batches), (_folders_at, _folders))
