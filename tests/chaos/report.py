"""The figures of a run: one object for programs, one table for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass
class Report:
    """The figures of a run. `in_doubt` counts, by cause, the mails in flight at the faults: the bound on unknown."""

    seed: int
    runner: str
    members: int
    faults: Counter[str] = field(default_factory=Counter)
    #: Faults injected while mails were in flight, and the mails accepted between two faults.
    hit_in_flight: int = 0
    mails_between: list[int] = field(default_factory=list)
    in_doubt: Counter[str] = field(default_factory=Counter)
    batches: Counter[str] = field(default_factory=Counter)
    commands: Counter[str] = field(default_factory=Counter)
    exits: Counter[str] = field(default_factory=Counter)
    deliveries: Counter[str] = field(default_factory=Counter)
    events: int = 0
    mails: int = 0
    twice: int = 0
    lost: int = 0
    unknown_with_mail: int = 0
    resolved: Counter[str] = field(default_factory=Counter)
    mails_after_resolving: int = 0
    seconds: float = 0.0
    seconds_of_faults: float = 0.0
    longest_stall: float = 0.0
    seconds_to_settle: float = 0.0
    findings: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        """How many faults were injected."""
        return self.faults.total()

    @property
    def bound(self) -> int:
        """The most that may be unknown."""
        return self.in_doubt.total()

    @property
    def share_in_flight(self) -> float:
        """The share of the faults that were injected while mails were in flight."""
        return self.hit_in_flight / self.count if self.count else 0.0

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        between = sorted(self.mails_between)
        # Not `asdict`, which makes a Counter of the items of a Counter.
        return {name: dict(value) if isinstance(value, Counter) else value for name, value in vars(self).items()} | {
            "count": self.count,
            "bound": self.bound,
            "share_in_flight": round(self.share_in_flight, 3),
            "mails_between": {
                "median": between[len(between) // 2] if between else 0,
                "least": between[0] if between else 0,
                "most": between[-1] if between else 0,
                "none": between.count(0),
            },
        }

    def show(self, console: Console) -> None:
        """The table."""
        table = Table(title=f"Chaos: seed {self.seed}, runner {self.runner}", title_justify="left", show_header=False)
        table.add_column("what")
        table.add_column("figure", justify="right")
        for name, number in self.faults.most_common():
            table.add_row(name, f"{number:,}")
        table.add_section()
        pace = self.seconds_of_faults / self.count if self.count else 0.0
        table.add_row("faults", f"{self.count:,} in {self.seconds_of_faults:,.0f} s, one in {pace:.2f} s")
        table.add_row("  while mails were in flight", f"{self.hit_in_flight:,} ({self.share_in_flight:.0%})")
        between = self.as_dict()["mails_between"]
        table.add_row(
            "mails accepted between two faults",
            f"median {between['median']:,}, most {between['most']:,}, none {between['none']:,} times",
        )
        table.add_row("batches", _parts(self.batches))
        table.add_row("commands", _parts(self.commands))
        table.add_row("exit codes of processes", _parts(self.exits))
        table.add_row("longest stall", f"{self.longest_stall:.1f} s")
        table.add_row("settled after the last fault", f"{self.seconds_to_settle:.1f} s")
        table.add_section()
        table.add_row("events, mails accepted", f"{self.events:,}, {self.mails:,}")
        table.add_row("deliveries", _parts(self.deliveries))
        table.add_row("twice", f"{self.twice:,}")
        table.add_row("lost", f"{self.lost:,}")
        table.add_row(
            "unknown, at most (mails in flight at the faults)", f"{self.deliveries['unknown']:,}, {self.bound:,}"
        )
        table.add_row("  the bound by cause", _parts(self.in_doubt))
        table.add_row("  unknown that were accepted", f"{self.unknown_with_mail:,}")
        table.add_row("resolved by the mails at the server", _parts(self.resolved))
        table.add_row("mails at the end", f"{self.mails_after_resolving:,}")
        console.print(table)
        for finding in self.findings:
            console.print(f"FINDING: {finding}", markup=False, highlight=False, soft_wrap=True)
        console.print(f"{len(self.findings):,} findings", highlight=False)


def _parts(counts: Mapping[str, int]) -> str:
    return "\n".join(f"{number:,} {name}" for name, number in sorted(counts.items(), key=lambda i: -i[1]) if number)
