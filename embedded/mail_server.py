"""The mail sink as one of the embedded servers: its process, its rules, and what it has kept."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import psutil

from embedded.mail_rules import parse_rules
from embedded.mail_store import StoredMail, count_mails, delivery_keys, read_mails
from embedded.process import end_with_owner, write_whole
from embedded.server import Command, Progress, Server


@dataclass
class MailServer(Server):
    """The sink. `set_rules` makes it misbehave; `mails` and `delivery_keys` read what it accepted."""

    name: ClassVar[str] = "mail"
    title: ClassVar[str] = "The mail sink"
    stop_seconds: ClassVar[float] = 5.0

    @property
    def url(self) -> str:
        """What the product is given."""
        return f"smtp://127.0.0.1:{self.port}"

    def prepare(self, progress: Progress) -> None:
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self._ready_file.unlink(missing_ok=True)

    def command(self) -> Command:
        source = str(Path(__file__).resolve().parents[1])
        path = os.pathsep.join(p for p in (source, os.environ.get("PYTHONPATH")) if p)
        # -P: the working directory's folders are not ours, whatever their names are.
        words: list[str | Path] = [sys.executable, "-P", "-m", "embedded.mail_sink"]
        words += ["--port", str(self.port), "--folder", self.folder]
        words += ["--rules", self.rules_file, "--ready-file", self._ready_file]
        return Command(
            [*end_with_owner(self.stop_signal), *words],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": path},
        )

    def ready(self) -> bool:
        """It says so itself: a connection made to find out could use up a rule."""
        try:
            return self._ready_file.read_text() == str(self.pid)
        except OSError:
            return False

    def recognises(self, process: psutil.Process) -> bool:
        return "embedded.mail_sink" in process.cmdline()

    @property
    def rules_file(self) -> Path:
        """Where the rules are read from, whenever they change."""
        return self.folder / "rules.json"

    @property
    def _ready_file(self) -> Path:
        return self.folder / "ready"

    def set_rules(self, rules: Sequence[Mapping[str, Any]]) -> None:
        """From the next mail on these rules hold, with fresh counts; InputError when they make no sense."""
        text = json.dumps([dict(rule) for rule in rules], indent=1)
        parse_rules(text)
        write_whole(self.rules_file, text)

    def clear_rules(self) -> None:
        """The sink accepts everything again."""
        self.rules_file.unlink(missing_ok=True)

    def mails(self) -> Iterator[StoredMail]:
        """What was accepted, in order; also while the sink runs."""
        return read_mails(self.folder)

    def count(self) -> int:
        """How many mails were accepted."""
        return count_mails(self.folder)

    def delivery_keys(self) -> list[str]:
        """The delivery key of each accepted mail, in order."""
        return delivery_keys(self.folder)
