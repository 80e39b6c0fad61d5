"""Windows of an archive: what its length allows, how time is split, and the truth of each period."""
