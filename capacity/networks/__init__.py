"""Networks as functions of one flat vector, and the door that they come in through."""
