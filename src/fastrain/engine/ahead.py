"""The next batch made ready while a step is taken: on a CPU by a thread of its own, on a GPU in a queue of its own."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

import torch

from fastrain.engine.threads import cores

Drawn = TypeVar("Drawn")


class Ahead(Generic[Drawn]):
    """Draws batches by their step, the next one before it is asked for.

    Used as a context, which ends the thread. On a CPU all of whose cores train, batches are drawn when asked for.

    Args:
        draw: gives the batch of a step's number.
        steps: of the run; none after is drawn.
        alone: tells whether a step's batch is the same before the step before it was taken.
        device: that trains.
    """

    def __init__(
        self, draw: Callable[[int], Drawn], steps: int, alone: Callable[[int], bool], device: torch.device
    ) -> None:
        self.draw, self.steps, self.alone, self.device = draw, steps, alone, device
        self.queue = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        spare = device.type == "cuda" or torch.get_num_threads() < cores()
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="batches") if spare else None
        self._next: tuple[int, Future[Drawn]] | None = None

    def __enter__(self) -> Ahead[Drawn]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)

    def __call__(self, step: int) -> Drawn:
        """Return the batch of a step, and begin with that of the next."""
        ready, self._next = self._next, None
        if ready is not None and ready[0] == step:
            batch = ready[1].result()
            if self.queue is not None:
                torch.cuda.current_stream(self.device).wait_stream(self.queue)
        else:
            batch = self.draw(step)
        after = step + 1
        if self.pool is not None and after < self.steps and self.alone(after):
            if self.queue is not None:
                # Not before what is queued now: memory that a step gave back may be in use till then.
                self.queue.wait_stream(torch.cuda.current_stream(self.device))
            self._next = after, self.pool.submit(self._drawn, after)
        return batch

    def _drawn(self, step: int) -> Drawn:
        if self.queue is None:
            return self.draw(step)
        with torch.cuda.stream(self.queue):
            return self.draw(step)
