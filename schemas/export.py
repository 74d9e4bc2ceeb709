"""Writes the JSON Schemas of the message and of the directory file to docs/schemas, or checks that they are current.

`python -m schemas.export [--check]`
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from schemas.directory import Line
from schemas.message import ADAPTER
from schemas.outcome_event import OutcomeEvent

_FOLDER = Path(__file__).resolve().parent.parent / "docs" / "schemas"


def documents() -> dict[str, str]:
    """The files, by name."""
    schemas: dict[str, dict[str, Any]] = {
        "invitation-due.v1.json": ADAPTER.json_schema(),
        "outcome.v1.json": OutcomeEvent.model_json_schema(),
        "directory-line.json": TypeAdapter[Any](Line).json_schema(),
    }
    return {name: json.dumps(schema, indent=2, sort_keys=True) + "\n" for name, schema in schemas.items()}


def main(arguments: list[str]) -> int:
    """Exit code: 0, or 1 with `--check` when a file differs from the models."""
    stale = []
    for name, text in documents().items():
        path = _FOLDER / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        if "--check" in arguments:
            stale.append(path)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    for path in stale:
        sys.stderr.write(f"{path} differs from the models: run `make schemas`\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
