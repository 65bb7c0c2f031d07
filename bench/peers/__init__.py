"""What a user would take instead, each a program of its own that prints what it read and spent."""
