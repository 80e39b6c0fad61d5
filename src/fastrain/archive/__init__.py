"""The archive: every frame of a radar at several coarsenesses, in one place that survives anything.

`coarsen` makes the blocks, `schema` says what lies where, `store` writes and reads, `view` opens it in xarray.
"""
