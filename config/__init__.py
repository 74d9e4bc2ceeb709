"""How a process is set up: settings, Kafka client configuration, logging, crash points, driver errors as ours.

Imports `schemas` and nothing else of this repository.
"""
