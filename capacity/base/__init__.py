"""What everything stands on: checks at the door, interruption, randomness, files."""
