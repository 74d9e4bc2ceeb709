"""The HTTP API: what the pages do, for programs with a token."""
