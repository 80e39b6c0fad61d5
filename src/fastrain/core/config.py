"""Settings: one frozen dataclass per stage, read from TOML or a plain dict; unknown keys are refused."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from fastrain.core.errors import SettingError

S = TypeVar("S")


def settings(kind: type[S], given: Mapping[str, Any], where: str) -> S:
    """Return a settings dataclass from plain values.

    Raises:
        SettingError: a key is unknown; the message names the nearest known one.
    """
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}."
            raise SettingError(f"{where}: unknown setting {key!r}{hint}")
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()})
