"""Kafka's jars: found or downloaded, and verified.

The lock file beside this module names every jar with its SHA-256. Jars in the local Maven repository
(~/.m2/repository, or the environment variable M2_REPO) are used without a network; jgo downloads the others into it,
once. jgo's own configuration file may add Maven repositories (a mirror); HTTPS_PROXY is respected.

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

from embedded.process import Report
from schemas.errors import InstallError

KAFKA_VERSION = "4.3.1"
#: In jgo the version management of any dependency overrides Kafka's own versions, so everything that is managed
#: elsewhere (clients, compressors, Jackson, log4j) is listed here with the version that Kafka's own POMs declare.
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
        """Its path in a Maven repository."""
        return Path(*self.group.split("."), self.artifact, self.version, f"{self.artifact}-{self.version}.jar")


def locked() -> list[Jar]:
    """The jars of the lock file."""
    with LOCK.open("rb") as file:
        return [
            Jar(d["groupId"], d["artifactId"], d["version"], d["sha256"]) for d in tomllib.load(file)["dependencies"]
        ]


def repository() -> Path:
    """The local Maven repository, which is also jgo's cache."""
    try:
        return Path(os.environ.get("M2_REPO") or "~/.m2/repository").expanduser()
    except RuntimeError:
        # Neither HOME nor an entry in /etc/passwd.
        raise InstallError(
            "There is no home directory to keep Apache Kafka's jars in: set HOME, or M2_REPO to a writable folder."
        ) from None


def class_path(report: Report, check_cancelled: Callable[[], None] = lambda: None) -> list[Path]:
    """The jars on this machine, each with the checksum of the lock file; downloads what is missing or damaged.

    `check_cancelled` is called before each download and may raise.
    """
    folder = repository()
    jars = locked()
    missing = [jar for jar in jars if not _has_digest(folder / jar.path, jar.sha256)]
    if missing:
        report(f"downloading Apache Kafka {KAFKA_VERSION} ({len(missing)} of {len(jars)} jars) into {folder}")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as temporary:
                _download_all(missing, folder, Path(temporary), report, check_cancelled)
        except OSError as error:
            raise InstallError(
                f"Apache Kafka's jars cannot be stored in {folder}: {error.strerror or error}. Free some space, or set "
                "M2_REPO to a writable folder."
            ) from error
    return [folder / jar.path for jar in jars]


def _download_all(
    missing: list[Jar], folder: Path, temporary: Path, report: Report, check_cancelled: Callable[[], None]
) -> None:
    done = 0
    with ThreadPoolExecutor(max_workers=4) as pool:
        futures = [pool.submit(_download, jar, folder, temporary, check_cancelled) for jar in missing]
        try:
            for future in futures:
                future.result()
                done += 1
                if done % 10 == 0 or done == len(missing):
                    report(f"downloading Apache Kafka {KAFKA_VERSION} ({done} of {len(missing)} jars done)")
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _download(jar: Jar, folder: Path, temporary: Path, check_cancelled: Callable[[], None]) -> None:
    """Downloads into a temporary folder and renames the jar once its checksum is right.

    So neither a kill in mid-download nor a concurrent download leaves half a jar under its real name.
    """
    from jgo.config import GlobalSettings
    from jgo.constants import MAVEN_CENTRAL_URL
    from jgo.maven import MavenContext

    reason = ""
    for _ in range(TRIES):
        check_cancelled()
        with tempfile.TemporaryDirectory(dir=temporary) as cache:
            remotes = {"central": MAVEN_CENTRAL_URL, **GlobalSettings.load().repositories}
            context = MavenContext(repo_cache=Path(cache), remote_repos=remotes, timeout=30)
            try:
                artifact = context.project(jar.group, jar.artifact).at_version(jar.version).artifact()
                downloaded = Path(artifact.resolve())
            except (OSError, RuntimeError, ValueError) as error:  # the errors of requests are OSErrors
                if isinstance(error, OSError) and error.errno is not None:
                    raise
                reason = "no repository has it" if isinstance(error, RuntimeError) else _cause(error)
                continue
            if not _has_digest(downloaded, jar.sha256):
                reason = "its checksum differs from the lock file"
                continue
            target = folder / jar.path
            target.parent.mkdir(parents=True, exist_ok=True)
            downloaded.replace(target)
            return
    raise InstallError(
        f"Downloading Apache Kafka {KAFKA_VERSION} failed at {jar.coordinate}: {reason}. Check the network "
        f"(HTTPS_PROXY is respected) and start again: complete jars stay in {folder}. Without a network, set "
        "M2_REPO to a Maven repository folder that has the jars."
    )


def _cause(error: BaseException) -> str:
    """The root cause, without the wrappers of the HTTP libraries and without addresses."""
    text = str(error)
    for pattern, cause in (
        ("NameResolution", "the repository's name cannot be resolved"),
        ("ProxyError", "the proxy cannot be reached"),
        ("CERTIFICATE_VERIFY", "the repository's certificate is not trusted here"),
        ("timed out", "the repository did not answer in time"),
        ("Connection refused", "the repository refused the connection"),
    ):
        if pattern in text:
            return cause
    return type(error).__name__


@cache
def _digest(path: Path, size: int, modified: int) -> str:
    """The SHA-256 of a file; computed once per process and version of the file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _has_digest(path: Path, sha256: str) -> bool:
    try:
        state = path.stat()
        return _digest(path, state.st_size, state.st_mtime_ns) == sha256
    except OSError:
        return False  # the cause is reported when the jar is to be stored


def relock() -> None:
    """Resolves COORDINATES with jgo and writes the lock file."""
    from jgo.env import LockFile
    from jgo.maven import MavenContext

    context = MavenContext(repo_cache=repository())
    direct, transitive = context.resolver.resolve([context.create_dependency(c) for c in COORDINATES])
    LockFile.from_resolved_dependencies([*direct, *transitive], environment_name="kafka").save(LOCK)


if __name__ == "__main__":
    relock()
    sys.stdout.write(f"{LOCK}: {len(locked())} jars\n")
