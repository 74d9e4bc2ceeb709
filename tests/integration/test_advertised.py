"""A Kafka that advertises an address which cannot be reached: said by every command at start, and by `doctor`."""

from __future__ import annotations

import json
import socketserver
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import pytest

from cli.main import main
from config.settings import Settings
from embedded import ports
from monitoring.checks import run_checks
from producers.advertised import out_of_reach
from producers.topics import Topics

_METADATA, _VERSIONS = 3, 18
_SUPPORTED: Final = {_METADATA: 1, _VERSIONS: 0}


def _string(text: str) -> bytes:
    return struct.pack("!h", len(text)) + text.encode()


@contextmanager
def broker(*advertised: tuple[str, int], itself: bool = False) -> Iterator[str]:
    """A broker that answers one question only: where the brokers are. Its address."""

    class Client(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):
                while head := self.rfile.read(12):
                    length, kind, version, correlation = struct.unpack("!ihhi", head)
                    self.rfile.read(length - 8)
                    body = struct.pack("!i", correlation) + answer(kind, version)
                    self.wfile.write(struct.pack("!i", len(body)) + body)

    def answer(kind: int, version: int) -> bytes:
        if kind == _VERSIONS:
            # A newer form of the question is answered in the oldest one.
            forms = b"".join(struct.pack("!hhh", api, 0, newest) for api, newest in _SUPPORTED.items())
            return struct.pack("!hi", 35 if version else 0, len(_SUPPORTED)) + forms
        brokers = b"".join(
            struct.pack("!i", number) + _string(host) + struct.pack("!ih", port, -1)
            for number, (host, port) in enumerate(known, 1)
        )
        return struct.pack("!i", len(known)) + brokers + struct.pack("!ii", 1, 0)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Client) as server:
        server.daemon_threads = True
        own = ("127.0.0.1", server.server_address[1])
        known = [*advertised, own] if itself else advertised
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"{own[0]}:{own[1]}"
        finally:
            server.shutdown()


@pytest.mark.parametrize("command", ["migrate", "dispatch", "worker"])
def test_at_start(
    command: str, database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bootstrap server answers; the error names the address that it advertises, and what to set."""
    port = ports.choose({"p": None}, {})["p"]
    monkeypatch.setenv("BIDDEN_DATABASE_URL", database_url)
    monkeypatch.setenv("BIDDEN_SMTP_URL", "smtp://127.0.0.1:1")
    with broker(("127.0.0.1", port)) as bootstrap:
        monkeypatch.setenv("BIDDEN_KAFKA_BOOTSTRAP", bootstrap)
        with pytest.raises(SystemExit) as ended:
            main([command, "--json"])
    assert ended.value.code == 3
    detail = json.loads(capsys.readouterr().err.splitlines()[-1])["detail"]
    assert detail.startswith(f"Kafka answers at {bootstrap}, but advertises 127.0.0.1:{port} (Connection refused)")
    assert "advertised.listeners" in detail


def test_doctor_names_each(database_url: str) -> None:
    """Also when only some of the brokers are out of reach, with which a command still starts."""
    values: dict[str, Any] = {"database_url": database_url}
    with broker(("no-such-host.invalid", 9092), itself=True) as bootstrap:
        settings = Settings(**values, kafka_bootstrap=bootstrap)
        assert Topics(settings).check_reachable() == 2
        assert not Topics(settings).look().is_cut_off
        problem = Topics(settings).look().problem
    assert problem is not None
    assert "advertises no-such-host.invalid:9092 (" in problem
    with broker(("no-such-host.invalid", 9092)) as bootstrap:
        found = [r for r in run_checks(Settings(**values, kafka_bootstrap=bootstrap)) if r.check == "kafka"]
    assert [(result.ok, "no-such-host.invalid:9092 (" in result.detail) for result in found] == [(False, True)]


def test_no_broker_at_all() -> None:
    """An answer without brokers is no reason to say that one cannot be reached."""
    assert out_of_reach([]) == []
