"""The worker as a Faust application, to run it as Faust does: `faust -A cli.faust_app worker`."""

from __future__ import annotations

from cli.monitors import open_endpoint
from cli.wiring import build_worker
from config import tracing
from config.startup import load
from streams.runners.faust import build

_settings = load()
tracing.start("bidden-worker")
open_endpoint("worker", _settings)
app = build(_settings, lambda heartbeat: build_worker(_settings, heartbeat))
