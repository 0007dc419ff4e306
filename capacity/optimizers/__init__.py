"""Update maps: how a gradient moves the state of an optimiser."""
