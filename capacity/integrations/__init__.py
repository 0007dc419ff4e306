"""Other people's training loops: thin bridges, each of which loads its library only when used."""
