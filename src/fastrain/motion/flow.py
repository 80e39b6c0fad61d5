"""Dense optical flow of rain, by iterative Lucas–Kanade from coarse to fine over several pairs of frames at once.

At each scale the earlier frame of each pair is moved by the flow so far; what is left gives, in a Gaussian window, the
least-squares step. All pairs share one flow, so that an echo that grows in one pair does not bend it. Where a window
holds no texture the flow is filled from its neighbours by their certainty; where nothing moves it is zero.

Source: Lucas and Kanade (1981); Bouguet (2000) for the pyramid; Knutsson and Westin (1993), normalised convolution,
for the filling.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from fastrain.motion.advect import sample
from fastrain.motion.rows import Taps, filter_map


@dataclass(frozen=True)
class FlowSettings:
    """How the flow is sought.

    Attributes:
        window: standard deviation of the least-squares window, cells, at every scale.
        smooth: standard deviation of the blur of the frames at every scale, cells.
        iterations: at each scale.
        smallest: edge, in cells, at which no coarser scale is made.
        stiffness: how strongly a step is held back, as a share of the mean squared gradient.
        fill: standard deviation of the filling from certain neighbours, cells of the finest scale.
    """

    window: float = 6.0
    smooth: float = 1.0
    iterations: int = 4
    smallest: int = 12
    stiffness: float = 0.02
    fill: float = 5.0


def signal_of(rain_rate: Float[Tensor, "*shape"], floor: float = 0.1) -> Float[Tensor, "*shape"]:
    """Return what the flow is sought in: the rain rate's logarithm above `floor` mm/h, in units of 10 dB; 0 below."""
    return torch.log10(rain_rate.clamp(min=floor) / floor)


def estimate_motion(
    signal: Float[Tensor, "batch time y x"],
    observed: Bool[Tensor, "batch time y x"],
    settings: FlowSettings | None = None,
) -> Float[Tensor, "batch 2 y x"]:
    """Return the motion in cells per frame, (dy, dx), rows southward and columns eastward.

    Args:
        signal: two or more successive frames, the last one the latest; see `signal_of`.
        observed: where they were observed.
        settings: see there.
    """
    s = settings or FlowSettings()
    signal = torch.where(observed, signal, 0.0).float()
    pyramid = [(_blur(signal, s.smooth), observed.float())]
    while min(pyramid[-1][0].shape[-2:]) >= 2 * s.smallest:
        pyramid.append(_halve(*pyramid[-1], s.smooth))
    batch = signal.shape[0]
    flow = torch.zeros(batch, 2, *pyramid[-1][0].shape[-2:], device=signal.device)
    certainty = torch.zeros(batch, 1, *flow.shape[-2:], device=signal.device)
    for scale, (frames, seen) in reversed(list(enumerate(pyramid))):
        size = frames.shape[-2:]
        if flow.shape[-2:] != size:
            ratio = torch.tensor([size[0] / flow.shape[-2], size[1] / flow.shape[-1]], device=signal.device)
            ratio = ratio.view(1, 2, 1, 1)
            flow = F.interpolate(flow, size=size, mode="bilinear", align_corners=False) * ratio
        for _ in range(s.iterations):
            step, certainty = _step(frames, seen, flow, s)
            # No step is longer than half a window: a wilder one is a sign of no texture, not of speed.
            length = step.square().sum(dim=1, keepdim=True).sqrt()
            flow = flow + step * (0.5 * s.window / length.clamp(min=0.5 * s.window))
            flow = _fill(flow, certainty, max(1.0, s.fill / 2**scale))
    return flow


def _step(frames: Tensor, seen: Tensor, flow: Tensor, s: FlowSettings) -> tuple[Tensor, Tensor]:
    """Return the least-squares step of the flow (batch, 2, y, x) and its certainty (batch, 1, y, x)."""
    batch, time, height, width = frames.shape
    pairs = time - 1
    before = frames[:, :-1].reshape(batch * pairs, 1, height, width)
    after = frames[:, 1:].reshape(batch * pairs, 1, height, width)
    weight_before = seen[:, :-1].reshape(batch * pairs, 1, height, width)
    weight_after = seen[:, 1:].reshape(batch * pairs, 1, height, width)
    shared = flow.repeat_interleave(pairs, dim=0)
    moved = sample(torch.cat([before, weight_before], dim=1), -shared)
    warped, weight = moved[:, :1], moved[:, 1:] * weight_after
    gradient_y, gradient_x = _gradient((warped + after) / 2)
    left = after - warped
    # Down-weight what grew or decayed rather than moved (Huber's weight at half a unit, 5 dB).
    weight = weight * (0.5 / left.abs().clamp(min=0.5))
    products = torch.cat(
        [gradient_y**2, gradient_x**2, gradient_y * gradient_x, gradient_y * left, gradient_x * left], dim=1
    )
    sums = (products * weight).view(batch, pairs, 5, height, width).sum(dim=1)  # (batch, 5, y, x)
    yy, xx, yx, yl, xl = _blur(sums, s.window).unbind(dim=1)
    held = s.stiffness * (sums[:, 0] + sums[:, 1]).mean(dim=(-2, -1), keepdim=True) + 1e-6
    yy, xx = yy + held, xx + held
    determinant = yy * xx - yx * yx
    step = torch.stack([-(xx * yl - yx * xl), -(yy * xl - yx * yl)], dim=1) / determinant.unsqueeze(1)
    # The smaller eigenvalue: how well the window fixes the motion in its worst direction.
    mean = (yy + xx) / 2
    smaller = mean - torch.sqrt(((yy - xx) / 2) ** 2 + yx * yx)
    certainty = ((smaller - held).clamp(min=0.0) / held).unsqueeze(1)
    return step, certainty


def _fill(flow: Tensor, certainty: Tensor, sigma: float) -> Tensor:
    """Return the flow smoothed by certainty, falling back to the mean flow where nothing is near."""
    overall = (flow * certainty).sum(dim=(-2, -1), keepdim=True) / certainty.sum(dim=(-2, -1), keepdim=True).clamp(
        min=1e-6
    )
    near = _blur(certainty, sigma)
    smooth = _blur(flow * certainty, sigma)
    little = 0.02 * certainty.mean(dim=(-2, -1), keepdim=True) + 1e-9
    return (smooth + overall * little) / (near + little)


def _gradient(field: Tensor) -> tuple[Tensor, Tensor]:
    padded = F.pad(field, (1, 1, 1, 1), mode="replicate")
    return (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2, (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2


def _halve(frames: Tensor, seen: Tensor, smooth: float) -> tuple[Tensor, Tensor]:
    return _blur(F.avg_pool2d(frames, 2, ceil_mode=True), smooth / 2), F.avg_pool2d(seen, 2, ceil_mode=True)


def _blur(field: Tensor, sigma: float) -> Tensor:
    """Return a field under a Gaussian of `sigma` cells, edges mirrored by their own value."""
    return filter_map(field, _gaussian(sigma), "border")


@lru_cache(maxsize=64)
def _gaussian(sigma: float) -> Taps:
    """Return the weights of a Gaussian of `sigma` cells."""
    radius = max(1, round(2.5 * sigma))
    taps = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, dtype=torch.float64) / sigma) ** 2)
    return tuple((taps / taps.sum()).tolist())
