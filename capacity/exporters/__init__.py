"""Runs handed to experiment trackers: TensorBoard, MLflow, Weights & Biases."""
