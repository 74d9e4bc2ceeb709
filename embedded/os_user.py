"""The account PostgreSQL runs as: our own, or, because it refuses root, another one.

As root the server runs as the owner of its data folder, else as BIDDEN_POSTGRES_ACCOUNT (default: nobody). That
account often cannot walk to the folder (a clone below /root). Parent folders are not ours to open, so the server
then gets one capability, to pass folders that it only walks through; it is given only when it is needed.
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
# From the least power to the most: containers often have the third without the second.
CAPABILITIES = (None, "dac_read_search", "dac_override")


@dataclass(frozen=True)
class Account:
    """Whom a process runs as: `prefix` goes before its command; `user` and `group` to the system's own switch."""

    uid: int
    gid: int
    prefix: tuple[str, ...] = ()
    user: int | None = None
    group: int | None = None


def account_for(data: Path, executable: Path, needed: Path, signal_prefix: Sequence[str]) -> Account:
    """Whom to run `executable` as, on the folder `data`, which is made for it if it is missing.

    `needed` is a file the executable reads; `signal_prefix` are the words that tie it to its owner's life. An
    InstallError says what to do when nobody suitable can reach them.
    """
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid(), prefix=tuple(signal_prefix))
    owner = data.stat().st_uid if data.exists() else 0
    entry = _entry(owner)
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chown(data, entry.pw_uid, entry.pw_gid)
    for account in _ways(entry, signal_prefix):
        if _reaches(account, executable, data, needed):
            return account
    raise InstallError(
        f"PostgreSQL refuses to run as root, and the account {entry.pw_name!r} cannot reach {executable} and {data}. "
        f"Set BIDDEN_HOME to a folder it can reach (and install there), or {VARIABLE} to an account that can, or "
        "install util-linux's setpriv, or run bidden as an ordinary user."
    )


def _entry(owner: int) -> pwd.struct_passwd:
    name = os.environ.get(VARIABLE) or DEFAULT_ACCOUNT
    try:
        found = pwd.getpwuid(owner) if owner else pwd.getpwnam(name)
    except KeyError:
        if owner:
            return pwd.struct_passwd((f"uid {owner}", "x", owner, owner, "", "/", ""))
        raise InstallError(
            f"PostgreSQL refuses to run as root, and there is no account {name!r}: set {VARIABLE} to one that exists, "
            "or run bidden as an ordinary user."
        ) from None
    if found.pw_uid == 0:
        raise InstallError(f"PostgreSQL refuses to run as root: set {VARIABLE} to another account.")
    return found


def _ways(entry: pwd.struct_passwd, signal_prefix: Sequence[str]) -> list[Account]:
    uid, gid = entry.pw_uid, entry.pw_gid
    program = setpriv()
    if program is None:
        return [Account(uid, gid, prefix=tuple(signal_prefix), user=uid, group=gid)]
    # The signal prefix is setpriv's too; one call does it all, in the order in which it must be done.
    common = [*(signal_prefix or [program]), "--reuid", str(uid), "--regid", str(gid), "--clear-groups"]
    ways = []
    for capability in CAPABILITIES:
        given: list[str] = []
        if capability is not None:
            # access(2) leaves capabilities out of account for ordinary users, but for this bit; initdb asks it.
            given = ["--securebits", "+no_setuid_fixup"]
            given += ["--inh-caps", f"+{capability}", "--ambient-caps", f"+{capability}"]
        ways.append(Account(uid, gid, prefix=(*common, *given)))
    return ways


def _reaches(account: Account, executable: Path, data: Path, needed: Path) -> bool:
    """Whether a process of this account can run the server there: asked of the system, not worked out from modes."""
    asked = 'test -x "$1" && test -w "$2" && test -r "$3"'
    try:
        ended = subprocess.run(
            [*account.prefix, "/bin/sh", "-c", asked, "sh", executable, data, needed],
            cwd="/",
            capture_output=True,
            check=False,
            user=account.user,
            group=account.group,
            extra_groups=None if account.user is None else [],
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return ended.returncode == 0
