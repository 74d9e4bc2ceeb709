"""One module per group of commands. Each reads its words, calls the parts, prints, and returns an exit code."""
