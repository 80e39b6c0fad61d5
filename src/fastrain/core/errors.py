"""The tree of errors. Each says what was expected, what was found, where, and what to do.

FastrainError
├── UsageError            the call itself is wrong: exit status 2
│   ├── PlaceError        the place is outside the radar's picture
│   └── SettingError      a setting is unknown or out of range
├── SourceError           a file of radar data cannot be read
│   ├── UnknownFormat     no reader knows it
│   ├── DamagedFile       truncated, mis-sized, or not what its name says
│   └── UnknownTime       its time cannot be told
├── ArchiveError          the archive cannot be opened or written
│   ├── ArchiveBusy       another process is writing to it
│   ├── DamagedChunk      a piece of it cannot be read: a wrong checksum, or it is gone
│   └── GridMismatch      the frame has another grid, palette or cadence than the archive
├── GapError              frames that are needed are missing
├── NotObserved           the radar does not see the place
├── TooShort              the archive holds too little to train or to score on
├── TooBig                it will not fit into this machine's memory
└── RunError              a run cannot be opened, or was made by something else
    └── ProcessLost       another process of the training is gone
"""

from __future__ import annotations


class FastrainError(Exception):
    """A failed job: the command line prints it in one line and exits with 1."""

    exit_status = 1


class UsageError(FastrainError):
    """Wrong usage: the command line exits with 2."""

    exit_status = 2


class PlaceError(UsageError):
    """The place asked for is outside the radar's picture."""


class SettingError(UsageError):
    """A setting is unknown or out of range."""


class SourceError(FastrainError):
    """A file of radar data cannot be read."""


class UnknownFormat(SourceError):
    """No reader knows the file."""


class DamagedFile(SourceError):
    """The file is truncated, mis-sized, or not what its name says."""


class UnknownTime(SourceError):
    """The time of a frame cannot be told."""


class ArchiveError(FastrainError):
    """The archive cannot be opened or written."""


class ArchiveBusy(ArchiveError):
    """Another process is writing to the archive."""


class DamagedChunk(ArchiveError):
    """A piece of the archive cannot be read."""


class GridMismatch(ArchiveError):
    """The frame has another grid, levels or cadence than the archive."""


class GapError(FastrainError):
    """Frames that are needed are missing."""


class NotObserved(FastrainError):
    """The radar does not see the place."""


class TooShort(FastrainError):
    """The archive holds too little to train or to score on."""


class TooBig(FastrainError):
    """It will not fit into this machine's memory."""


class RunError(FastrainError):
    """A run cannot be opened, or was made by something else."""


class ProcessLost(RunError):
    """Another process of the training is gone."""


def first_line(error: BaseException) -> str:
    """Return what a library said, short and on one line, without its full stop; its kind where it said nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")[:200]
