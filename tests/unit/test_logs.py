"""Logs: what libraries say again and again is said once in a while, and in the format of our own."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import pytest

from config.logs import SAY_AGAIN_SECONDS, SayOnce
from tests.tables import ROOT


def said(message: str, *parameters: object, name: str = "aiokafka") -> logging.LogRecord:
    return logging.LogRecord(name, logging.ERROR, __file__, 1, message, parameters, None)


def test_a_library_says_the_same_once_in_a_while() -> None:
    """FM-30: a client that cannot reach its server 75 times a second does not fill the disk with it."""
    now = [0.0]
    once = SayOnce(lambda: now[0])
    assert once.filter(said("no connection to %s", 1))
    assert not once.filter(said("no connection to %s", 2))
    assert once.filter(said("no connection to %s", 1, name="another"))
    assert once.filter(said("something else"))
    now[0] = SAY_AGAIN_SECONDS - 0.1
    assert not once.filter(said("no connection to %s", 1))
    now[0] = SAY_AGAIN_SECONDS
    assert once.filter(said("no connection to %s", 1))


def test_messages_that_are_never_the_same_are_not_kept() -> None:
    """A process that runs for months does not keep what it cannot be asked about again."""
    now = [0.0]
    once = SayOnce(lambda: now[0])
    for number in range(100):
        now[0] += SAY_AGAIN_SECONDS / 10
        assert once.filter(said(f"offset {number}"))
    assert len(once._said) <= 10


def test_logs_of_libraries_are_json_too() -> None:
    """With BIDDEN_LOG_FORMAT=json every line is an object, a library's with its traceback as well."""
    code = (
        "import logging\n"
        "from config.logs import set_up_logs\n"
        "from config.settings import Settings\n"
        "set_up_logs(Settings(log_format='json'))\n"
        "try: 1 / 0\n"
        "except ZeroDivisionError: logging.getLogger('library').exception('it %s', 'broke')\n"
        "logging.getLogger('library').info('too much detail')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    (line,) = done.stderr.splitlines()
    entry = json.loads(line)
    assert (entry["event"], entry["level"], entry["logger"]) == ("it broke", "error", "library")
    assert "ZeroDivisionError" in entry["exception"]


_FAILS = """
import logging, sys, structlog
from config.logs import set_up_logs
from db.webhooks import DueWebhook
from config.settings import Settings
set_up_logs(Settings(log_format=sys.argv[1]))
def fail(word):
    due = DueWebhook(1, 2, "https://example.org", word.encode(), 1, None)
    print(due)
    raise ValueError("it broke")
def caught(log):
    try:
        fail("ses" + "ame")
    except ValueError:
        log()
caught(lambda: structlog.get_logger().exception("ours"))
caught(lambda: logging.getLogger("uvicorn.error").exception("a library's"))
caught(lambda: logging.getLogger("other").error("a library's", exc_info=sys.exc_info()))
"""


@pytest.mark.parametrize("form", ["console", "json"])
def test_no_traceback_shows_what_variables_hold(form: str) -> None:
    """They hold session tokens, passwords and secrets: our own logs and the libraries' print only where it broke."""
    done = subprocess.run([sys.executable, "-c", _FAILS, form], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr.count("ValueError: it broke") == 3
    assert "DueWebhook(" in done.stdout
    assert "sesame" not in done.stderr + done.stdout
