"""Writes the OpenAPI document to docs/openapi.json, or checks that it is up to date.

`python -m web.api.export [--check]`
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

from starlette.datastructures import State

from web.api.application import build

_PATH: Final = Path(__file__).resolve().parents[2] / "docs" / "openapi.json"


def document() -> str:
    """The content of the file."""
    return json.dumps(build(State()).openapi(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def main(arguments: list[str]) -> int:
    """0; 1 with `--check` if the file is out of date."""
    text = document()
    if _PATH.exists() and _PATH.read_text(encoding="utf-8") == text:
        return 0
    if "--check" in arguments:
        sys.stderr.write(f"{_PATH} is out of date: run `make schemas`\n")
        return 1
    _PATH.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
