"""The thermodynamic cost of learning."""
