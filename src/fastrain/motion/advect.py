"""Semi-Lagrangian advection: where the air over a place came from, and what it carried.

The flow is steady; trajectories are followed backwards through it, a step at a time, with the velocity of the middle of
each step. What flows in from outside, or from where nothing was observed, is not observed.

Source: Germann and Zawadzki (2002), doi:10.1175/1520-0493(2002)130<2859:SDOTPO>2.0.CO;2.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

LARGE = 2**18  # cells of a map from which on a kernel of our own carries it on a CPU


def displacements(flow: Float[Tensor, "batch 2 y x"], steps: int) -> Float[Tensor, "batch steps 2 y x"]:
    """Return how far the air over each cell has travelled in 1, 2, … steps, (dy, dx) in cells.

    Args:
        flow: cells per step.
        steps: how many.
    """
    travelled = torch.zeros_like(flow)
    out = []
    for _ in range(steps):
        # Beyond the edge the flow goes on as at the edge, so that what flows in is seen to come from outside.
        near = sample(flow, -travelled, outside="border")
        travelled = travelled + sample(flow, -(travelled + 0.5 * near), outside="border")
        out.append(travelled)
    return torch.stack(out, dim=1)


def advect(
    field: Float[Tensor, "batch channel y x"],
    observed: Bool[Tensor, "batch masks y x"],
    displacement: Float[Tensor, "batch 2 y x"],
    *,
    order: Literal["nearest", "linear"] = "linear",
) -> tuple[Float[Tensor, "batch channel y x"], Bool[Tensor, "batch masks y x"]]:
    """Return the field carried by the displacement, and where that is known.

    Args:
        field: any quantity; what it holds where not observed does not matter.
        observed: where it is known; one mask for each channel, or one for all, carried but once.
        displacement: (dy, dx) in cells.
        order: linear takes the mean of the four cells around, of those observed; nearest keeps the values as they are.
    """
    learns = torch.is_grad_enabled() and (field.requires_grad or displacement.requires_grad)
    plain = field.device.type == "cpu" and field.dtype == displacement.dtype == torch.float32 and not learns
    if plain and field.shape[-2] * field.shape[-1] >= LARGE:
        each = observed.expand(-1, field.shape[1], -1, -1) if observed.shape[1] == 1 else observed
        carried, known = _on_cpu(field, each, displacement, nearest=order == "nearest")
        return carried, known[:, : observed.shape[1]]
    return _on_device(field, observed, displacement, order=order)


def _on_cpu(field: Tensor, observed: Tensor, displacement: Tensor, *, nearest: bool) -> tuple[Tensor, Tensor]:
    from fastrain.motion.on_cpu import gather

    shape = field.shape
    if observed.shape != shape or displacement.shape != (shape[0], 2, *shape[2:]):
        raise ValueError(f"a field {shape}, observed {observed.shape}, carried by {displacement.shape}")
    if field.stride(0) == 0 and observed.stride(0) == 0:  # one map, that is carried more than once
        field, observed = field[:1], observed[:1]
    rim = (1, 1, 1, 1)
    rain = F.pad(torch.where(observed, field, 0.0), rim).flatten(0, 1).flatten(1)
    seen = F.pad(observed.float(), rim).flatten(0, 1).flatten(1)
    carried, known = torch.empty(shape), torch.empty(shape, dtype=torch.bool)
    gather(rain.numpy(), seen.numpy(), displacement.contiguous().numpy(), nearest, carried.numpy(), known.numpy())
    return carried, known


def _on_device(
    field: Tensor, observed: Tensor, displacement: Tensor, *, order: Literal["nearest", "linear"]
) -> tuple[Tensor, Tensor]:
    channels = field.shape[1]
    known = observed.to(field.dtype)
    carried = sample(torch.cat([torch.where(observed, field, 0.0), known], dim=1), -displacement, order=order)
    weight = carried[:, channels:]
    return carried[:, :channels] / weight.clamp(min=1e-6), weight >= 0.5


def sample(
    field: Float[Tensor, "batch channel y x"],
    shift: Float[Tensor, "batch 2 y x"],
    *,
    order: Literal["nearest", "linear"] = "linear",
    outside: Literal["zeros", "border"] = "zeros",
) -> Float[Tensor, "batch channel y x"]:
    """Return the field at each cell plus `shift` (dy, dx); beyond the edge 0, or as at the edge."""
    height, width = field.shape[-2:]
    y = torch.arange(height, dtype=shift.dtype, device=shift.device).view(1, height, 1)
    x = torch.arange(width, dtype=shift.dtype, device=shift.device).view(1, 1, width)
    # grid_sample counts from −1 to 1 between the outer edges of the outermost cells (align_corners=False).
    grid = torch.stack(
        [(2 * (x + shift[:, 1]) + 1) / width - 1, (2 * (y + shift[:, 0]) + 1) / height - 1], dim=-1
    )  # (batch, y, x, 2)
    mode = "bilinear" if order == "linear" else "nearest"
    return F.grid_sample(field, grid.to(field.dtype), mode=mode, padding_mode=outside, align_corners=False)
