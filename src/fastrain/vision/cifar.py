"""CIFAR-10 as its authors publish it: python pickles, or records of a label and 3,072 bytes."""

from __future__ import annotations

import codecs
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy import ndarray

from fastrain.core.errors import DamagedFile, UsageError, first_line

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def batches_at(path: Path) -> Path | None:
    """Return the folder of the batches, at a path or under it; None where there are none."""
    for folder in (path, path / "cifar-10-batches-py", path / "cifar-10-batches-bin"):
        if (folder / "data_batch_1").is_file() or (folder / "data_batch_1.bin").is_file():
            return folder
    archives = [*path.glob("cifar-10-python.tar.gz"), *path.glob("cifar-10-binary.tar.gz")]
    if archives:
        raise UsageError(f"{archives[0]}: unpack it first: tar -xzf {archives[0]} -C {path}")
    return None


def names_of(folder: Path) -> tuple[str, ...]:
    """Return the names of the classes that stand beside batches, CIFAR-10's own where none do.

    Raises:
        DamagedFile: they cannot be read.
    """
    pickled, plain = folder / "batches.meta", folder / "batches.meta.txt"
    try:
        if pickled.is_file():
            with pickled.open("rb") as file:
                held = [bytes(name).decode() for name in _Plain(file, encoding="bytes").load()[b"label_names"]]
        elif plain.is_file():
            held = [line.strip() for line in plain.read_text(encoding="utf-8").splitlines() if line.strip()]
        else:
            return CIFAR10
    except (OSError, pickle.UnpicklingError, EOFError, *_OF_PICKLES) as error:
        raise DamagedFile(
            f"{pickled if pickled.is_file() else plain}: the classes' names cannot be read ({first_line(error)}); mend "
            "it, or take it away."
        ) from None
    return tuple(held) or CIFAR10


def batches(folder: Path) -> tuple[tuple[ndarray, ndarray], tuple[ndarray, ndarray]]:
    """Return images and labels to train on, and to test on.

    Raises:
        DamagedFile: a file is truncated, or not what its name says.
    """
    binary = (folder / "data_batch_1.bin").is_file()
    read: Callable[[Path], tuple[ndarray, ndarray]] = _binary_batch if binary else _python_batch
    suffix = ".bin" if binary else ""
    train = [read(folder / f"data_batch_{i}{suffix}") for i in range(1, 6)]
    images, labels = (np.concatenate(parts) for parts in zip(*train, strict=True))
    return (images, labels), read(folder / f"test_batch{suffix}")


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
    pixels = data[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(pixels), data[:, 0].astype(np.int64)
