"""The program, as a script, with trainings of a map a third as long: those here are to end, not to forecast well."""

from fastrain.cli.main import run
from fastrain.rain import batches

batches.CELLS_FEW = batches.CELLS_MOST = 1_300_000
run()
