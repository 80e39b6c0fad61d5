"""Files are written where they can be, which is seen before the work that ends in them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fastrain.core.errors import UsageError
from fastrain.core.files import require_writable


def test_what_cannot_be_written_is_refused_before_the_work(tmp_path):
    require_writable(tmp_path / "new.json", "--to")
    os.mkfifo(tmp_path / "pipe")
    for path, words in (
        (tmp_path, "is a folder; name a file"),
        (tmp_path / "pipe", "is no regular file"),
        (Path("/dev/null"), "is no regular file"),
        (tmp_path / "none" / "new.json", "there is no folder"),
    ):
        with pytest.raises(UsageError, match=words):
            require_writable(path, "--to")
