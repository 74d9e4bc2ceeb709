"""What `doctor` says about the folder of journals, and how journals tell databases apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from db.connect import fingerprint
from monitoring import journals

MOUNTS = """\
22 1 0:21 / / rw,relatime - overlay overlay rw,lowerdir=/a,upperdir=/b
31 22 0:30 / /tmp rw - tmpfs tmpfs rw
35 22 254:1 /volumes/state /var/lib/bidden rw,relatime shared:1 - ext4 /dev/vda1 rw
36 22 254:1 /x /var/lib/with\\040space rw - xfs /dev/vda2 rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/app/.bidden/state", "overlay"),
        ("/tmp/state", "tmpfs"),
        ("/var/lib/bidden", "ext4"),
        ("/var/lib/bidden/deeper", "ext4"),
        ("/var/lib/bidden-other", "overlay"),
        ("/var/lib/with space/state", "xfs"),
    ],
)
def test_the_file_system_of_a_folder(path: str, kind: str) -> None:
    """The longest mount point above it."""
    assert journals.file_system(Path(path), MOUNTS) == kind


def test_no_mounts_are_no_file_system() -> None:
    """Whatever the text is."""
    assert journals.file_system(Path("/state"), "nothing like it\n\n") is None


def test_a_folder_that_can_be_used_or_made(tmp_path: Path) -> None:
    """And nothing is left in it, nor made."""
    assert journals.obstacle(tmp_path) is None
    assert journals.obstacle(tmp_path / "not" / "yet") is None
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot(tmp_path: Path) -> None:
    """A file in its place is named."""
    (tmp_path / "file").touch()
    assert str(tmp_path / "file") in (journals.obstacle(tmp_path / "file") or "")
    assert str(tmp_path / "file" / "state") in (journals.obstacle(tmp_path / "file" / "state") or "")


@pytest.mark.parametrize("container", ["docker", "kubernetes"])
def test_in_a_container_it_must_be_on_a_volume(container: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FM-42: what ends with the container tells the next one nothing. A pod shows in its environment alone."""
    if container == "docker":
        (tmp_path / "dockerenv").touch()
    else:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    mounts = tmp_path / "mountinfo"
    monkeypatch.setattr(journals, "_CONTAINER", (tmp_path / "dockerenv",))
    monkeypatch.setattr(journals, "_MOUNTS", mounts)
    mounts.write_text("22 1 0:21 / / rw - overlay overlay rw\n")
    assert "no volume (overlay)" in (journals.obstacle(tmp_path) or "")
    mounts.write_text(f"22 1 0:21 / / rw - overlay overlay rw\n23 22 8:1 / {tmp_path} rw - ext4 /dev/x rw\n")
    assert journals.obstacle(tmp_path) is None


def test_databases_are_told_apart_without_secrets() -> None:
    """By host, port, name and options; the user and the password make no difference."""
    base = "postgresql://ada:secret@db:5432/bidden"
    same = ("postgresql://olga:other@db:5432/bidden", "postgres://db:5432/bidden?application_name=x")
    others = (
        "postgresql://ada:secret@db2:5432/bidden",
        "postgresql://ada:secret@db:5433/bidden",
        "postgresql://ada:secret@db:5432/other",
        "postgresql://ada:secret@db:5432/bidden?options=-c%20search_path%3Dclub",
    )
    assert {fingerprint(url) for url in same} == {fingerprint(base)}
    assert fingerprint(base) not in {fingerprint(url) for url in others}
    assert "secret" not in fingerprint(base)
