"""Rules that make the mail sink misbehave on purpose, read from a JSON file.

The file holds a list of rules; the first that matches applies. When the file changes it is read again, and the
counts of `times` start over.

    [{"do": "refuse_recipient", "recipient": "gone@*", "reply": "550 5.1.1 No such user"},
     {"do": "refuse_recipient", "recipient": "*@slow.example", "reply": "451 4.7.1 Try later", "times": 2},
     {"do": "delay", "seconds": 3, "recipient": "late@*"}]

| do                 | effect                                                                | default reply           |
|--------------------|-----------------------------------------------------------------------|-------------------------|
| refuse_connection  | the greeting is this reply, and the connection is closed              | 421 4.3.2 Closing       |
| refuse_sender      | MAIL gets this reply                                                  | 451 4.3.2 Not now       |
| refuse_recipient   | RCPT gets this reply                                                  | 550 5.1.1 No such user  |
| refuse_data        | DATA gets this reply                                                  | 451 4.3.0 Try later     |
| refuse_mail        | the end of the mail gets this reply, and the mail is not stored       | 554 5.6.0 Refused       |
| drop_before_data   | the connection is dropped when DATA is read                           |                         |
| drop_in_data       | the connection is dropped after the first bytes of the mail           |                         |
| drop_after_store   | the mail is stored, and the connection dropped before the reply       |                         |
| delay              | the mail is stored, and `seconds` pass before the reply to its end    |                         |
| hold               | the mail is stored; the reply to its end waits until the rule is gone |                         |

`recipient` is a shell pattern, case-insensitive (default: any; refuse_sender comes before it is known); `times` limits
how often the rule applies (default: always). With `per_second` the rule applies only to what comes faster than that, as
at a provider with a rate limit. A reply of 421 closes the connection. A `delay` or `hold` lets a later
rule apply as well.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from schemas.errors import InputError

DEFAULT_REPLIES: Final = {
    "refuse_connection": "421 4.3.2 Closing",
    "refuse_sender": "451 4.3.2 Not now",
    "refuse_recipient": "550 5.1.1 No such user",
    "refuse_data": "451 4.3.0 Try later",
    "refuse_mail": "554 5.6.0 Refused",
    "drop_before_data": "",
    "drop_in_data": "",
    "drop_after_store": "",
    "delay": "",
    "hold": "",
}


@dataclass
class Rule:
    """One rule; `left` counts its `times` down, `tokens` are what its rate admits at this moment."""

    do: str
    reply: bytes
    seconds: float
    left: float
    matches: re.Pattern[str]
    per_second: float | None = None
    tokens: float = 1.0
    filled_at: float = 0.0

    def applies(self, now: float) -> bool:
        """Whether it applies once more. `now` is in seconds, of any clock that does not go back."""
        if self.per_second is not None:
            # A bucket of one second's worth, as providers have.
            filled = self.tokens + (now - self.filled_at) * self.per_second
            self.tokens, self.filled_at = min(max(self.per_second, 1.0), filled), now
            if self.tokens >= 1:
                self.tokens -= 1
                return False
        self.left -= 1
        return True

    @classmethod
    def parse(cls, data: Any) -> Rule:
        """A rule from its JSON object; InputError names the wrong field."""
        if not isinstance(data, dict):
            raise InputError(f"a rule is an object, not {data!r}")
        unknown = data.keys() - {"do", "recipient", "reply", "times", "seconds", "per_second"}
        if unknown:
            raise InputError(f"a rule has no {', '.join(sorted(unknown))}", field=min(unknown))
        do = data.get("do")
        if do not in DEFAULT_REPLIES:
            raise InputError(f"do is one of {', '.join(DEFAULT_REPLIES)}, not {do!r}", field="do")
        reply = str(data.get("reply", DEFAULT_REPLIES[do]))
        if DEFAULT_REPLIES[do] and not re.fullmatch(r"[245]\d\d [\x20-\x7e]*", reply):
            raise InputError(f"reply is a code and a text, such as '451 Try later', not {reply!r}", field="reply")
        times, seconds = data.get("times"), data.get("seconds", 0)
        if times is not None and (not isinstance(times, int) or times < 0):
            raise InputError(f"times is a whole number, not {times!r}", field="times")
        if not isinstance(seconds, int | float) or seconds < 0:
            raise InputError(f"seconds is a number, not {seconds!r}", field="seconds")
        per_second = data.get("per_second")
        if per_second is not None and (not isinstance(per_second, int | float) or per_second <= 0):
            raise InputError(f"per_second is a number above 0, not {per_second!r}", field="per_second")
        return cls(
            do=do,
            reply=reply.encode("ascii", "replace"),
            seconds=seconds,
            left=float("inf") if times is None else times,
            matches=re.compile(fnmatch.translate(str(data.get("recipient", "*"))), re.IGNORECASE),
            per_second=per_second,
        )


@dataclass
class Rules:
    """The rules of a file, read again when it changes."""

    path: Path | None = None
    rules: list[Rule] = field(default_factory=list)
    problem: str = ""
    _state: tuple[int, int, int] | None = None

    def refresh(self) -> None:
        """Reads the file again if it changed. An invalid file keeps the old rules and sets `problem`."""
        if self.path is None:
            return
        try:
            stat = os.stat(self.path)  # noqa: PTH116 - half the cost of Path.stat, for every mail
        except OSError:
            self.rules, self._state = [], None
            return
        state = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        if state == self._state:
            return
        self._state, self.problem = state, ""
        try:
            self.rules = parse_rules(self.path.read_text())
        except (OSError, ValueError, InputError) as error:
            self.problem = f"{self.path}: {error}"
            sys.stderr.write(f"mail sink: keeping the old rules; {self.problem}\n")

    def consume(self, do: str, recipients: Iterable[str] = ("",)) -> Rule | None:
        """The first rule of this kind that matches one of the recipients and applies; counts as one of its `times`."""
        for rule in self.rules:
            matches = rule.do == do and rule.left > 0 and any(rule.matches.match(r) for r in recipients)
            if matches and rule.applies(time.monotonic()):
                return rule
        return None


def parse_rules(text: str) -> list[Rule]:
    """The rules of a JSON text; InputError or ValueError if it is invalid."""
    data = json.loads(text)
    if not isinstance(data, list):
        raise InputError("the rules are a list")
    return [Rule.parse(rule) for rule in data]
