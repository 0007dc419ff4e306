"""Compatible capacity R_A, task dimension m_B, and the criterion between them."""
