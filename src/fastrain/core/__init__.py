"""What every layer speaks in: frames, grids, times, levels and errors. Nothing here imports a heavy library at once."""
