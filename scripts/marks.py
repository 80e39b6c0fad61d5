"""Numbers of a page that are written from records: what stands between `<!-- name -->` and `<!-- /name -->`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def record(name: str) -> dict[str, Any]:
    """Return a record."""
    found: dict[str, Any] = json.loads((ROOT / "records" / f"{name}.json").read_text(encoding="utf-8"))
    return found


def between_marks(page: str, parts: dict[str, str]) -> str:
    """Return a page with each part between the marks of its name."""
    for name, text in parts.items():
        mark = re.compile(rf"(<!-- {name} -->\n).*?(\n<!-- /{name} -->)", re.DOTALL)
        page, count = mark.subn(lambda found, text=text: found.group(1) + text + found.group(2), page)
        assert count == 1, name
    return page
