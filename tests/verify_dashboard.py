"""Has Grafana's own schema read the dashboard: `make deploy-check` runs this in the environment of its tools.

Grafana ignores a field that it does not know, and shows a panel without what it was to say. What the schema's classes
do not write back is such a field.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

DASHBOARD = Path(__file__).parents[1] / "deploy" / "grafana" / "dashboard.json"


def unknown(written: object, read: object, where: str) -> Iterator[str]:
    """The paths of what was written and not read. What Grafana adds by itself is none of them."""
    if isinstance(written, dict) and isinstance(read, dict):
        for name, value in written.items():
            yield from unknown(value, read.get(name), f"{where}.{name}")
    elif isinstance(written, list) and isinstance(read, list) and len(written) == len(read):
        for number, pair in enumerate(zip(written, read, strict=True)):
            yield from unknown(*pair, f"{where}[{number}]")
    elif written != read:
        yield where


def main() -> int:
    """0 where all of it is known."""
    plugins.register_default_plugins()
    written = json.loads(DASHBOARD.read_text())
    read = json.loads(JSONEncoder().encode(Dashboard.from_json(written)))
    found = [*unknown(written, read, "dashboard")]
    for where in found:
        print(f"{DASHBOARD.name}: Grafana's schema has no {where}, or another value there")
    if not found:
        print(f"{DASHBOARD.name}: {len(written['panels'])} panels, as Grafana's schema has them")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
