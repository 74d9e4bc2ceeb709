"""Cuts the end off the log of an embedded broker that is stopped, as a power cut before a flush does."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path


def cut(data: Path, topic: str, keep: Callable[[int], int]) -> None:
    """Cut each partition's log to the bytes that `keep` gives for its size, and forget what was known of its end."""
    for folder in data.glob(f"{topic}-[0-9]*"):
        (log,) = folder.glob("*.log")
        with log.open("r+b") as file:
            file.truncate(keep(log.stat().st_size))
        for known in (*folder.glob("*.index"), *folder.glob("*.timeindex"), *folder.glob("*.snapshot")):
            known.unlink()
        (folder / "leader-epoch-checkpoint").unlink(missing_ok=True)
    # Recovered from the log's beginning, and no high watermark beyond its end.
    for name in ("recovery-point-offset-checkpoint", "replication-offset-checkpoint", "log-start-offset-checkpoint"):
        lines = (data / name).read_text().splitlines()
        if not lines:
            # Killed before it was written.
            continue
        kept = [line for line in lines[2:] if not re.match(rf"{re.escape(topic)} ", line)]
        (data / name).write_text("\n".join([lines[0], str(len(kept)), *kept]) + "\n")
    (data / ".kafka_cleanshutdown").unlink(missing_ok=True)
