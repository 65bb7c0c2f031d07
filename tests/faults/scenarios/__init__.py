"""What is broken: one module per kind of fault; a scenario is a function of a folder and a seed."""
