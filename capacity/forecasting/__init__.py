"""Forecasts of forgetting, simpler predictors, and their scores."""
