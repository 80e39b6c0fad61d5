"""Small sets of images, written in each layout that is read."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image


def images(count, seed=0, edge=32):
    return np.random.default_rng(seed).integers(0, 256, (count, edge, edge, 3)).astype(np.uint8)


def png(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def write_parquet(path, made, labels):
    rows = [{"bytes": png(image), "path": None} for image in made]
    pyarrow.parquet.write_table(pyarrow.table({"img": rows, "label": list(labels)}), path)


def batches():
    """Names of CIFAR-10's files, and which of 60 images each holds."""
    parts = np.array_split(np.arange(50), 5)
    return [*((f"data_batch_{i + 1}", part) for i, part in enumerate(parts)), ("test_batch", np.arange(50, 60))]


def write_python(folder, made, labels):
    folder.mkdir(parents=True)
    for name, at in batches():
        data = made[at].transpose(0, 3, 1, 2).reshape(len(at), -1)
        held = {b"data": data, b"labels": [int(labels[i]) for i in at], b"batch_label": b"x"}
        (folder / name).write_bytes(pickle.dumps(held, protocol=2))


def write_binary(folder, made, labels):
    folder.mkdir(parents=True)
    for name, at in batches():
        data = made[at].transpose(0, 3, 1, 2).reshape(len(at), -1)
        np.concatenate([labels[at, None].astype(np.uint8), data], axis=1).tofile(folder / f"{name}.bin")


def write_folders(path, made, labels):
    for i, (image, label) in enumerate(zip(made, labels, strict=True)):
        folder = path / ("train" if i < 50 else "test") / f"{label:02d}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i:04d}.png").write_bytes(png(image))
