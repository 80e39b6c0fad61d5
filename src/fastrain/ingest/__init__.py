"""Files of radar data into an archive, and what an archive holds."""
