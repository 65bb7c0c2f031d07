"""Side-by-side measurements of the recorder and of what a user would take instead. Not part of the wheel."""
