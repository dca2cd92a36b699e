"""Forecasts of large models from small ones of the same procedure."""
