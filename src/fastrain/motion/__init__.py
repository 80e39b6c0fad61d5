"""How rain moves: optical flow between frames, and semi-Lagrangian advection along it; all on tensors, in batches."""

from fastrain.motion.advect import advect, displacements
from fastrain.motion.flow import FlowSettings, estimate_motion, signal_of

__all__ = ["FlowSettings", "advect", "displacements", "estimate_motion", "signal_of"]
