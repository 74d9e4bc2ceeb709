"""The operating system's user that PostgreSQL runs as: our own, or, because it refuses root, another one.

As root the server runs as the owner of its data folder, or else as BIDDEN_POSTGRES_ACCOUNT (default: nobody). That
user often may not traverse the folders above it (a clone below /root). This module does not change their permissions:
the server gets one capability instead, to traverse folders, and only when it is needed.
"""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from embedded.process import setpriv
from schemas.errors import InstallError

VARIABLE = "BIDDEN_POSTGRES_ACCOUNT"
DEFAULT_ACCOUNT = "nobody"
# From the least power to the most. Containers often have the third without the second.
CAPABILITIES = (None, "dac_read_search", "dac_override")


@dataclass(frozen=True)
class OsUser:
    """The user of a process. `prefix` goes before its command; `user` and `group` are arguments of `subprocess`."""

    uid: int
    gid: int
    prefix: tuple[str, ...] = ()
    user: int | None = None
    group: int | None = None


def os_user_for(data: Path, executable: Path, needed: Path, signal_prefix: Sequence[str]) -> OsUser:
    """The user to run `executable` as, on the folder `data`, which is created for that user if it is missing.

    `needed` is a file that the executable reads; `signal_prefix` is what `end_with_owner` returns. InstallError if no
    suitable user can reach them all; it says what to do.
    """
    if os.geteuid() != 0:
        _require_name(os.geteuid())
        return OsUser(os.geteuid(), os.getegid(), prefix=tuple(signal_prefix))
    owner = data.stat().st_uid if data.exists() else 0
    entry = _entry(owner)
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chown(data, entry.pw_uid, entry.pw_gid)
    for os_user in _candidates(entry, signal_prefix):
        if _reaches(os_user, executable, data, needed):
            return os_user
    raise InstallError(
        f"PostgreSQL refuses to run as root, and the user {entry.pw_name!r} cannot reach {executable} and {data}. "
        f"Set BIDDEN_HOME to a folder it can reach (and install there), or {VARIABLE} to a user that can, or "
        "install util-linux's setpriv, or run bidden as an ordinary user."
    )


def _require_name(uid: int) -> None:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        raise InstallError(
            f"PostgreSQL needs a name for its user, and uid {uid} has no entry in /etc/passwd: add one, run bidden as "
            "another user, or use servers of your own."
        ) from None


def _entry(owner: int) -> pwd.struct_passwd:
    name = os.environ.get(VARIABLE) or DEFAULT_ACCOUNT
    try:
        found = pwd.getpwuid(owner) if owner else pwd.getpwnam(name)
    except KeyError:
        if owner:
            return pwd.struct_passwd((f"uid {owner}", "x", owner, owner, "", "/", ""))
        raise InstallError(
            f"PostgreSQL refuses to run as root, and there is no user {name!r}: set {VARIABLE} to one that exists, "
            "or run bidden as an ordinary user."
        ) from None
    if found.pw_uid == 0:
        raise InstallError(f"PostgreSQL refuses to run as root: set {VARIABLE} to another user.")
    return found


def _candidates(entry: pwd.struct_passwd, signal_prefix: Sequence[str]) -> list[OsUser]:
    """The same user with growing power."""
    uid, gid = entry.pw_uid, entry.pw_gid
    program = setpriv()
    if program is None:
        return [OsUser(uid, gid, prefix=tuple(signal_prefix), user=uid, group=gid)]
    # The signal prefix calls setpriv too: one call does everything, in the order that is needed.
    common = [*(signal_prefix or [program]), "--reuid", str(uid), "--regid", str(gid), "--clear-groups"]
    candidates = []
    for capability in CAPABILITIES:
        options: list[str] = []
        if capability is not None:
            # Without this bit access(2), which initdb calls, ignores the capabilities of an ordinary user.
            options = ["--securebits", "+no_setuid_fixup"]
            options += ["--inh-caps", f"+{capability}", "--ambient-caps", f"+{capability}"]
        candidates.append(OsUser(uid, gid, prefix=(*common, *options)))
    return candidates


def _reaches(os_user: OsUser, executable: Path, data: Path, needed: Path) -> bool:
    """Whether a process of this user can run the server there: tried, not computed from permission bits."""
    test = 'test -x "$1" && test -w "$2" && test -r "$3"'
    try:
        ended = subprocess.run(
            [*os_user.prefix, "/bin/sh", "-c", test, "sh", executable, data, needed],
            cwd="/",
            capture_output=True,
            check=False,
            user=os_user.user,
            group=os_user.group,
            extra_groups=None if os_user.user is None else [],
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return ended.returncode == 0
