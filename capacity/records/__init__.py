"""Records that estimators return, and their numbers as text."""
