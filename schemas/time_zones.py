"""The names of time zones: IANA's, and those of Rails (`ActiveSupport::TimeZone`), which stand for one of IANA's.

The names of Rails are data: `rails_time_zones.json`.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files


@cache
def known_time_zones() -> frozenset[str]:
    """The IANA names of the `tzdata` package: the same on every machine, unlike the system's zone files."""
    return frozenset(files("tzdata").joinpath("zones").read_text(encoding="utf-8").split())


@cache
def rails_time_zones() -> dict[str, str]:
    """The IANA name of each name that Rails has for a time zone."""
    names: dict[str, str] = json.loads(files("schemas").joinpath("rails_time_zones.json").read_text(encoding="utf-8"))
    return names


def iana_time_zone(name: str) -> str:
    """The IANA name of a time zone that is named as IANA does, or else as Rails does. ValueError for any other name."""
    if name in known_time_zones():
        return name
    known = rails_time_zones().get(name)
    if known is None:
        raise ValueError("must be the name of a time zone, such as Europe/London")
    return known
