"""The HTTP API for programs: what the pages do, for clients with a token."""
