"""How Hypothesis runs: as long as an example takes on a machine that is busy."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("bidden", deadline=None)
settings.load_profile("bidden")
