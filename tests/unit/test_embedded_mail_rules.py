"""The rules of the mail sink: which matches, how often, and which are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from embedded.mail_rules import DEFAULT_REPLIES, Rules, parse_rules
from schemas.errors import InputError


def rules(*data: dict[str, Any]) -> Rules:
    """Rules without a file."""
    return Rules(rules=parse_rules(json.dumps(data)))


def test_the_first_matching_rule_applies() -> None:
    """Patterns are those of a shell, case-insensitive; the order is that of the file."""
    found = rules(
        {"do": "refuse_recipient", "recipient": "gone@*"},
        {"do": "refuse_recipient", "recipient": "*@example.org", "reply": "451 4.7.1 Later"},
    )
    first = found.consume("refuse_recipient", ["GONE@example.org"])
    second = found.consume("refuse_recipient", ["ann@Example.ORG"])
    assert first is not None
    assert first.reply == b"550 5.1.1 No such user"
    assert second is not None
    assert second.reply == b"451 4.7.1 Later"
    assert found.consume("refuse_recipient", ["ann@example.com"]) is None
    assert found.consume("refuse_mail", ["gone@example.org"]) is None


def test_times_are_counted_down() -> None:
    """A rule with two `times` applies twice; one without `times` always."""
    found = rules({"do": "drop_in_data", "times": 2}, {"do": "delay", "seconds": 0.5})
    assert [found.consume("drop_in_data", ["a@b"]) is not None for _ in range(3)] == [True, True, False]
    assert all(found.consume("delay", ["a@b"]) for _ in range(50))


@pytest.mark.parametrize("do", DEFAULT_REPLIES)
def test_every_kind_has_defaults(do: str) -> None:
    """A rule without a recipient matches all recipients."""
    assert rules({"do": do}).consume(do, ["any@example.org"]) is not None


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        ({"do": "explode"}, "do"),
        ({}, "do"),
        ({"do": "delay", "second": 1}, "second"),
        ({"do": "delay", "seconds": -1}, "seconds"),
        ({"do": "refuse_data", "times": "often"}, "times"),
        ({"do": "refuse_data", "reply": "go away"}, "reply"),
        ({"do": "refuse_data", "reply": "451 a\r\n250 b"}, "reply"),
    ],
)
def test_invalid_rules_are_refused(rule: dict[str, Any], field: str) -> None:
    """The error names the invalid field."""
    with pytest.raises(InputError) as caught:
        rules(rule)
    assert caught.value.field == field


@pytest.mark.parametrize("text", ['{"do": "delay"}', "[1]"])
def test_the_file_is_a_list_of_objects(text: str) -> None:
    """Anything else is refused."""
    with pytest.raises(InputError):
        parse_rules(text)


def test_the_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    """A change applies from the next refresh on; no file means no rules; an invalid file is reported and ignored."""
    path = tmp_path / "rules.json"
    found = Rules(path)
    found.refresh()
    assert found.rules == []
    path.write_text('[{"do": "refuse_mail", "times": 1}]')
    found.refresh()
    assert found.consume("refuse_mail", ["a@b"]) is not None
    found.refresh()
    assert found.consume("refuse_mail", ["a@b"]) is None, "an unchanged file does not reset the counts"
    path.write_text('[{"do": "refuse_mail",')
    found.refresh()
    assert len(found.rules) == 1
    assert "rules.json" in found.problem
    path.write_text('[{"do": "refuse_data"}, {"do": "delay"}]')
    found.refresh()
    assert (len(found.rules), found.problem) == (2, "")
    path.unlink()
    found.refresh()
    assert found.rules == []
