"""Several processes that train one network together: each takes a part of every batch, and their gradients are summed.

Started by torchrun, on one machine or on many; gloo carries what they tell each other on CPUs, nccl on GPUs. The batch
is the same whatever the number of processes, so a run may go on with another number of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fastrain.core.errors import FastrainError, RunError, first_line
from fastrain.core.processes import processes

PATIENCE = 48 * dist.default_pg_timeout  # a day with the others: the first may have years of windows to make ready


class Group:
    """The processes of a training; one alone where none was started beside this.

    Attributes:
        rank: of this one, from 0, which speaks and writes for all.
        size: how many there are.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @property
    def first(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.rank == 0

    def total(self, values: Tensor) -> Tensor:
        """Return the sum over all processes, through which gradients flow."""
        return values if self.size == 1 else cast(Tensor, _Sum.apply(values))  # type: ignore[no-untyped-call]

    def most(self, value: int) -> int:
        """Return the largest of all processes' numbers."""
        if self.size == 1:
            return value
        told = torch.tensor([value], device=_device())
        dist.all_reduce(told, dist.ReduceOp.MAX)
        return int(told.item())

    def sum_gradients(self, model: nn.Module) -> None:
        """Give every process the sum of all gradients; one that has none of a weight adds nothing to it."""
        if self.size == 1:
            return
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        flat = torch.cat([(torch.zeros_like(w) if w.grad is None else w.grad).float().flatten() for w in weights])
        dist.all_reduce(flat)
        for weight, gradient in zip(weights, flat.split_with_sizes([w.numel() for w in weights]), strict=True):
            weight.grad = gradient.view_as(weight).to(weight.dtype)

    def same(self, value: Any) -> Any:
        """Return what the first process has, of plain values and tensors."""
        if self.size == 1:
            return value
        told = [value]
        dist.broadcast_object_list(told, src=0, device=_device())
        return told[0]

    @contextlib.contextmanager
    def first_fails_for_all(self) -> Iterator[None]:
        """Let what keeps the first process from going on keep the others from waiting for it."""
        failed: FastrainError | OSError | None = None
        try:
            yield
        except (FastrainError, OSError) as error:
            failed = error
        said = self.same(None if failed is None else str(failed)) if self.size > 1 else None
        if failed is not None:
            raise failed
        if said is not None:
            raise Done

    def agree(self, model: nn.Module) -> None:
        """Give every process the first one's weights, and make its batch norms look at all processes' maps."""
        if self.size == 1:
            return
        for tensor in (*model.parameters(), *model.buffers()):
            dist.broadcast(tensor.data, src=0)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.__class__ = _norm_of(self)


ALONE = Group()


class _Sum(torch.autograd.Function):
    """A sum over processes; whatever one of them makes of it, all have to answer for."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        out = values.clone()
        dist.all_reduce(out)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        out = gradient.contiguous().clone()
        dist.all_reduce(out)
        return out


def _norm_of(group: Group) -> type[nn.BatchNorm2d]:
    class SyncedNorm(nn.BatchNorm2d):
        """Batch norm over the maps of all processes; torch's own refuses the CPU."""

        def forward(self, x: Tensor) -> Tensor:
            if not self.training:
                return super().forward(x)
            wide = x.float()
            count = group.total(torch.tensor([x.numel() / x.shape[1]], device=x.device))
            mean = group.total(wide.sum(dim=(0, 2, 3))) / count
            # Around the mean, not the mean of squares less the square of the mean: that would lose what is small.
            variance = group.total((wide - mean[:, None, None]).square().sum(dim=(0, 2, 3))) / count
            scale = self.weight / (variance + self.eps).sqrt()
            with torch.no_grad():
                share = cast(float, self.momentum)
                cast(Tensor, self.running_mean).lerp_(mean.detach(), share)
                cast(Tensor, self.running_var).lerp_(variance.detach() * (count / (count - 1)), share)
                cast(Tensor, self.num_batches_tracked).add_(1)
            out: Tensor = (wide - mean[:, None, None]) * scale[:, None, None] + self.bias[:, None, None]
            return out.to(x.dtype)

    return SyncedNorm


def _device() -> torch.device:
    """Return where what the processes tell each other lies."""
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")


def join(device: torch.device) -> Group:
    """Return the group that torchrun started this process in; one process alone if it did not.

    Args:
        device: that this process trains on.

    Raises:
        RunError: the others do not come.
    """
    if processes() <= 1:
        return ALONE
    if not dist.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(device)
        try:
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
        except (RuntimeError, ValueError) as error:
            raise RunError(f"The processes of this training do not find each other ({first_line(error)}).") from None
    return Group(dist.get_rank(), dist.get_world_size())


def leave() -> None:
    """Let go of the other processes."""
    if dist.is_initialized():
        dist.destroy_process_group()


class Done(BaseException):
    """This process has done its part: the first one alone does the rest."""


class Lost(Exception):
    """Another process of the training is gone."""


def lost(error: RuntimeError) -> bool:
    """Tell whether an error says that another process is gone."""
    words = ("by peer", "gloo", "connection was likely closed", "timed out waiting")
    return isinstance(error, dist.DistError) or any(word in str(error).lower() for word in words)
