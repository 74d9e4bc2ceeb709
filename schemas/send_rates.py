"""How many mails may be sent in which time: the rates that are set, as text and as values. Pure.

BIDDEN_SEND_RATE         14/s,50000/day                for the mail server
BIDDEN_SEND_RATE_DOMAIN  example.com=2/s;*=10/s,500/h  for each recipient domain; `*`: each one not named
BIDDEN_SEND_WARMUP       200/day,500/day,1000/day      day by day since the first mail under it; then no limit
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

SECOND: Final = 1
DAY: Final = 86_400
_UNITS: Final[Mapping[str, int]] = {
    **dict.fromkeys(("s", "sec", "second"), SECOND),
    **dict.fromkeys(("min", "minute"), 60),
    **dict.fromkeys(("h", "hour"), 3600),
    **dict.fromkeys(("d", "day"), DAY),
}
_SHORTEST: Final[Mapping[int, str]] = {SECOND: "s", 60: "min", 3600: "h", DAY: "day"}
_RATE: Final = re.compile(r"([0-9]{1,9}) ?/ ?([A-Za-z]+)")
_DOMAIN: Final = re.compile(r"[^\s@/,;=*<>\x00-\x1f\x7f]{1,253}")
_MOST_DOMAINS: Final = 1000
_MOST_DAYS: Final = 366
ANY_DOMAIN: Final = "*"
#: The scope of the mail server in the ledger's tables; the others are recipient domains.
SERVER: Final = ""


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `count` mails in any `seconds` (1, 60, 3600 or 86400)."""

    count: int
    seconds: int

    @property
    def per_second(self) -> float:
        """The average."""
        return self.count / self.seconds

    def __str__(self) -> str:
        return f"{self.count}/{_SHORTEST[self.seconds]}"


@dataclass(frozen=True, slots=True)
class SendRates:
    """The rates that are set. All hold at once; none at all where everything is empty."""

    server: tuple[Rate, ...] = ()
    #: By domain in lower case; `*` for each domain that is not named.
    domains: Mapping[str, tuple[Rate, ...]] = field(default_factory=dict)
    #: Mails of the first day, the second, and so on.
    warmup: tuple[int, ...] = ()

    def of_domain(self, domain: str) -> tuple[Rate, ...]:
        """The rates of one recipient domain."""
        return self.domains.get(domain, self.domains.get(ANY_DOMAIN, ()))

    def __bool__(self) -> bool:
        return bool(self.server or self.domains or self.warmup)


def parse(rate: str | None, domains: str | None, warmup: str | None) -> SendRates:
    """All three settings. ValueError says which form is expected."""
    return SendRates(
        parse_rates(rate) if rate else (),
        parse_domains(domains) if domains else {},
        parse_warmup(warmup) if warmup else (),
    )


def parse_rates(text: str) -> tuple[Rate, ...]:
    """`14/s,50000/day`. ValueError for anything else."""
    rates = tuple(_rate(part) for part in text.split(","))
    units = [rate.seconds for rate in rates]
    if len(set(units)) < len(units):
        raise ValueError(f"{text.strip()!r} has two rates for the same time")
    return tuple(sorted(rates, key=lambda rate: rate.seconds))


def parse_domains(text: str) -> dict[str, tuple[Rate, ...]]:
    """`example.com=2/s;*=10/s`. A domain beyond ASCII is written in either form."""
    found: dict[str, tuple[Rate, ...]] = {}
    for part in text.split(";"):
        name, equals, rates = part.partition("=")
        name = name.strip()
        if not equals or (name != ANY_DOMAIN and not _DOMAIN.fullmatch(name)):
            raise ValueError("must look like example.com=2/s;*=10/s,500/h")
        domain = name if name == ANY_DOMAIN else normalize_domain(name)
        if domain in found:
            raise ValueError(f"names {domain} twice")
        found[domain] = parse_rates(rates)
    if len(found) > _MOST_DOMAINS:
        raise ValueError(f"names more than {_MOST_DOMAINS} domains")
    return found


def parse_warmup(text: str) -> tuple[int, ...]:
    """`200/day,500/day,1000/day`."""
    rates = [_rate(part) for part in text.split(",")]
    if any(rate.seconds != DAY for rate in rates):
        raise ValueError("must look like 200/day,500/day,1000/day: one for each day, in order")
    if len(rates) > _MOST_DAYS:
        raise ValueError(f"has more than {_MOST_DAYS} days")
    return tuple(rate.count for rate in rates)


def normalize_domain(domain: str) -> str:
    """The domain as scopes are named: in lower case, ASCII, without a dot at the end."""
    domain = domain.lower().rstrip(".")
    if not domain.isascii():
        try:
            return domain.encode("idna").decode()
        except UnicodeError:
            return domain
    return domain


def domain_of(address: str) -> str:
    """The scope of a recipient's address. Never empty: that is the server's."""
    return normalize_domain(address.rpartition("@")[2]) or "invalid"


def as_text(rates: Iterable[Rate]) -> str:
    """`14/s,50000/day`."""
    return ",".join(map(str, rates))


def _rate(text: str) -> Rate:
    match = _RATE.fullmatch(text.strip())
    seconds = _UNITS.get(match[2].lower()) if match else None
    if match is None or seconds is None or int(match[1]) < 1:
        raise ValueError("must look like 14/s, 600/min, 1000/h or 50000/day, or several separated by commas")
    return Rate(int(match[1]), seconds)
