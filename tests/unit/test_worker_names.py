"""Workers are told apart where a group's members are listed, whichever runner they use."""

from __future__ import annotations

import os
import re
import socket

import pytest

from config.settings import Settings
from streams.runners.consumer import consumer_config
from streams.runners.faust import faust_settings


def test_a_worker_is_named_by_host_and_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """C12: the System page shows the client's id; several workers may run on one address."""
    monkeypatch.setattr(socket, "gethostname", lambda: "büro.1")
    settings = Settings.model_validate({"kafka_bootstrap": "127.0.0.1:1"})
    names = {consumer_config(settings)["client.id"], faust_settings(settings)["broker_client_id"]}
    assert names == {f"bidden-worker-b_ro.1-{os.getpid()}"}
    assert re.fullmatch(r"[A-Za-z0-9._-]+", names.pop())
