"""Kafka requests that can abort their process, run in a process of their own. For admins' pages.

librdkafka's admin client aborts the process when the brokers go away during a request about a group (ADR 15). A
command may end that way; the site must not, least of all while an admin watches an outage on it.

As a program: `python -m monitoring.probe QUESTION` with the settings as JSON on stdin; the answer is JSON on stdout.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import structlog
from pydantic import SecretStr

from config.settings import Settings
from monitoring.kafka import PAGE_TIMEOUT_SECONDS
from schemas.errors import BiddenError, UnreachableError

log = structlog.get_logger()

#: Timeouts of a whole question.
_LAG_SECONDS: Final = 9.0
#: The doctor uses the timeouts of commands, and reads the group's commits twice.
_DOCTOR_SECONDS: Final = 90.0


def lag(settings: Settings) -> dict[str, Any]:
    """The lag of the workers' group by partition, and its members. UnreachableError."""
    return dict(_ask("lag", settings, _LAG_SECONDS))


def doctor(settings: Settings) -> list[dict[str, Any]]:
    """The results of `bidden doctor`: dicts of `check`, `ok` and `detail`. UnreachableError if it does not finish."""
    return list(_ask("doctor", settings, _DOCTOR_SECONDS))


def _ask(question: str, settings: Settings, seconds: float) -> Any:
    source = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join(part for part in (source, os.environ.get("PYTHONPATH")) if part)
    try:
        # -P: modules in the working directory are not ours.
        done = subprocess.run(
            [sys.executable, "-P", "-m", "monitoring.probe", question],
            input=json.dumps(_bare(settings)),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            env={**os.environ, "PYTHONPATH": path},
        )
    except subprocess.TimeoutExpired as error:
        raise UnreachableError(f"there was no answer within {seconds:g} s") from error
    if done.returncode > 0:
        log.error("probe failed", question=question, stderr=done.stderr[-2000:])
        raise UnreachableError("the probe failed; the log has its error")
    if done.returncode < 0:
        raise UnreachableError("the connection to Kafka was lost: try again")
    answer = json.loads(done.stdout)
    if "error" in answer:
        raise UnreachableError(answer["error"])
    return answer["answer"]


def _bare(settings: Settings) -> dict[str, Any]:
    """The settings with their secrets, for a pipe and never for a log."""
    secrets = {
        name: value.get_secret_value()
        for name in Settings.model_fields
        if isinstance(value := getattr(settings, name), SecretStr)
    }
    return {**settings.model_dump(mode="json"), **secrets}


def _lag(settings: Settings) -> dict[str, Any]:
    from producers.topics import Topics

    topics = Topics(settings, PAGE_TIMEOUT_SECONDS)
    topics.check_reachable()
    held = topics.read_offsets(datetime.now(UTC)).partitions
    members = topics.members()
    return {
        "partitions": [
            {
                "partition": p,
                "earliest": offsets.earliest,
                "committed": offsets.committed,
                "end": offsets.end,
                "lag": offsets.lag,
                "has_lost_tail": offsets.has_lost_tail,
                "worker": ", ".join(member.name for member in members if p in member.partitions),
            }
            for p, offsets in sorted(held.items())
        ],
        "workers": [{"name": member.name, "partitions": sorted(member.partitions)} for member in members],
    }


def _doctor(settings: Settings) -> list[dict[str, Any]]:
    from config.rights import Process
    from monitoring.checks import run_checks

    return [asdict(result) for result in run_checks(settings, processes=[Process.WEB])]


def main() -> None:
    """Answers one question."""
    from config import driver_errors

    settings = Settings.model_validate(json.load(sys.stdin))
    result: dict[str, Any]
    try:
        result = {"answer": {"lag": _lag, "doctor": _doctor}[sys.argv[1]](settings)}
    except Exception as error:
        translated = error if isinstance(error, BiddenError) else driver_errors.translate_error(error)
        if translated is None:
            raise
        result = {"error": translated.detail}
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
