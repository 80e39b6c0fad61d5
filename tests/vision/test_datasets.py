"""Data sets: each layout gives the same images, and what is broken is named."""

from __future__ import annotations

import contextlib
import pickle
import sys
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from images import images, png, write_binary, write_folders, write_parquet, write_python

from fastrain.core.errors import DamagedFile, FastrainError, SourceError, UsageError
from fastrain.vision.cifar import CIFAR10
from fastrain.vision.datasets import open_dataset
from fastrain.vision.images import Reading


@pytest.mark.parametrize("layout", ["parquet", "python", "binary", "folders"])
def test_every_layout_gives_the_images_and_their_classes(tmp_path, layout):
    made, labels = images(60), np.arange(60) % 10
    if layout == "parquet":
        write_parquet(tmp_path / "train-00000.parquet", made[:30], labels[:30])
        write_parquet(tmp_path / "train-00001.parquet", made[30:50], labels[30:50])
        write_parquet(tmp_path / "test.parquet", made[50:], labels[50:])
    elif layout == "python":
        write_python(tmp_path / "cifar-10-batches-py", made, labels)
    elif layout == "binary":
        write_binary(tmp_path / "cifar-10-batches-bin", made, labels)
    else:
        write_folders(tmp_path, made, labels)
    data = open_dataset(tmp_path)
    if layout == "folders":  # in the order of the classes' names
        order = np.argsort(labels[:50], kind="stable")
        np.testing.assert_array_equal(data.train.images, made[:50][order])
        assert data.classes == tuple(f"{i:02d}" for i in range(10))
    else:
        np.testing.assert_array_equal(data.train.images, made[:50])
        np.testing.assert_array_equal(data.test.images, made[50:])
        np.testing.assert_array_equal(data.train.labels, labels[:50])
        assert data.classes == CIFAR10
    assert len(data.test.labels) == 10


def test_the_copies_are_never_called_plain_cifar(data):
    held = open_dataset(data / "cifar10-jpeg")
    assert held.name == "CIFAR-10 (JPEG copies)"
    assert held.train.images.shape == (50_000, 32, 32, 3)
    assert np.bincount(held.train.labels).tolist() == [5000] * 10
    assert held.classes == CIFAR10


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return sys.exit, (3,)

    made, labels = images(60), np.arange(60) % 10
    folder = tmp_path / "cifar-10-batches-py"
    write_python(folder, made, labels)
    (folder / "data_batch_3").write_bytes(pickle.dumps({b"data": Evil()}))
    with pytest.raises(DamagedFile, match=r"data_batch_3: .*exit"):
        open_dataset(tmp_path)


def broken(tmp_path, case):
    made, labels = images(60), np.arange(60) % 10
    if case == "nothing":
        return r"no data set that is known"
    if case == "truncated parquet":
        write_parquet(tmp_path / "train.parquet", made[:50], labels[:50])
        write_parquet(tmp_path / "test.parquet", made[50:], labels[50:])
        whole = (tmp_path / "test.parquet").read_bytes()
        (tmp_path / "test.parquet").write_bytes(whole[: len(whole) // 2])
        return r"test.parquet: truncated"
    if case == "other columns":
        for name in ("train", "test"):
            pyarrow.parquet.write_table(pyarrow.table({"a": [1], "b": [2]}), tmp_path / f"{name}.parquet")
        return r"columns a, b; expected img"
    if case == "no picture":
        rows = [{"bytes": b"not a picture", "path": None}]
        for name in ("train", "test"):
            pyarrow.parquet.write_table(pyarrow.table({"img": rows, "label": [0]}), tmp_path / f"{name}.parquet")
        return r"image 0: no picture"
    if case == "mixed sizes":
        write_folders(tmp_path, made, labels)
        (tmp_path / "train" / "03" / "zzz.png").write_bytes(png(images(1, edge=20)[0]))
        return r"20×20 pixels, the first has 32×32"
    if case == "labels":
        write_parquet(tmp_path / "train.parquet", made[:50], labels[:50])
        write_parquet(tmp_path / "test.parquet", made[50:], labels[50:] - 1)
        return r"test.parquet: has a label of -1, expected 0 or more"
    if case == "no tests":
        write_python(tmp_path / "cifar-10-batches-py", made, labels)
        path = tmp_path / "cifar-10-batches-py" / "test_batch"
        path.write_bytes(pickle.dumps({b"data": made[:0], b"labels": []}, protocol=2))
        return r"test holds no image"
    if case == "small tests":
        write_parquet(tmp_path / "train.parquet", made[:50], labels[:50])
        write_parquet(tmp_path / "test.parquet", made[50:, ::2, ::2, 0], labels[50:])
        return r"train is of 32×32 pixels, colour, test of 16×16 pixels, colour"
    if case == "a class an image":
        many = np.arange(10_001)
        write_parquet(tmp_path / "train.parquet", np.zeros((len(many), 4, 4), np.uint8), many)
        return r"train.parquet: 10001 different labels, expected 10000 classes at most"
    if case == "one class":
        write_folders(tmp_path, made, labels * 0)
        return r"one class, 00; expected"
    if case == "unknown class":
        write_folders(tmp_path, made, labels)
        (tmp_path / "test" / "zebra").mkdir()
        (tmp_path / "test" / "zebra" / "a.png").write_bytes(png(made[0]))
        return r"class zebra is not in train"
    write_binary(tmp_path / "cifar-10-batches-bin", made, labels)
    path = tmp_path / "cifar-10-batches-bin" / "data_batch_2.bin"
    path.write_bytes(path.read_bytes()[:-5])
    return r"data_batch_2.bin: .* it is truncated"


@pytest.mark.parametrize(
    "case",
    [
        "nothing",
        "truncated parquet",
        "other columns",
        "no picture",
        "mixed sizes",
        "labels",
        "no tests",
        "small tests",
        "a class an image",
        "one class",
        "unknown class",
        "short",
    ],
)
def test_what_is_broken_is_named_in_one_line(tmp_path, case):
    said = broken(tmp_path, case)
    with pytest.raises(FastrainError, match=said) as caught:
        open_dataset(tmp_path)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, (SourceError, UsageError))


def test_grey_and_coloured_files_of_one_folder_go_together(tmp_path):
    made, labels = images(60), np.arange(60) % 10
    write_folders(tmp_path, made, labels)
    (tmp_path / "train" / "00" / "0000.png").write_bytes(png(made[0, :, :, 1]))
    data = open_dataset(tmp_path)
    np.testing.assert_array_equal(data.train.images[0], np.repeat(made[0, :, :, 1:2], 3, axis=2))


def test_a_split_whose_images_all_happen_to_be_grey_goes_with_one_in_colour(tmp_path):
    made, labels = images(60), np.arange(60) % 10
    write_parquet(tmp_path / "train.parquet", made[:50], labels[:50])
    write_parquet(tmp_path / "test.parquet", made[50:, :, :, 0], labels[50:])
    data = open_dataset(tmp_path)
    np.testing.assert_array_equal(data.test.images, np.repeat(made[50:, :, :, :1], 3, axis=3))


def test_folders_without_pictures_are_no_classes(tmp_path):
    write_folders(tmp_path, images(60), np.arange(60) % 10)
    (tmp_path / "train" / "my run").mkdir()
    (tmp_path / "train" / "my run" / "weights.pt").write_bytes(b"")
    (tmp_path / "train" / "00" / ".thumbnails").mkdir()
    (tmp_path / "train" / "00" / ".thumbnails" / "a.png").write_bytes(b"of a file manager")
    assert open_dataset(tmp_path).classes == tuple(f"{i:02d}" for i in range(10))


def test_a_class_may_be_called_train(tmp_path):
    for i, name in enumerate(("bus", "train")):
        (tmp_path / name).mkdir()
        for j in range(5):
            (tmp_path / name / f"{j}.png").write_bytes(png(images(1, seed=10 * i + j)[0]))
    assert open_dataset(tmp_path).classes == ("bus", "train")


def test_ten_classes_are_called_as_cifars_only_where_the_images_are_like_its(tmp_path):
    made, labels = images(60), np.arange(60) % 10
    for name in ("like", "small"):
        (tmp_path / name).mkdir()
        step = 1 if name == "like" else 2
        for part in ("train", "test"):
            write_parquet(tmp_path / name / f"{part}.parquet", made[:, ::step, ::step], labels)
    assert open_dataset(tmp_path / "like").classes[0] == "airplane"
    assert open_dataset(tmp_path / "small").classes[0] == "0"


def test_cifars_batches_are_of_one_size(tmp_path):
    write_binary(tmp_path / "cifar-10-batches-bin", images(60), np.arange(60) % 10)
    with pytest.raises(UsageError, match=r"--edge 16: .* 32×32 pixels; leave it out"):
        open_dataset(tmp_path, Reading(edge=16))
    assert open_dataset(tmp_path, Reading(edge=32)).train.images.shape[1:] == (32, 32, 3)


def test_a_set_is_called_by_the_folder_that_the_user_gave(tmp_path, monkeypatch):
    folder = tmp_path / "birds" / "data"
    folder.mkdir(parents=True)
    write_parquet(folder / "train.parquet", images(20), np.arange(20) % 10)
    write_parquet(folder / "test.parquet", images(10), np.arange(10))
    monkeypatch.chdir(tmp_path / "birds")
    assert open_dataset(folder).name == "birds" == open_dataset(Path()).name


@pytest.mark.parametrize("seed", range(300))
def test_a_damaged_pickle_is_refused_or_read_and_nothing_else(tmp_path, seed):
    write_python(tmp_path / "cifar-10-batches-py", images(60), np.arange(60) % 10)
    path = tmp_path / "cifar-10-batches-py" / "data_batch_2"
    draw = np.random.default_rng(seed)
    data = np.frombuffer(path.read_bytes(), np.uint8).copy()
    head = np.r_[0:300, len(data) - 200 : len(data)]  # around the pixels, where the structure stands
    data[draw.choice(head, 3)] = draw.integers(0, 256, 3)
    path.write_bytes(data.tobytes())
    with contextlib.suppress(DamagedFile):
        assert len(open_dataset(tmp_path).train.labels) > 0
