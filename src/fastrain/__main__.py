"""`python -m fastrain`, which is how torchrun and schedulers start programs."""

from __future__ import annotations

from fastrain.cli.main import run

run()
