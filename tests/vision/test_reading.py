"""What a data set holds that its user should know of: nothing is left out in silence."""

from __future__ import annotations

import json
import pickle
import shutil

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from colours import draw, folder_of
from images import images, png, write_binary, write_parquet, write_python

from fastrain.core.errors import DamagedFile, SourceError
from fastrain.vision.cifar import CIFAR10
from fastrain.vision.datasets import Dataset, open_dataset
from fastrain.vision.export import _in_markdown
from fastrain.vision.images import Reading
from fastrain.vision.splits import Split


@pytest.mark.parametrize(("train", "test"), [("train", "test"), ("Train", "TEST"), ("train", "Validation")])
def test_a_split_of_ones_own_is_known_by_its_names(tmp_path, train, test):
    folder_of(tmp_path / train, counts=(4, 4, 4))
    folder_of(tmp_path / test, counts=(2, 2, 2))
    data = open_dataset(tmp_path)
    assert (len(data.train.labels), len(data.test.labels), len(data.classes)) == (12, 6, 3)
    folder_of(tmp_path / "more", counts=(1, 1, 1))
    (only,) = open_dataset(tmp_path).notes
    assert only == f"{tmp_path / 'more'}: is neither what is trained on nor what is tested on; passed over."
    shutil.rmtree(tmp_path / "more")
    shutil.rmtree(tmp_path / train)
    with pytest.raises(SourceError, match=rf"holds {test}/ and no train/ beside it"):
        open_dataset(tmp_path)


def test_images_that_are_in_both_parts_or_in_two_classes_are_told(tmp_path):
    draw("red", 1).save(_made(tmp_path / "train" / "red" / "a.png"))
    draw("red", 2).save(_made(tmp_path / "train" / "red" / "b.png"))
    draw("blue", 3).save(_made(tmp_path / "train" / "blue" / "c.png"))
    draw("red", 1).save(_made(tmp_path / "test" / "red" / "other name.png"))
    draw("red", 2).save(_made(tmp_path / "test" / "blue" / "wrong.png"))
    draw("red", 9).save(_made(tmp_path / "test" / "red" / "new.png"))
    doubles = open_dataset(tmp_path).doubles
    assert (doubles.tested, doubles.contradictory) == (2, 1)
    first, second = doubles.lines(3)
    assert first.startswith("2 of 3 test images are among those to train on")
    assert second.startswith("1 image is in more than one class")
    apart = Dataset(
        "apart", ("a", "b"), Split(images(20), np.arange(20) % 2), Split(images(5, seed=9), np.arange(5) % 2)
    )
    assert apart.doubles.lines(5) == []


def _made(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def test_a_missing_part_of_a_parquet_set_is_named(tmp_path):
    for i in (0, 2):
        write_parquet(tmp_path / f"train-{i:05d}-of-00003.parquet", images(20), np.arange(20) % 4)
    with pytest.raises(DamagedFile, match=r"train-00001-of-00003.parquet: is missing; .* is one of 3 parts"):
        open_dataset(tmp_path)
    write_parquet(tmp_path / "train-00001-of-00003.parquet", images(20, seed=3), np.arange(20) % 4)
    assert len(open_dataset(tmp_path).classes) == 4


def parquet_of(path, pictures, labels):
    pyarrow.parquet.write_table(pyarrow.table({"image": pictures, "label": labels}), path)
    return path


def test_labels_of_parquet_are_numbers_or_names(tmp_path):
    pictures = [png(image) for image in images(12)]  # a picture's bytes alone
    gaps = open_dataset(parquet_of(tmp_path / "gaps.parquet", pictures, [0, 1000, 20] * 4))
    assert gaps.classes == ("0", "20", "1000")
    together = np.concatenate([gaps.train.labels, gaps.test.labels])
    assert np.bincount(together).tolist() == [4, 4, 4]
    named = open_dataset(parquet_of(tmp_path / "names.parquet", pictures, ["cat", "dog", "ant"] * 4))
    assert named.classes == ("ant", "cat", "dog")
    of_image = {}
    for split in (named.train, named.test):
        of_image |= {image.tobytes(): label for image, label in zip(split.images, split.labels, strict=True)}
    assert of_image[images(12)[1].tobytes()] == 2
    with pytest.raises(DamagedFile, match=r"label of row 1 is 0.5; expected a whole number, or the class's name"):
        open_dataset(parquet_of(tmp_path / "halves.parquet", pictures, [0.0, 0.5, 1.0] * 4))


def test_digits_are_no_pictures_of_cifar(tmp_path):
    """As SVHN is written: ten classes that are called by their digits."""
    said = {"info": {"features": {"label": {"names": [str(i) for i in range(10)]}}}}
    rows = [{"bytes": png(image), "path": None} for image in images(40)]
    for name in ("train", "test"):
        table = pyarrow.table({"image": rows, "label": [i % 10 for i in range(40)]})
        table = table.replace_schema_metadata({"huggingface": json.dumps(said)})
        pyarrow.parquet.write_table(table, tmp_path / f"{name}.parquet")
    assert open_dataset(tmp_path).classes == tuple("0123456789")
    parquet_of(tmp_path / "train.parquet", rows, [str(i % 10) for i in range(40)])
    parquet_of(tmp_path / "test.parquet", rows, [str(i % 10) for i in range(40)])
    assert open_dataset(tmp_path).classes == tuple("0123456789")


def test_batches_have_the_names_that_stand_beside_them(tmp_path):
    write_binary(tmp_path / "b", images(60), np.arange(60) % 2)
    assert open_dataset(tmp_path / "b").classes == CIFAR10
    (tmp_path / "b" / "batches.meta.txt").write_text("fire truck\npolice car\n\n")
    assert open_dataset(tmp_path / "b").classes == ("fire truck", "police car")
    write_python(tmp_path / "p", images(60), np.arange(60) % 2)
    (tmp_path / "p" / "batches.meta").write_bytes(pickle.dumps({b"label_names": [b"air", b"auto"]}, protocol=2))
    assert open_dataset(tmp_path / "p").classes == ("air", "auto")
    (tmp_path / "p" / "batches.meta").write_bytes(b"no pickle")
    with pytest.raises(DamagedFile, match=r"batches.meta: the classes' names cannot be read"):
        open_dataset(tmp_path / "p")


def test_what_lies_beside_parquet_files_is_no_matter_of_theirs(tmp_path):
    write_parquet(tmp_path / "train.parquet", images(40), np.arange(40) % 4)
    (tmp_path / "test" / "a").mkdir(parents=True)
    draw("red", 1).save(tmp_path / "test" / "a" / "x.png")
    assert open_dataset(tmp_path).notes == ()


def test_rows_without_a_picture_or_a_label_are_named_and_may_be_left_out(tmp_path):
    pictures = [{"bytes": png(image), "path": None} for image in images(12)]
    labels = [0, 1, 2] * 4
    pictures[3], labels[5] = None, None
    path = parquet_of(tmp_path / "nulls.parquet", pictures, labels)
    with pytest.raises(DamagedFile, match=r"nulls.parquet, image 3: no picture .* image 5 \(its label is null\)"):
        open_dataset(path)
    data = open_dataset(path, Reading(skip_broken=True))
    assert len(data.train.labels) + len(data.test.labels) == 10
    assert [name.split(", ")[1] for name, _ in data.broken] == ["image 3", "image 5 (its label is null)"]


def test_the_card_shows_names_as_they_are_whatever_they_hold():
    assert _in_markdown("a|b\n<b>*x*") == r"a\|b &lt;b&gt;\*x\*"
