"""Learning rates over a run, as shares of their peak."""

from __future__ import annotations


def triangle(step: int, steps: int, *, peak_at: float = 0.2, end: float = 0.02) -> float:
    """Return the share of the peak learning rate at a step: up in a line, down in a line.

    Args:
        step: from 0.
        steps: of the whole run; later ones stay at the end.
        peak_at: share of the run at which the peak is reached.
        end: share of the peak that is left at the end.
    Source: Smith and Topin (2018), arXiv:1708.07120; hlb-CIFAR10.
    """
    position = min(1.0, (step + 1) / max(1, steps))
    if position <= peak_at:
        return position / peak_at
    return 1 + (end - 1) * (position - peak_at) / (1 - peak_at)


def falling(step: int, steps: int) -> float:
    """Return the share of the peak at a step: down in a line from the first to nothing after the last.

    Source: cifar10-airbench.
    """
    return max(0.0, 1 - step / steps) if steps > 0 else 0.0
