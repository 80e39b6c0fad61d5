"""What a training of a map's network takes of memory, by arithmetic, and how what is allowed is shared out.

The counts of bytes a cell were taken from measured peaks (`benchmarks/plan.py`); everything else is what arrays hold.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastrain.archive.store import Archive
from fastrain.core.errors import TooBig
from fastrain.core.memory import available_bytes, resident_bytes
from fastrain.core.processes import local_processes
from fastrain.engine.precision import Precision, fast_precision
from fastrain.engine.threads import cores
from fastrain.rain.batches import BATCH, BLOCK, crop_of
from fastrain.rain.inputs import channels_of
from fastrain.rain.radar import Radar
from fastrain.rain.settle import settled_cells
from fastrain.rain.smoothing import GUESSES

FRAMES_AT_MOST = 2**27  # bytes of frames that are read together; more gains nothing
LEARNING = 190_000_000  # bytes of kernels, torch's and numba's, and of optimisers, once there is anything to be learned
# Bytes of a training step for each cell of its batch and channel of the finest scale, in bfloat16 with AMX and in
# float32 with AVX-512: as they are, and where maps are computed again.
STEP: dict[Precision, float] = {"bfloat16": 142.0, "float16": 142.0, "float32": 180.0}
LEAN_STEP: dict[Precision, float] = {"bfloat16": 101.0, "float16": 101.0, "float32": 135.0}
# Bytes of a look at a whole map for each of its cells and channel of the finest scale.
LOOK: dict[Precision, float] = {"bfloat16": 24.0, "float16": 24.0, "float32": 42.0}
SETTLE = 48.0  # bytes of settling the calibration for each logit of the cells that are drawn for it


@dataclass(frozen=True)
class Needs:
    """What a training takes of memory, in bytes.

    Attributes:
        base: what the program takes before it begins.
        step: of the network on a batch, on the way there and back.
        lean_step: the same where maps are computed again on the way back.
        blocks: two blocks of crops: one that is learned from, and the next one; or those that a batch lies between.
        making: of making one window.
        window: one window, made.
        judging: of a window's forecasts by the network and all baselines.
        settling: of the calibration, on cells of many windows.
        frames: that are read together, when windows of the calibration time are judged.
    """

    base: int
    step: int
    lean_step: int
    blocks: int
    making: int
    window: int
    judging: int
    settling: int
    frames: int

    def peak(self, *, lean: bool, makers: int, kept: int) -> int:
        """Return the most that is taken at a time.

        Args:
            lean: whether maps are computed again on the way back.
            makers: threads that make windows while the network learns; none makes them in between.
            kept: bytes of windows that are kept.
        """
        step = self.lean_step if lean else self.step
        if makers:
            learning = self.blocks + step + makers * (self.making + self.window)
        else:
            learning = self.blocks + max(step, self.making + self.window)
        settling = self.making + self.window + max(self.settling, self.judging + self.frames)
        return self.base + LEARNING + max(learning + kept, settling)

    @property
    def least(self) -> int:
        """The least that a training can do with."""
        return self.peak(lean=True, makers=0, kept=0)


@dataclass(frozen=True)
class Allowed:
    """How a training keeps within what it may take; none of it changes what it comes to.

    Attributes:
        lean: whether maps are computed again on the way back.
        makers: threads that make windows while the network learns.
        kept: bytes of windows that may be kept.
    """

    lean: bool
    makers: int
    kept: int

    @classmethod
    def within(cls, needs: Needs, memory: int) -> Allowed | None:
        """Return how a training keeps within some bytes; None where it cannot."""
        for lean, makers in ((False, max(1, cores() // 2)), (False, 1), (False, 0), (True, 1), (True, 0)):
            free = memory - needs.peak(lean=lean, makers=makers, kept=0)
            if free >= 0:
                return cls(lean, makers, free)
        return None


def allowed_bytes(memory: int | None) -> int:
    """Return the memory that a training may take: what the user says, or what it has and half of what is free.

    Processes that train together on one machine share it.
    """
    if memory is not None:
        return memory // local_processes()
    return resident_bytes() + available_bytes() // (2 * local_processes())


def too_big(coarseness: int, least: int, memory: int, others: list[tuple[int, int]], *more: str) -> TooBig:
    """Return the error of a training that takes more than it may, with what would fit.

    Args:
        coarseness: asked for.
        least: bytes that it can do with.
        memory: bytes that may be used.
        others: other coarsenesses, and the bytes that each can do with.
        more: other ways.
    """
    ways = [f"--coarseness {c} ({as_size(need)})" for c, need in others if need <= memory][:1]
    if least <= resident_bytes() + available_bytes():
        ways.append(f"--memory {as_size(1.02 * least)}")
    return TooBig(
        f"Training at coarseness {coarseness} takes at least {as_size(least)} of memory, and {as_size(memory)} may be "
        f"used. What may fit: {'; or '.join((*ways, *more)) or 'an archive of a larger --coarseness'}. `fastrain plan` "
        "lists all."
    )


def as_size(count: float) -> str:
    """Return a number of bytes, rounded up, as `--memory` takes it."""
    return f"{-(-count // 1e7) / 100:.2f}GB"


def grid_needs(
    archive: Archive, coarseness: int, radar: Radar, width: int, *, calibrated: int, base: int | None = None
) -> Needs:
    """Return what a training of a map's network takes.

    Args:
        archive: to learn from.
        coarseness: of the cells.
        radar: of the archive.
        width: of the network.
        calibrated: windows that the calibration is settled on.
        base: bytes that the program takes before; what it takes now if None.
    """
    shape = archive.schema.grid.coarsened(coarseness).shape
    cells = shape[0] * shape[1]
    height, across = crop_of(shape)
    layout = radar.layout
    periods, thresholds = len(layout.periods), len(radar.thresholds)
    guesses = thresholds * GUESSES
    channels = channels_of(thresholds)
    a_cell = periods * (2 * channels + 2 * guesses + 1)  # half precision, and the truth
    steps = layout.ahead + max(radar.ages)
    longest = max(b - a for a, b in layout.periods)
    making = (
        3 * layout.length  # frames
        + layout.history * (4 + 4 + 8 + 1)  # rain rates
        + 8 * steps  # displacements
        + 4 * 4 * longest  # the last frame, carried to every step of a period
        + periods * (4 + 1 + 2 * 4 * guesses)  # what passes, and first guesses
        + 3 * 3 * 4 * (thresholds + 1)  # of three frames what is told and its scales
        + (16 * periods * thresholds + 12 * (4 * thresholds + 1))  # what follows from how it faded
        + 3 * 4 * channels  # one period's channels
    ) * cells
    judged = periods * thresholds * 8 * 8 * cells  # chances of the network and of five baselines, events and errors
    batch, precision = BATCH * height * across, fast_precision("cpu")
    return Needs(
        base=resident_bytes() if base is None else base,
        step=int(STEP[precision] * width * batch),
        lean_step=int(LEAN_STEP[precision] * width * batch),
        blocks=2 * BLOCK * height * across * a_cell,
        making=making,
        window=a_cell * cells,
        judging=int(judged + LOOK[precision] * width * cells),
        settling=int(SETTLE * settled_cells(cells, calibrated) * periods * thresholds),
        frames=3 * layout.length * cells + min(FRAMES_AT_MOST, 3 * layout.length * cells * calibrated),
    )


# Bytes of a step of a place's network for each window of its batch: in any case, and a channel of its widest map.
PLACE_STEP = {"place": (0.0, 38.2e3), "ancestor": (1.79e6, 0.0)}
INPUTS_HELD = 4  # times a batch's inputs: this one's and the next one's, each as they are made and as they are turned
PLACE_FRAMES = 2**28  # bytes of frames that are read together, however much is allowed: more gains nothing
FEWEST_FRAMES = 2**24  # of which at least one window's
MADE_AT_ONCE = 32  # frames whose rain rates are numbers at a time
A_RATE = 40.0  # bytes of a cell of theirs


@dataclass(frozen=True)
class Batched:
    """A batch of a place's windows.

    Attributes:
        windows: how many.
        record_bytes: that are read from the disk for each.
        input_bytes: of the inputs made of them.
    """

    windows: int
    record_bytes: int
    input_bytes: int


@dataclass(frozen=True)
class PlaceNeeds:
    """What training a place's network takes of memory, in bytes.

    Attributes:
        base: what the program takes before it begins.
        window: frames of a single window.
        making: of making windows ready, beside their frames.
        step: of the network on a batch.
    """

    base: int
    window: int
    making: int
    step: int

    def frames(self, memory: int) -> int:
        """Return the bytes that frames may take where so much memory is allowed."""
        return max(self.window, min(PLACE_FRAMES, memory - self.base - LEARNING - self.making))

    def peak(self, memory: int) -> int:
        """Return the most that is taken at a time where so much memory is allowed."""
        return self.base + LEARNING + max(self.frames(memory) + self.making, self.step)

    @property
    def least(self) -> int:
        """The least that a training can do with."""
        return self.peak(0)


def place_needs(
    archive: Archive, coarseness: int, radar: Radar, recipe: str, batch: Batched, width: int, base: int | None = None
) -> PlaceNeeds:
    """Return what training a place's network takes; see `grid_needs`."""
    rows, columns = archive.schema.grid.coarsened(coarseness).shape
    a_window, a_channel = PLACE_STEP[recipe]
    learned = a_window + a_channel * width
    return PlaceNeeds(
        base=resident_bytes() if base is None else base,
        window=max(FEWEST_FRAMES, 3 * radar.layout.length * rows * columns),
        making=int(A_RATE * MADE_AT_ONCE * rows * columns),
        step=int(batch.windows * (learned + batch.record_bytes + INPUTS_HELD * batch.input_bytes)),
    )
