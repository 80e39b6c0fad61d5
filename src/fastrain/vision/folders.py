"""Image data sets as folders of pictures, one for each class."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fastrain.core.errors import SourceError
from fastrain.vision.images import Reading, decoded, holds_picture, not_read, pictures_in
from fastrain.vision.splits import Parts, Picture, Split, split_of

TRAIN_FOLDER = "train"
TEST_FOLDERS = ("test", "val", "valid", "validation")  # the first that is there
TOLD = 3  # lines of what was passed over, at most, in an error


def folders_at(path: Path) -> list[Path] | None:
    """Return the folder to train on, and the one to test on where there is one."""
    if not path.is_dir():
        return None
    # Pictures in train/ itself make it a class that is called so.
    train, test = (_called_so(path, names) for names in ((TRAIN_FOLDER,), TEST_FOLDERS))
    if train is not None and _folders_in(train):
        return [train, *([] if test is None else [test])]
    classes = _folders_in(path)
    if classes == [test] and _folders_in(classes[0]):
        raise SourceError(f"{path}: holds {classes[0].name}/ and no {TRAIN_FOLDER}/ beside it, to train on.")
    return [path] if classes else None


def _called_so(path: Path, names: tuple[str, ...]) -> Path | None:
    """Return the folder that has the first of some names, in small letters or in capitals."""
    for name in names:
        found = [folder for folder in _shown_folders(path) if folder.name.lower() == name]
        if found:
            return max(found, key=lambda folder: folder.name == name)
    return None


def passed_over(tops: list[Path]) -> list[str]:
    """Return a line on each folder of a data set that holds no picture, or is of no part; and on what is not read."""
    lines = []
    for top in tops:
        empty = (f for f in _shown_folders(top) if not (f / "run.json").exists() and not holds_picture(f))
        lines += [f"{f}: holds no picture; it is not taken for a class." for f in sorted(empty)]
    if tops[0].name.lower() == TRAIN_FOLDER:  # else the folder around is another's business
        beside = [f for f in _shown_folders(tops[0].parent) if f not in tops and not (f / "run.json").exists()]
        held = sorted(folder for folder in beside if holds_picture(folder))
        lines += [f"{folder}: is neither what is trained on nor what is tested on; passed over." for folder in held]
    return lines + [line for top in tops for line in not_read(top)]


def _folders_in(path: Path) -> list[Path]:
    """Return the folders in a folder that hold a picture; one without is a run, a cache, anything but a class."""
    return sorted(folder for folder in _shown_folders(path) if holds_picture(folder))


def _shown_folders(path: Path) -> Iterator[Path]:
    return (folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith("."))


def folders(found: list[Path], reading: Reading) -> Parts:
    """Return what folders of pictures give.

    Raises:
        SourceError: there are not two classes, or the test part has one that training has not.
        DamagedFile: a picture cannot be read, or sizes differ.
    """
    classes = tuple(folder.name for folder in _folders_in(found[0]))
    notes = tuple(passed_over(found))
    if len(classes) < 2:
        line = f"{found[0]}: one class, {classes[0]}; expected a folder of images for each of two or more."
        raise SourceError(" ".join([line, *notes[:TOLD]]))
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
    return Parts(classes, splits[0], splits[1] if len(splits) > 1 else None, tuple(broken), notes)
