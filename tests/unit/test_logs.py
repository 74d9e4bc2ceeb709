"""Logs: repeated messages of libraries are throttled, and have the format of our own."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import pytest
import structlog

from config.log_throttle import INTERVAL_SECONDS, LogThrottle
from config.logs import LibraryLogFilter, set_up_logs
from config.settings import Settings
from tests.tables import ROOT


def record(message: str, *parameters: object, name: str = "aiokafka") -> logging.LogRecord:
    return logging.LogRecord(name, logging.ERROR, __file__, 1, message, parameters, None)


def test_a_library_logs_the_same_message_once_per_interval() -> None:
    """FM-30: a client that fails to connect 75 times a second does not fill the disk with logs."""
    now = [0.0]
    throttled = LibraryLogFilter(LogThrottle(lambda: now[0]))
    assert throttled.filter(record("no connection to %s", 1))
    assert not throttled.filter(record("no connection to %s", 2))
    assert throttled.filter(record("no connection to %s", 1, name="another"))
    assert throttled.filter(record("something else"))
    now[0] = INTERVAL_SECONDS - 0.1
    assert not throttled.filter(record("no connection to %s", 1))
    now[0] = INTERVAL_SECONDS
    assert throttled.filter(record("no connection to %s", 1))


def test_the_throttle_forgets_keys_whose_interval_is_over() -> None:
    """A process that runs for months does not keep every text that it ever logged."""
    now = [0.0]
    throttle = LogThrottle(lambda: now[0])
    throttled = LibraryLogFilter(throttle)
    for number in range(100):
        now[0] += INTERVAL_SECONDS / 10
        assert throttled.filter(record(f"offset {number}"))
    assert len(throttle._logged_at) <= 10


def test_the_throttle_admits_once_per_interval_and_at_once_after_a_reset() -> None:
    """Without a key it throttles one condition; a new outage is logged at once."""
    now = [1000.0]
    throttle = LogThrottle(lambda: now[0])
    assert throttle.admits()
    now[0] += INTERVAL_SECONDS - 0.1
    assert not throttle.admits()
    assert throttle.admits("another condition")
    now[0] += 0.1
    assert throttle.admits()
    assert not throttle.admits()
    throttle.reset()
    assert throttle.admits()


def test_logs_of_libraries_are_json_too() -> None:
    """With BIDDEN_LOG_FORMAT=json every line is an object, also a library's with its traceback."""
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
    due = DueWebhook("batch-1", 1, 2, "https://example.org", word.encode(), 1, None)
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


def test_a_log_call_outlives_the_stderr_of_its_set_up() -> None:
    """A caller in the same process, such as a test runner, replaces stderr and closes its own afterwards."""
    code = (
        "import io, logging, sys, structlog\n"
        "from config.logs import set_up_logs\n"
        "from config.settings import Settings\n"
        "real, sys.stderr = sys.stderr, io.StringIO()\n"
        "set_up_logs(Settings(log_format='json'))\n"
        "log = structlog.get_logger()\n"
        "log.warning('before')\n"
        "sys.stderr.close()\n"
        "log.warning('into a closed one')\n"
        "sys.stderr = real\n"
        "log.warning('ours')\n"
        "logging.getLogger('library').warning('theirs')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert [json.loads(line)["event"] for line in done.stderr.splitlines()] == ["ours", "theirs"]


def test_what_a_test_set_up_is_gone_in_the_next() -> None:
    """The tests' own: a module whose log was used before is captured all the same."""
    log = structlog.get_logger()
    for _ in range(2):
        set_up_logs(Settings(log_format="json", _env_file=None))  # type: ignore[call-arg] # pydantic-settings
        log.info("somewhere")
    with structlog.testing.capture_logs() as logged:
        log.info("here")
    assert [entry["event"] for entry in logged] == ["here"]
