"""Kafka's jars: which ones, and how they get onto this machine and are proved to be the right ones.

The lock file beside this module names every jar with its SHA-256; it is the whole truth at run time. What the local
Maven repository has is taken from there without a network; what is missing is fetched once, by jgo, into that
repository: ~/.m2/repository, or where the environment variable M2_REPO says. jgo's own configuration file may add
Maven repositories (a mirror); HTTPS_PROXY is respected.

    python -m embedded.jars        resolves COORDINATES again and rewrites the lock file (after a version change)
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import tomllib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from schemas.errors import InstallError

KAFKA_VERSION = "4.3.1"
#: jgo lets the version management of any dependency win over what Kafka asks for, so everything that somebody else
#: manages (clients, compressors, Jackson, log4j) is named here with the version that Kafka's own POMs declare.
COORDINATES = (
    f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}",
    f"org.apache.kafka:kafka-clients:{KAFKA_VERSION}",
    "org.apache.logging.log4j:log4j-slf4j-impl:2.25.4",
    "com.github.luben:zstd-jni:1.5.6-10",
    "at.yawk.lz4:lz4-java:1.10.2",
    "org.xerial.snappy:snappy-java:1.1.10.7",
    "com.fasterxml.jackson.core:jackson-annotations:2.21",
    "com.fasterxml.jackson.core:jackson-core:2.21.2",
    "com.fasterxml.jackson.core:jackson-databind:2.21.2",
    "com.fasterxml.jackson.dataformat:jackson-dataformat-csv:2.21.2",
    "com.fasterxml.jackson.dataformat:jackson-dataformat-yaml:2.21.2",
    "com.fasterxml.jackson.datatype:jackson-datatype-jdk8:2.21.2",
)
LOCK = Path(__file__).with_name("kafka.lock.toml")
TRIES = 3


@dataclass(frozen=True)
class Jar:
    """One locked jar."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def coordinate(self) -> str:
        return f"{self.group}:{self.artifact}:{self.version}"

    @property
    def path(self) -> Path:
        """Where it lies in a Maven repository."""
        return Path(*self.group.split("."), self.artifact, self.version, f"{self.artifact}-{self.version}.jar")


def locked() -> list[Jar]:
    """The jars of the lock file."""
    with LOCK.open("rb") as file:
        return [
            Jar(d["groupId"], d["artifactId"], d["version"], d["sha256"]) for d in tomllib.load(file)["dependencies"]
        ]


def repository() -> Path:
    """The local Maven repository, jgo's usual cache."""
    return Path(os.environ.get("M2_REPO") or "~/.m2/repository").expanduser()


def class_path(progress: Callable[[str], None], go_on: Callable[[], None] = lambda: None) -> list[Path]:
    """The jars on this machine, each with the checksum of the lock file; fetches what is missing or damaged.

    `go_on` is called before each fetch and may raise, to give up.
    """
    folder = repository()
    jars = locked()
    missing = [jar for jar in jars if not _is(folder / jar.path, jar.sha256)]
    if missing:
        progress(f"fetching Apache Kafka {KAFKA_VERSION} ({len(missing)} of {len(jars)} jars) into {folder}")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as beside:
                _fetch_all(missing, folder, Path(beside), progress, go_on)
        except OSError as error:
            raise InstallError(
                f"Apache Kafka's jars cannot be stored in {folder}: {error.strerror or error}. Make room, or set "
                "M2_REPO to a folder that can be written to."
            ) from error
    return [folder / jar.path for jar in jars]


def _fetch_all(
    missing: list[Jar], folder: Path, beside: Path, progress: Callable[[str], None], go_on: Callable[[], None]
) -> None:
    done = 0
    with ThreadPoolExecutor(max_workers=4) as pool:
        futures = [pool.submit(_fetch, jar, folder, beside, go_on) for jar in missing]
        try:
            for future in futures:
                future.result()
                done += 1
                if done % 10 == 0 or done == len(missing):
                    progress(f"fetching Apache Kafka {KAFKA_VERSION} ({done} of {len(missing)} jars are here)")
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _fetch(jar: Jar, folder: Path, beside: Path, go_on: Callable[[], None]) -> None:
    """Fetches into a folder beside the repository and moves the jar when it is whole and right.

    So neither a kill in mid-download nor a second fetcher at the same time leaves half a jar under its real name.
    """
    from jgo.config import GlobalSettings
    from jgo.constants import MAVEN_CENTRAL_URL
    from jgo.maven import MavenContext

    reason = ""
    for _ in range(TRIES):
        go_on()
        with tempfile.TemporaryDirectory(dir=beside) as once:
            remotes = {"central": MAVEN_CENTRAL_URL, **GlobalSettings.load().repositories}
            context = MavenContext(repo_cache=Path(once), remote_repos=remotes, timeout=30)
            try:
                artifact = context.project(jar.group, jar.artifact).at_version(jar.version).artifact()
                fetched = Path(artifact.resolve())
            except (OSError, RuntimeError, ValueError) as error:  # requests' errors are OSErrors
                if isinstance(error, OSError) and error.errno is not None:
                    raise
                reason = "no repository has it" if isinstance(error, RuntimeError) else _cause(error)
                continue
            if not _is(fetched, jar.sha256):
                reason = "what came has another checksum than the lock file"
                continue
            target = folder / jar.path
            target.parent.mkdir(parents=True, exist_ok=True)
            fetched.replace(target)
            return
    raise InstallError(
        f"Fetching Apache Kafka {KAFKA_VERSION} failed at {jar.coordinate}: {reason}. Check the network "
        f"(HTTPS_PROXY is respected) and start again: what was fetched is kept in {folder}. Without a network, set "
        "M2_REPO to a Maven repository folder that has the jars."
    )


def _cause(error: BaseException) -> str:
    """The innermost reason, without the wrappings of the HTTP libraries and without addresses."""
    text = str(error)
    for sign, words in (
        ("NameResolution", "the repository's name cannot be resolved"),
        ("ProxyError", "the proxy cannot be reached"),
        ("CERTIFICATE_VERIFY", "the repository's certificate is not trusted here"),
        ("timed out", "the repository did not answer in time"),
        ("Connection refused", "the repository refused the connection"),
    ):
        if sign in text:
            return words
    return type(error).__name__


@cache
def _digest(path: Path, size: int, changed: int) -> str:
    """The SHA-256 of a file as it is now; read once per process and state of the file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is(path: Path, sha256: str) -> bool:
    try:
        state = path.stat()
        return _digest(path, state.st_size, state.st_mtime_ns) == sha256
    except OSError:
        return False  # what is in the way is said when the jar is to be stored


def relock() -> None:
    """Resolves COORDINATES with jgo and writes the lock file."""
    from jgo.env import LockFile
    from jgo.maven import MavenContext

    context = MavenContext(repo_cache=repository())
    named, others = context.resolver.resolve([context.create_dependency(c) for c in COORDINATES])
    LockFile.from_resolved_dependencies([*named, *others], environment_name="kafka").save(LOCK)


if __name__ == "__main__":
    relock()
    sys.stdout.write(f"{LOCK}: {len(locked())} jars\n")
