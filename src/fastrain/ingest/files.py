"""Which files to read, by which reader, in which order."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from fastrain.core.errors import SourceError, UnknownTime, UsageError
from fastrain.core.time import time_in_name
from fastrain.sources import READERS, is_store, reader_of, recognise
from fastrain.sources.sites import site_of as site_row


@dataclass(frozen=True)
class Problem:
    """One line about a file that did not go in."""

    name: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """What is to be read, in time order as far as names tell it, and what is left out already.

    Attributes:
        format: name of the reader.
        paths: of the files.
        path_times: of each path, as its name tells it, or None.
        problems: of the files left out.
    """

    format: str
    paths: tuple[Path, ...]
    path_times: tuple[datetime | None, ...]
    problems: tuple[Problem, ...]

    @property
    def times(self) -> list[datetime]:
        """The times that names tell, in order."""
        return [time for time in self.path_times if time]


def plan_files(
    given: Sequence[Path],
    *,
    archive: Path,
    format: str,
    archive_format: str | None,
    site: str | None,
    time_pattern: str | None,
) -> Plan:
    """Return which of the given files and folders are to be read.

    Args:
        given: files, and folders that are searched to the bottom.
        archive: whose own files are passed over, should it lie in one of the folders.
        format: name of a reader, or auto.
        archive_format: of the archive, where there is one already.
        site: code of the one radar whose pictures are wanted.
        time_pattern: how the time stands in the files' names.

    Raises:
        UsageError: nothing is there, or pictures of several radars are mixed.
    """
    files = list(_walk(given, archive))
    if not files:
        raise UsageError(f"No files in {', '.join(map(str, given))}.")
    if format == "auto" and archive_format and not _told_by_content(archive_format):
        format = archive_format
    problems: list[Problem] = []
    formats: dict[Path, str] = {}
    for path in files:
        try:
            formats[path] = recognise(path) if format == "auto" else format
        except SourceError as error:
            problems.append(Problem(path.name, str(error)))
    if not formats:
        return Plan("", (), (), tuple(problems))
    chosen = archive_format or Counter(formats.values()).most_common(1)[0][0]
    reader = reader_of(chosen if format == "auto" else format)
    kept = []
    for path, found in formats.items():
        if found == chosen:
            kept.append(path)
        else:
            problems.append(Problem(path.name, f"{path.name}: is of format {found}, the archive's is {chosen}."))
    if reader.site_of:
        kept = _of_one_site(kept, reader.site_of, site)
    pattern = time_pattern or reader.time_pattern
    timed = {path: _time_or_none(path, pattern) for path in kept}
    earliest = datetime.min.replace(tzinfo=UTC)
    kept.sort(key=lambda path: (timed[path] or earliest, path.name))
    return Plan(chosen, tuple(kept), tuple(timed[path] for path in kept), tuple(problems))


def _walk(given: Sequence[Path], archive: Path) -> Iterable[Path]:
    seen = set()
    own = archive.resolve()
    for path in given:
        if not path.is_file() and not path.is_dir():
            raise UsageError(f"{path}: no such file or folder.")
        if own == path.resolve() or own in path.resolve().parents:
            continue
        for file in _inside(path, own) if path.is_dir() and not is_store(path) else [path]:
            if file not in seen:
                seen.add(file)
                yield file


def _inside(folder: Path, own: Path) -> Iterator[Path]:
    """Yield the files of a folder and of those in it, without the hidden ones; a Zarr store is one file."""
    for name, folders, files in os.walk(folder):
        here = Path(name)
        stores = {f for f in folders if not f.startswith(".") and is_store(here / f)}
        # Sorted as text: paths take ten times as long to compare.
        yield from (here / f for f in sorted([f for f in files if not f.startswith(".")] + list(stores)))
        folders[:] = sorted(
            f for f in folders if not f.startswith(".") and f not in stores and (here / f).resolve() != own
        )


def _told_by_content(format: str) -> bool:
    """Tell whether files of a format are recognised by what they hold."""
    return format in READERS and format != "picture"


def _of_one_site(paths: list[Path], site_of: object, site: str | None) -> list[Path]:
    codes = {path: site_of(path.name) for path in paths}  # type: ignore[operator]
    if site:
        kept = [path for path in paths if codes[path] in (site.upper(), None)]
        if not kept:
            raise UsageError(
                f"--site {site}: no such radar among {', '.join(sorted({c for c in codes.values() if c}))}."
            )
        return kept
    found = sorted({code for code in codes.values() if code})
    # The old and the new code of one site may stand side by side.
    if len({known.name if (known := site_row(code)) else code for code in found}) > 1:
        shown = ", ".join(found[:6]) + (", …" if len(found) > 6 else "")
        raise UsageError(f"Pictures of {len(found)} radars ({shown}); an archive holds one: --site {found[0]}.")
    return paths


def _time_or_none(path: Path, pattern: str | None) -> datetime | None:
    try:
        return time_in_name(path.name, pattern)
    except UnknownTime:
        return None
