"""The recipe: everything that a run depends on, read strictly and checked when it is built."""
