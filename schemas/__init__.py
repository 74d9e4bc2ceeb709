"""What travels and what it means: messages, keys, outcomes, states, errors, settings.

Pure values and functions. Nothing in here opens a connection, reads a clock or imports another package of
this repository.
"""
