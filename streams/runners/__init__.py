"""Runners: each feeds a worker the records of each poll, and acknowledges them afterwards. They do nothing else."""
