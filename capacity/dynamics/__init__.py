"""How networks learn: update maps, data order, the training loop."""
