"""Which version of the program runs."""

from __future__ import annotations


def version() -> str:
    """Return the version of the installed package."""
    # Asked for only when wanted: reading the package's metadata takes a fifth of the time of `fastrain --help`.
    from importlib import metadata

    try:
        return metadata.version("fastrain")
    except metadata.PackageNotFoundError:  # a source tree on the path, not installed
        return "0+unknown"
