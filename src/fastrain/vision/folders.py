"""Image data sets as folders of pictures, one for each class."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fastrain.core.errors import SourceError
from fastrain.vision.images import Reading, decoded, not_read, pictures_in
from fastrain.vision.splits import Parts, Picture, Split, split_of

TRAIN_FOLDERS = ("train", "training")
TEST_FOLDERS = ("test", "testing", "val", "valid", "validation")


def folders_at(path: Path) -> list[Path] | None:
    """Return the folder to train on, and the one to test on where there is one."""
    if not path.is_dir():
        return None
    # Pictures in train/ itself make it a class that is called so.
    train, test = (_called_so(path, names) for names in (TRAIN_FOLDERS, TEST_FOLDERS))
    if train is not None and _folders_in(train):
        return [train, *([] if test is None else [test])]
    classes = _folders_in(path)
    if classes == [test] and _folders_in(classes[0]):
        raise SourceError(f"{path}: holds {classes[0].name}/ and no {TRAIN_FOLDERS[0]}/ beside it, to train on.")
    return [path] if classes else None


def _called_so(path: Path, names: tuple[str, ...]) -> Path | None:
    """Return the folder that has the first of some names, in small letters or in capitals."""
    for name in names:
        found = [folder for folder in _shown_folders(path) if folder.name.lower() == name]
        if found:
            return max(found, key=lambda folder: folder.name == name)
    return None


def passed_over(path: Path) -> list[str]:
    """Return a line on each folder beside a data set's classes that is none, and one on pictures that are not read."""
    tops = folders_at(path) or []
    beside = [folder for top in tops for folder in _shown_folders(top)]
    no_class = (f for f in beside if f.name.lower() not in TEST_FOLDERS and not (f / "run.json").exists())
    empty = sorted(folder for folder in no_class if not pictures_in(folder))
    lines = [f"{folder}: holds no picture; it is not taken for a class." for folder in empty]
    others = not_read(tops)
    return lines + ([others] if others else [])


def _folders_in(path: Path) -> list[Path]:
    """Return the folders in a folder that hold a picture; one without is a run, a cache, anything but a class."""
    return sorted(folder for folder in _shown_folders(path) if pictures_in(folder))


def _shown_folders(path: Path) -> Iterator[Path]:
    return (folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith("."))


def folders(found: list[Path], reading: Reading) -> Parts:
    """Return what folders of pictures give.

    Raises:
        SourceError: there are not two classes, or the test part has one that training has not.
        DamagedFile: a picture cannot be read, or sizes differ.
    """
    classes = tuple(folder.name for folder in _folders_in(found[0]))
    if len(classes) < 2:
        line = f"{found[0]}: one class, {classes[0]}; expected a folder of images for each of two or more."
        raise SourceError(" ".join([line, *passed_over(found[0])]))
    for other in found[1:]:
        unknown = sorted({folder.name for folder in _folders_in(other)} - set(classes))
        if unknown:
            raise SourceError(f"{other}: class {unknown[0]} is not in {found[0].name}.")
    splits: list[Split] = []
    broken: list[tuple[str, str]] = []
    for folder in found:
        files = [(f, label) for label, name in enumerate(classes) for f in pictures_in(folder / name)]
        rows: list[Picture] = [(str(file.relative_to(folder)), file) for file, _ in files]
        where = f"{folder.parent.name}/{folder.name}" if len(found) > 1 else folder.resolve().name
        splits.append(split_of(decoded(rows, where, reading), rows, [label for _, label in files], broken))
    return Parts(classes, splits[0], splits[1] if len(splits) > 1 else None, tuple(broken))
