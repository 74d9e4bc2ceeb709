"""Cells of CSV files never run as formulas, in whatever locale they are opened."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime
from typing import Any

import pytest

from web.spreadsheet_cells import safe_cell


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(1)", "'@SUM(1)"),
        ("\t=1", "' =1"),
        ("\r\n=1", "' =1"),
        ("\n-1", "' -1"),
        ("  =1", "'  =1"),
        ("\u00a0=1", "'\u00a0=1"),
        ("\ufeff=1", "'\ufeff=1"),
        ('"=1', "'\"=1"),
        ("\uff1d1+1", "'\uff1d1+1"),
        ("Ada;=cmd|' /C calc'!A0", "Ada;'=cmd|' /C calc'!A0"),
        ("Ada; \t@x", "Ada;'  @x"),
        ("Ada\n=1", "Ada =1"),
        ("Ada\u2028=1", "Ada =1"),
        ("Anne-Marie + Zoë", "Anne-Marie + Zoë"),
        ("ada@example.org", "ada@example.org"),
        ("", ""),
        (-5, -5),
        (None, None),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00+00:00"),
    ],
)
def test_a_cell(value: Any, cell: Any) -> None:
    """Behind white space, line breaks, quotes and the separator of other locales; a plain text stays as it is."""
    assert safe_cell(value) == cell
    assert safe_cell(cell) == cell


def test_no_part_of_a_line_begins_with_a_formula() -> None:
    """A whole line, split as a program of another locale would split it."""
    for value in ("a;=1", 'a;"=1"', "a\r\n=1", ";;=1", 'x";=1', "a\t=1", "a;\n;+1"):
        buffer = io.StringIO()
        csv.writer(buffer).writerow([safe_cell(value), "z"])
        for row in csv.reader(buffer.getvalue().splitlines(), delimiter=";"):
            assert not any(part.strip(' "').startswith(("=", "+", "-", "@")) for part in row), row
