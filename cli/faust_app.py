"""The worker as a Faust application, to run it as Faust does: `faust -A cli.faust_app worker`."""

from __future__ import annotations

from cli.wiring import build_worker
from config.startup import load
from streams.runners.faust import build

_settings = load()
app = build(_settings, lambda heartbeat: build_worker(_settings, heartbeat))
