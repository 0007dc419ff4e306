"""The order of the data, and the loop that trains."""
