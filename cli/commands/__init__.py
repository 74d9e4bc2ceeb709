"""One module per group of commands. Each parses its arguments, calls the parts, prints, and returns an exit code."""
