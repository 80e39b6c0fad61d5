"""Files that may be gzipped: their first bytes, and reading them without ever unpacking more than is asked for."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastrain.core.errors import DamagedFile

MAGIC = b"\x1f\x8b"


def unzipped_head(head: bytes, most: int) -> bytes:
    """Return the first bytes of a file as they are unpacked; as they are where it is not gzipped, or damaged."""
    if not head.startswith(MAGIC):
        return head
    try:
        return zlib.decompressobj(wbits=31).decompress(head, most)
    except zlib.error:
        return b""


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open a file for reading, unpacked if it is gzipped.

    Raises:
        DamagedFile: its compression is damaged, or it is truncated.
    """
    with path.open("rb") as file:
        opener: Any = gzip.open if file.read(2) == MAGIC else open
    try:
        with opener(path, "rb") as file:
            yield file
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise DamagedFile(f"{path.name}: truncated or damaged gzip ({error}).") from None
