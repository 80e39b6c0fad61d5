"""The training engine: fit, schedule, averaging, checkpoints. It sees tensors, and knows neither rain nor images."""
