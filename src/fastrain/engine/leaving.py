"""Ctrl-C and SIGTERM while a network is fitted: noted, so that the step under way can end and be saved."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

NOTED = (signal.SIGINT, signal.SIGTERM)


class Left(BaseException):
    """A training was told to leave, and has saved what it had.

    Not an Exception, which those who mean errors catch; nor a KeyboardInterrupt, of which the library under the command
    line makes an exit status without a word.

    Attributes:
        signal: that told it.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = number


class Interrupted(Exception):
    """A batch was not waited for, for the training is to leave."""


class Leaving:
    """While this is open the signals are noted; a second one acts at once, as it would have before.

    Attributes:
        asked: number of the signal that came, if one did.
    """

    def __init__(self) -> None:
        self.asked: int | None = None
        self._old: dict[int, Any] = {}

    def __enter__(self) -> Leaving:
        _open.append(self)
        # Only the main thread may say what a signal does; a training elsewhere is ended by whoever began it.
        if threading.current_thread() is threading.main_thread():
            self._old = {number: signal.signal(number, self._note) for number in NOTED}
        return self

    def __exit__(self, *_: object) -> None:
        if self in _open:
            _open.remove(self)
        self._restore()

    def _restore(self) -> None:
        for number, old in self._old.items():
            signal.signal(number, old)
        self._old = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked = number
        self._restore()


_open: list[Leaving] = []


def check_leaving() -> None:
    """Raise Interrupted if a training of this process is to leave: for whoever makes its batches and has to wait."""
    if any(one.asked is not None for one in _open):
        raise Interrupted
