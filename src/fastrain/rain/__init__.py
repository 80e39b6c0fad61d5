"""The rain task: chances of rain per period and threshold, learned, forecast and scored; where everything meets."""
