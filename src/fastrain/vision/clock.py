"""The clock of a training: it stands still while results are looked at."""

from __future__ import annotations

import os
import time

import torch


class Clock:
    """Seconds of training, on the wall and of the process's processors; a GPU's queue is waited for."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds = self.cpu_seconds = 0.0
        self.start()

    def start(self) -> None:
        """Go on."""
        self._wait()
        self._began, self._spent = time.perf_counter(), _cpu()

    def stop(self) -> None:
        """Stand still."""
        self._wait()
        self.seconds += time.perf_counter() - self._began
        self.cpu_seconds += _cpu() - self._spent
        self._began, self._spent = time.perf_counter(), _cpu()

    @property
    def seconds_now(self) -> float:
        """Seconds so far, while it runs."""
        self._wait()
        return self.seconds + time.perf_counter() - self._began

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _cpu() -> float:
    spent = os.times()
    return spent.user + spent.system
