"""The command line, `bidden`: reads arguments, wires the parts together, prints, and returns an exit code."""
