"""The training map's Jacobian J_t = d theta_t / d theta_0."""
