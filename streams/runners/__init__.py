"""Runners: each feeds takes of messages to a worker and acknowledges them afterwards, and does nothing else."""
