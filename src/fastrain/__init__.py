"""Fastrain: weather-radar pictures in, calibrated chances of rain out.

An archive, a run and a forecast open by one call each:

    tree = fastrain.open_archive("archive")
    run = fastrain.open_run("run")
    chances = run.forecast()

Nothing heavy is imported before one of them is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastrain.archive.view import open_archive
    from fastrain.rain.run import open_run

    __version__: str

__all__ = ["__version__", "open_archive", "open_run"]

_DOORS = {"open_archive": "fastrain.archive.view", "open_run": "fastrain.rain.run"}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from fastrain.core.version import version

        return version()
    if name not in _DOORS:
        raise AttributeError(f"module 'fastrain' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_DOORS[name]), name)
