"""Array shapes for annotations.

The image half runs where nothing but torch, numpy, pyarrow, pillow, typer and rich is installed. Annotations are never
evaluated there, so the names only have to exist; where jaxtyping is installed, tests check them.
"""

from __future__ import annotations

try:
    from jaxtyping import Bool, Float, Int, Shaped, UInt8
except ImportError:  # pragma: no cover - a bare GPU machine
    from typing import Any

    Bool = Float = Int = Shaped = UInt8 = Any  # type: ignore[assignment, misc]

__all__ = ["Bool", "Float", "Int", "Shaped", "UInt8"]
