"""A stderr whose reader is gone, whose disk is full or that nobody reads: no log line raises, nor blocks for good."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import pytest

from config.standard_streams import BackgroundOutput
from tests.tables import ROOT

_LOGS = """
import logging, sys, threading, structlog
from config.logs import set_up_logs
from config.settings import Settings
set_up_logs(Settings(log_format="json"))
log = structlog.get_logger()
class Unprintable:
    def __repr__(self):
        raise ZeroDivisionError
for number in range(3000):
    log.warning("ours", number=number, text="x" * 1000)
    logging.getLogger(f"library {number}").error("a library's %s", number)
log.error("not renderable", value=Unprintable())
try:
    1 / 0
except ZeroDivisionError:
    log.exception("a traceback")
print("all was logged")
"""


def _run(stderr: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _LOGS],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        timeout=30,
        check=False,
    )


def _pipe_without_reader() -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer


@pytest.mark.parametrize("why", ["reader gone", "disk full", "nobody reads", "non-blocking, nobody reads", "closed"])
def test_logging_goes_on(why: str) -> None:
    """FM-41: six thousand log entries to such a stderr cost a moment, and the process ends with its own exit code."""
    kept = []
    if why == "reader gone":
        stderr = _pipe_without_reader()
    elif why == "disk full":
        stderr = os.open("/dev/full", os.O_WRONLY)
    elif why == "closed":
        done = subprocess.run(
            ["sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable, "-c", _LOGS],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            timeout=30,
            check=False,
        )
        assert (done.returncode, done.stdout) == (0, "all was logged\n")
        return
    else:
        reader, stderr = os.pipe()
        kept.append(reader)
        os.set_blocking(stderr, why == "nobody reads")
    began = time.monotonic()
    done = _run(stderr)
    assert (done.returncode, done.stdout) == (0, "all was logged\n")
    assert time.monotonic() - began < 30
    for descriptor in (stderr, *kept):
        os.close(descriptor)


def test_all_is_written_in_order_where_it_can_be(tmp_path: Path) -> None:
    """Each entry is in the log, in order, when the process has ended; what cannot be rendered costs its entry."""
    with (tmp_path / "log").open("wb") as file:
        done = _run(file.fileno())
    assert done.returncode == 0
    lines = (tmp_path / "log").read_text().splitlines()
    numbers = [line.partition('"number": ')[2].partition(",")[0] for line in lines if '"number"' in line]
    assert numbers == [str(number) for number in range(3000)]
    assert sum("a library's" in line for line in lines) == 3000
    assert any('"not_rendered": "ZeroDivisionError"' in line for line in lines)
    assert "a traceback" in lines[-1]


def test_each_line_is_written_before_the_next_statement() -> None:
    """What was logged before a kill -9 is in the log."""
    code = (
        "import os, signal\nfrom config.logs import set_up_logs\nfrom config.settings import Settings\n"
        "import structlog\nset_up_logs(Settings(log_format='json'))\n"
        "structlog.get_logger().error('the last words')\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == -9
    assert "the last words" in done.stderr


def test_the_log_says_how_much_of_it_is_missing() -> None:
    """FM-41: once a disk has room, or a pipe a reader, again, the log goes on, and counts what was dropped."""
    reader, writer = os.pipe()
    output = BackgroundOutput(writer, max_bytes=10_000)
    for number in range(1000):
        output.write(b"%05d " % number + b"x" * 993 + b"\n")
        if number < 10:
            output.flush()
    output.flush()
    text = b""
    while b"00999" not in text or not text.endswith(b"\n"):
        text += os.read(reader, 100_000)
    lines = text.decode().splitlines()
    dropped = sum(int(line.split()[0]) for line in lines if "could not be written" in line)
    assert dropped == 1000 - sum(line.endswith("x") for line in lines)
    assert dropped > 800
    # The oldest of those that waited were dropped: the first were in the pipe already, the last were kept.
    assert lines[0].startswith("00000")
    assert lines[-1].startswith("00999")
    assert output.drain(5)
    os.close(reader)
    os.close(writer)


def test_a_full_disk_that_has_room_again(tmp_path: Path) -> None:
    """FM-41: what was written while it was full is counted, and the next line begins a line of its own."""
    descriptor = os.open("/dev/full", os.O_WRONLY)
    output = BackgroundOutput(descriptor)
    for _ in range(3):
        output.write(b"lost\n")
        assert output.drain(5)
    with (tmp_path / "log").open("wb") as file:
        os.dup2(file.fileno(), descriptor)
    output._in_mid_line = True
    output.write(b"there is room\n")
    assert output.drain(5)
    assert (tmp_path / "log").read_text() == "\n3 lines of this log could not be written\nthere is room\n"
    os.close(descriptor)


def test_a_slow_output_is_waited_for_once() -> None:
    """FM-41: the first line that cannot be written costs a quarter of a second, all others nothing."""
    reader, writer = os.pipe()
    output = BackgroundOutput(writer)
    output.write(b"x" * 500_000)
    began = time.monotonic()
    for _ in range(1000):
        output.write(b"line\n")
        output.flush()
    assert time.monotonic() - began < 5
    rest = 500_000 + 1000 * len(b"line\n")
    while rest:
        rest -= len(os.read(reader, 1_000_000))
    assert output.drain(5)
    os.close(reader)
    os.close(writer)


@cache
def _shell(command: str, redirection: str) -> subprocess.CompletedProcess[str]:
    line = ["sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, "-P", "-m", "cli.main", *command.split()]
    env = {name: value for name, value in os.environ.items() if not name.startswith("BIDDEN_")}
    env |= {"PYTHONPATH": str(ROOT), "BIDDEN_HOME": "/nonexistent"}
    return subprocess.run(line, cwd="/", env=env, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
@pytest.mark.parametrize("command", ["--version", "batches --json", "nonsense"])
def test_commands_with_closed_streams(command: str, closed: str) -> None:
    """FM-41: a stream that was closed at start changes neither the exit code nor what the others show."""
    whole, done = _shell(command, ""), _shell(command, closed)
    assert done.returncode == whole.returncode
    assert done.stdout in {whole.stdout, ""}
    assert done.stderr in {whole.stderr, ""}
    assert "Traceback" not in done.stderr
    if closed == "<&-":
        assert (done.stdout, done.stderr) == (whole.stdout, whole.stderr)
