"""What a training came through, line by line as JSON: for people, for programs, and for the picture at its end."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any

from fastrain.core.errors import SettingError
from fastrain.core.memory import peak_bytes

EVERY_SECONDS = 1.0  # at least between two lines


class Journal:
    """A file that gets a line at most every second; a training that goes on drops the lines after its checkpoint.

    Args:
        path: of the file, JSON by line.
        samples: of a step.
        board: folder that TensorBoard's event files are written to as well.

    Raises:
        SettingError: they are asked for, and TensorBoard is not installed.
    """

    def __init__(self, path: Path, samples: int, board: Path | None = None) -> None:
        self.path, self.samples = path, samples
        self._board = None if board is None else _events(board)
        self._began: tuple[int, float] | None = None
        self._said = 0.0

    def note(self, done: int, total: int, loss: float) -> str:
        """Note how far a training is, and return it as words: loss, samples a second, memory at the peak.

        Args:
            done: steps.
            total: steps.
            loss: smoothed.
        """
        now = time.monotonic()
        if self._began is None:
            self._began = done - 1, now  # the first step's own time is not known: it is left out of the rate
            kept = [line for line in read_journal(self.path) if line["step"] < done]
            with contextlib.suppress(OSError):  # a full disk ends no training
                self.path.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        first, began = self._began
        rate = (done - 1 - first) * self.samples / (now - began) if done - 1 > first else None
        memory = peak_bytes()
        if now - self._said >= EVERY_SECONDS or done == total:
            self._said = now
            line = {
                "unix_time": round(time.time(), 1),
                "step": done,
                "steps": total,
                "loss": round(loss, 6),
                "samples_per_second": None if rate is None else round(rate, 1),
                "peak_bytes": memory,
                "seconds_left": None if not rate else round((total - done) * self.samples / rate, 1),
            }
            with contextlib.suppress(OSError), self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            if self._board is not None:
                with contextlib.suppress(OSError):
                    for name in ("loss", "samples_per_second", "peak_bytes"):
                        if line[name] is not None:
                            self._board.add_scalar(name, line[name], done, walltime=line["unix_time"])
                    self._board.flush()
        speed = "" if rate is None else f", {rate:,.0f}/s"
        return f"loss {loss:.4f}{speed}, {memory / 1e9:.2f} GB"


def require_board() -> None:
    """See that TensorBoard is installed.

    Raises:
        SettingError: it is not.
    """
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError:
        raise SettingError("--tensorboard needs TensorBoard: pip install 'fastrain[tensorboard]'.") from None


def _events(folder: Path) -> Any:
    require_board()
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder))  # type: ignore[no-untyped-call]


def read_journal(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a journal; what a kill or a full disk cut off is passed over."""
    lines: list[dict[str, Any]] = []
    with contextlib.suppress(OSError, UnicodeDecodeError):
        for text in path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError, LookupError, TypeError):
                line = json.loads(text)
                if isinstance(line["step"], int):
                    lines.append(line)
    return lines
