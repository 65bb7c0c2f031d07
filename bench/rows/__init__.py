"""One module per row of the table; each has ``run``, which measures and returns its figures."""
