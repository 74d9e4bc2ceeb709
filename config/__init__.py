"""What every process needs: settings, Kafka clients, logging, crash points, driver errors as ours.

Imports `schemas` and nothing else of this repository.
"""
