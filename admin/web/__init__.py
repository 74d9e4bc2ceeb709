"""The web application: pages over the same functions as the command line."""
