"""The command line, `bidden`: reads arguments, wires the parts together, prints results, and sets the exit code."""
