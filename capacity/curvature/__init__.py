"""Curvature operators and the Krylov methods on them."""
