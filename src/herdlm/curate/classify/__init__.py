"""Trained text classifiers: features, the linear model, and the calibration of its scores."""
