"""Proves the image without a container engine: the steps of deploy/Dockerfile, run in plain Debian roots.

    python -m tests.image [FOLDER]      needs Linux, root and debootstrap; two to three minutes. `make image-check`

Each stage is a fresh Debian 13, whose Python has the image's minor version. RUN is run by chroot, COPY copies what
Docker would (`.dockerignore`). Then the image's user, in a tree that is read-only, runs the doctor and a campaign
against embedded servers. What differs from an engine: the base image is Debian's Python and not that of FROM, layers
and labels are not made. FOLDER keeps Debian's root for the next run.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from docker.utils.build import exclude_paths

from tests.tables import ROOT

_DEBIAN: Final = "trixie"
_MIRROR: Final = "http://deb.debian.org/debian"
_VOLUME: Final = "/var/lib/bidden"
#: What this machine's network needs; an engine brings its own.
_OF_THE_MACHINE: Final = ("/etc/resolv.conf", "/etc/pip.conf", "/etc/ssl/certs/ca-certificates.crt")
_SERVERS: Final = ("BIDDEN_DATABASE_URL", "BIDDEN_KAFKA_BOOTSTRAP", "BIDDEN_SMTP_URL")


@dataclass
class Stage:
    """A root in which the instructions of one FROM have been run."""

    root: Path
    env: dict[str, str] = field(default_factory=lambda: {"PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"})
    folder: str = "/"
    user: str = "0:0"
    entrypoint: tuple[str, ...] = ()

    def path(self, inside: str) -> Path:
        """Where a path of the image is on this machine."""
        return self.root / str(Path("/", self.folder, inside)).lstrip("/")

    def run(self, command: str) -> None:
        """A RUN, by /bin/sh, with pip's settings of this machine."""
        pip = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        script = f"mount -t proc proc proc && exec chroot . /bin/sh -c {shlex.quote(f'cd {self.folder} && {command}')}"
        subprocess.run(["unshare", "--mount", "sh", "-c", script], cwd=self.root, env=pip | self.env, check=True)


def instructions(dockerfile: str) -> list[tuple[str, str]]:
    """The instructions, each with its argument on one line. Comments go, also those between continued lines."""
    lines = "\n".join(line for line in dockerfile.splitlines() if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n\s*", " ", lines)
    return [(name, argument) for name, _, argument in (line.partition(" ") for line in joined.splitlines() if line)]


def _debian(root: Path) -> None:
    if not root.exists():
        packages = "--include=python3,python3-venv,ca-certificates"
        subprocess.run(["debootstrap", "--variant=minbase", packages, _DEBIAN, str(root), _MIRROR], check=True)
        (root / "usr/local/bin/python").symlink_to("/usr/bin/python3")
    for name in _OF_THE_MACHINE:
        if Path(name).exists():
            shutil.copyfile(name, root / name.lstrip("/"))


def _copy(stage: Stage, argument: str, stages: dict[str, Stage]) -> None:
    *options, target = argument.split()
    from_stage = [option.partition("=")[2] for option in options if option.startswith("--from=")]
    sources = [option for option in options if not option.startswith("--")]
    destination = stage.path(target)
    if from_stage:
        shutil.copytree(stages[from_stage[0]].path(sources[0]), destination, symlinks=True)
        return
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    patterns = [line.strip() for line in ignored if line.strip() and not line.startswith("#")]
    for name in sorted(exclude_paths(str(ROOT), patterns, "deploy/Dockerfile")):
        for source in sources:
            # A file goes into the folder, of a folder the contents.
            inside = Path(name) if source == "." else Path(name).name if name == source else None
            if inside is not None and (ROOT / name).is_file():
                (destination / inside).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, destination / inside)


def build(work: Path, debian: Path) -> Stage:
    """The last stage, after all its instructions. ValueError for one that is not known here."""
    stages: dict[str, Stage] = {}
    stage = Stage(work)
    for name, argument in instructions((ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")):
        print(f"{name} {argument}"[:110], flush=True)
        match name:
            case "FROM":
                stage = Stage(work / str(len(stages)))
                stages[argument.partition(" AS ")[2] or "last"] = stage
                subprocess.run(["cp", "--archive", str(debian), str(stage.root)], check=True)
            case "ENV" | "ARG":
                for pair in shlex.split(argument):
                    key, _, value = pair.partition("=")
                    stage.env[key] = value.replace("$PATH", stage.env["PATH"])
            case "RUN":
                stage.run(argument)
            case "WORKDIR":
                stage.folder = argument
                stage.path(".").mkdir(parents=True, exist_ok=True)
            case "COPY":
                _copy(stage, argument, stages)
            case "USER":
                stage.user = argument
            case "ENTRYPOINT":
                stage.entrypoint = tuple(json.loads(argument))
            case "LABEL" | "STOPSIGNAL" | "CMD":
                pass
            case _:
                raise ValueError(f"no step {name} is known here")
    return stage


def start(stage: Stage, volume: Path, env: dict[str, str], *arguments: str, **options: object) -> subprocess.Popen[str]:
    """A process as an engine starts it: the image's user, nothing to be written but the volume and /tmp, no rights."""
    script = (
        f"mount --bind . . && mount -o remount,bind,ro . && cd {stage.root}"
        " && mount -t proc proc proc && mount -t tmpfs tmpfs tmp && mount --bind /dev dev"
        f" && mount --bind {volume} .{_VOLUME}"
        f" && exec setpriv --no-new-privs --bounding-set=-all,+sys_chroot,+setuid,+setgid"
        f" chroot --userspec={stage.user} . /usr/bin/env --chdir={stage.folder} "
    ) + shlex.join([*stage.entrypoint, *arguments])
    command = ["unshare", "--mount", "sh", "-c", script]
    return subprocess.Popen(command, cwd=stage.root, env=stage.env | env, text=True, **options)  # type: ignore[call-overload, no-any-return] # pipes


def _finish(process: subprocess.Popen[str], codes: tuple[int, ...] = (0,), given: str | None = None) -> str:
    output, _ = process.communicate(given, timeout=180)
    assert process.returncode in codes, f"exit {process.returncode} of {process.args!r}"
    return output


def campaign(stage: Stage, volume: Path, home: Path) -> None:
    """Migrate, import, invite and audit, with a dispatcher and a worker; then stop both."""
    bidden = str(Path(sys.executable).with_name("bidden"))
    services: list[subprocess.Popen[str]] = []
    up = subprocess.Popen([bidden, "up", "--json"], env=os.environ | {"BIDDEN_HOME": str(home)}, stdout=subprocess.PIPE)
    try:
        assert up.stdout is not None
        started = json.loads(up.stdout.readline())
        keys = ("database_url", "kafka_bootstrap", "smtp_url")
        env = dict(zip(_SERVERS, (started[key] for key in keys), strict=True)) | {"BIDDEN_STATE_DIR": _VOLUME}

        def bidden_in_it(*arguments: str, codes: tuple[int, ...] = (0,), given: str | None = None) -> str:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            return _finish(start(stage, volume, env, *arguments, **pipes), codes, given)

        bidden_in_it("migrate")
        generate = [sys.executable, "-m", "demo.generator", "--members", "500"]
        lines = subprocess.run(generate, cwd=ROOT, check=True, capture_output=True, text=True)
        bidden_in_it("import", "-", given=lines.stdout)
        services += [start(stage, volume, env, name) for name in ("dispatch", "worker")]
        bidden_in_it("invite", "1", "--audience", "everyone", "--wait", codes=(0, 1))
        done = json.loads(bidden_in_it("status", "1", "--json"))
        assert done["sent"] > 400, done
        assert done["pending"] == done["unknown"] == 0, done
        assert json.loads(bidden_in_it("audit", "1", "--json", codes=(0, 1)))["balanced"]
        assert list(volume.glob("*.journal")), "the worker keeps no journal on the volume"
        checks = [json.loads(line) for line in bidden_in_it("doctor", "--json", codes=(0, 1)).splitlines()]
        assert len(checks) > 10
        assert [check for check in checks if not check["ok"]] == []
        for service in services:
            service.send_signal(signal.SIGTERM)
        assert [service.wait(30) for service in services] == [0, 0]
        print(f"a campaign in the image: {done['sent']} mails sent, the audit balances, SIGTERM ends with 0")
    finally:
        for service in services:
            service.kill()
        up.send_signal(signal.SIGTERM)
        up.wait(60)


def parts(stage: Stage) -> None:
    """The list of parts has each package of the lock that was installed, and its licence."""
    listed = json.loads((stage.root / "opt/venv/sbom.cdx.json").read_text(encoding="utf-8"))
    versions = {part["name"]: part["version"] for part in listed["components"]}
    lock = (ROOT / "deploy" / "requirements.lock").read_text(encoding="utf-8")
    locked = dict(re.findall(r"^([a-z0-9-]+)==([^ ;]+)(?= \\)", lock, re.MULTILINE))
    normal = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in versions.items()}
    missing = {name: version for name, version in locked.items() if normal.get(name) != version}
    assert not missing, missing
    assert listed["metadata"]["component"]["name"] == "bidden"
    print(f"the list of parts: {len(versions)} components, as the lock has them")


def main(arguments: list[str]) -> int:
    """Exit code 0: all was seen to work."""
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        print("needs root and debootstrap (apt-get install debootstrap)", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="bidden-image-") as folder:
        work = Path(folder)
        debian = Path(arguments[0]) if arguments else work / "debian"
        _debian(debian)
        stage = build(work, debian)
        volume = work / "volume"
        volume.mkdir()
        inside = stage.root / _VOLUME.lstrip("/")
        # A volume that is mounted for the first time takes over its owner.
        shutil.copystat(inside, volume)
        os.chown(volume, inside.stat().st_uid, inside.stat().st_gid)
        _finish(start(stage, volume, {}, "--help"))
        parts(stage)
        campaign(stage, volume, work / "home")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
