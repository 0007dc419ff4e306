"""What somebody adds to the project, each in one file and one line."""
