"""A small disk for a database, which can be filled and emptied: a file system in memory, where tests may mount one."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

import pytest

_MB: Final = 1 << 20


class SmallDisk:
    """A mounted file system, and a file that fills it."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        """Mounts it; the test is skipped where this process may not mount (the test with a trigger always runs)."""
        folder.mkdir(parents=True)
        self._folder = folder
        self._filler = folder / "filler"
        arguments = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0711", "small-disk", str(folder)]
        try:
            subprocess.run(arguments, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("this process may not mount a file system: only a trigger simulates a full disk")

    def fill(self) -> None:
        """Fill it to the last byte."""
        with self._filler.open("ab", buffering=0) as file:
            for size in (_MB, 4096, 1):
                chunk = b"\0" * size
                try:
                    while file.write(chunk) == size:
                        pass
                except OSError:
                    continue
        assert self.free == 0

    def empty(self) -> None:
        """Make room again."""
        self._filler.unlink()

    @property
    def free(self) -> int:
        """Bytes that can still be written."""
        found = os.statvfs(self._folder)
        return found.f_bavail * found.f_frsize

    def unmount(self) -> None:
        """Unmount it, even while processes use it."""
        subprocess.run(["umount", "--lazy", str(self._folder)], check=True)
