"""Products with curvature: H V, G V and feature rows, from one traced graph."""
