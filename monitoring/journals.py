"""Whether workers that start here can keep a journal, and whether it would outlive them. Changes nothing."""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path
from typing import Final

from schemas.errors import first_line
from streams.journal import boot_id

#: Either is there in a container of Docker or Podman.
_CONTAINER: Final = (Path("/.dockerenv"), Path("/run/.containerenv"))
#: Kubernetes sets it in every container; a pod without a token has none of its files.
_KUBERNETES: Final = "KUBERNETES_SERVICE_HOST"
_MOUNTS: Final = Path("/proc/self/mountinfo")
#: File systems that end with their container.
_PASSING: Final = frozenset({"overlay", "tmpfs", "ramfs"})


def obstacle(folder: Path) -> str | None:
    """Why a kill of a worker here leaves its whole window unknown until the leases end; None: it does not."""
    try:
        boot_id()
        there = folder
        while not there.exists() and there != there.parent:
            there = there.parent
        if there != folder:
            if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
                return f"{folder} cannot be made: {there} is no folder that can be written"
        else:
            with tempfile.TemporaryFile(dir=folder) as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return f"{folder} cannot be used: {first_line(error)}"
    if _KUBERNETES in os.environ or any(path.exists() for path in _CONTAINER):
        kind = file_system(there.resolve(), _MOUNTS.read_text(encoding="utf-8", errors="replace"))
        if kind in _PASSING:
            return f"{folder} is on no volume ({kind}): it ends with its container"
    return None


def file_system(path: Path, mounts: str) -> str | None:
    """The type of the file system that holds the path. `mounts` is the text of /proc/self/mountinfo."""
    best, kind = "", None
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        point = before.split(" ")[4].replace("\\040", " ") if before.count(" ") >= 4 else ""
        # Of two on one point the later covers the earlier.
        if point and path.is_relative_to(point) and len(point) >= len(best):
            best, kind = point, after.split(" ")[0]
    return kind
