"""A calibration loop, and the CPU seconds and memory of processes and their children."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

import psutil


def calibrate() -> float:
    """Seconds of a fixed pure-Python loop: the machine's speed now."""
    start = time.perf_counter()
    total = 0
    for n in range(3_000_000):
        total += n & 7
    assert total
    return time.perf_counter() - start


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of these processes and all their descendants, ended backends of PostgreSQL included."""
    total = 0.0
    for pid in pids:
        try:
            root = psutil.Process(pid)
            family = [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            continue
        for process in family:
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system
        # Backends that have ended count in their parent.
        waited = root.cpu_times()
        total += waited.children_user + waited.children_system
    return total


def peak_memory_mb(pid: int) -> float:
    """The peak resident set of a process so far."""
    with Path(f"/proc/{pid}/status").open(encoding="ascii") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0.0
