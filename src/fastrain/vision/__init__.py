"""The image task: data sets, recipes, the speedrun. It imports nothing of the radar half."""
