"""The mail sink as one of the embedded servers: its process, its rules, and the mails it accepted."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import psutil

from embedded.mail_rules import parse_rules
from embedded.mail_store import StoredMail, count_mails, delivery_keys, read_mails
from embedded.process import (
    ProcessSpec,
    Report,
    end_with_owner,
    module_command,
    module_environment,
    write_atomically,
)
from embedded.server import Server


@dataclass
class MailServer(Server):
    """The sink. `set_rules` makes it misbehave; `mails` and `delivery_keys` read what it accepted."""

    name: ClassVar[str] = "mail"
    title: ClassVar[str] = "The mail sink"
    stop_seconds: ClassVar[float] = 5.0

    @property
    def url(self) -> str:
        """The value of BIDDEN_SMTP_URL."""
        return f"smtp://127.0.0.1:{self.port}"

    def prepare(self, report: Report) -> None:
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self._ready_file.unlink(missing_ok=True)

    def spec(self) -> ProcessSpec:
        argv: list[str | Path] = [*end_with_owner(self.stop_signal), *module_command("embedded.mail_sink")]
        argv += ["--port", str(self.port), "--folder", self.folder]
        argv += ["--rules", self.rules_file, "--ready-file", self._ready_file]
        return ProcessSpec(argv, cwd=self.folder, env=module_environment())

    def ready(self) -> bool:
        """The sink writes a file: a probing connection could consume a rule."""
        try:
            return self._ready_file.read_text() == str(self.pid)
        except OSError:
            return False

    def recognises(self, process: psutil.Process) -> bool:
        return "embedded.mail_sink" in process.cmdline()

    @property
    def rules_file(self) -> Path:
        """The file that the sink reads its rules from."""
        return self.folder / "rules.json"

    @property
    def _ready_file(self) -> Path:
        return self.folder / "ready"

    def set_rules(self, rules: Sequence[Mapping[str, Any]]) -> None:
        """These rules apply from the next mail on, with fresh counts; InputError if they are invalid."""
        text = json.dumps([dict(rule) for rule in rules], indent=1)
        parse_rules(text)
        write_atomically(self.rules_file, text)

    def clear_rules(self) -> None:
        """The sink accepts everything again."""
        self.rules_file.unlink(missing_ok=True)

    def mails(self) -> Iterator[StoredMail]:
        """The accepted mails, in order; also while the sink runs."""
        return read_mails(self.folder)

    def count(self) -> int:
        """The number of accepted mails."""
        return count_mails(self.folder)

    def delivery_keys(self) -> list[str]:
        """The delivery key of each accepted mail, in order."""
        return delivery_keys(self.folder)
