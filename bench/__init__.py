"""Measures the pipeline stage by stage and end to end: `make bench`, or `python -m bench --help`.

`python -m bench pages` measures the pages of the web application instead.

Numbers of shared machines swing; compare rows of one run, by their ratios and CPU seconds, and read each next to
its calibration (the seconds that a fixed loop took just before).
"""
