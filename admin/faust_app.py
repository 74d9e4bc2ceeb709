"""The worker as a Faust application, for those who run it in Faust's own way: `faust -A admin.faust_app worker`."""

from __future__ import annotations

from admin.wiring import build_worker, load
from streams.runners.faust import build

_settings = load()
app = build(_settings, lambda pulse: build_worker(_settings, pulse))
