"""Scores of forecasts against what happened: arrays in, numbers with their counts out."""
