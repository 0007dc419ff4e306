"""Runs: carried out, written, read."""
