"""Simpler predictors of forgetting, side by side with the forecast."""
