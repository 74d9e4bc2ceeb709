"""Measures the pipeline stage by stage and end to end: `make bench`, or `python -m bench --help`.

`python -m bench pages` measures the pages of the web application instead, `python -m bench scale` how the work of each
part grows with the database.

Numbers of shared machines vary: compare rows of one run, by ratio and CPU seconds, and read each next to its
calibration (the seconds of a fixed loop just before). `python -m bench.compare OLD` compares two checkouts in one run.
"""
