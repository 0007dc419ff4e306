"""Reading runs: one, or many side by side as tables."""
