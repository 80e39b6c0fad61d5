"""How rain moves: optical flow between frames, and semi-Lagrangian advection along it; all on tensors, in batches."""

from fastrain.motion.advect import advect, displacements
from fastrain.motion.flow import FlowSettings, estimate_motion, signal_of
from fastrain.motion.rows import filter_map

__all__ = ["FlowSettings", "advect", "displacements", "estimate_motion", "filter_map", "signal_of"]
