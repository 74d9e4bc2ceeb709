"""A Kafka as clusters have it: listeners with TLS, for SCRAM users and for client certificates, and an authorizer.

Its plain listener is the operators': who comes by it is a super user, and makes the users and their ACLs.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import trustme
from confluent_kafka.admin import (  # type: ignore[attr-defined] # re-exported without saying so
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from embedded import ports
from embedded.kafka import Kafka

#: Of every SCRAM user and of every encrypted key; no output may show it.
PASSWORD: Final = "Sesame-open-4711"

_PROPERTIES: Final = """
listeners=CLIENTS://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port},SCRAM://127.0.0.1:{scram_port},\
CERTIFICATES://127.0.0.1:{certificates_port}
advertised.listeners=CLIENTS://127.0.0.1:{port},SCRAM://127.0.0.1:{scram_port},\
CERTIFICATES://127.0.0.1:{certificates_port}
listener.security.protocol.map=CLIENTS:PLAINTEXT,CONTROLLER:PLAINTEXT,SCRAM:SASL_SSL,CERTIFICATES:SSL
sasl.enabled.mechanisms=SCRAM-SHA-512,SCRAM-SHA-256
listener.name.scram.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.scram.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.certificates.ssl.client.auth=required
ssl.keystore.type=PEM
ssl.keystore.location=../tls/broker.pem
ssl.truststore.type=PEM
ssl.truststore.location=../tls/ca.pem
ssl.principal.mapping.rules=RULE:^.*CN=([^,]+).*$/$1/,DEFAULT
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
allow.everyone.if.no.acl.found=false
super.users=User:ANONYMOUS
"""


@dataclass
class SecureKafka(Kafka):
    """The embedded broker with two more listeners, whose certificates are in the folder `tls` beside its own."""

    scram_port: int = 0
    certificates_port: int = 0

    def properties(self) -> str:
        return super().properties() + _PROPERTIES.format(
            port=self.port,
            controller_port=self.controller_port,
            scram_port=self.scram_port,
            certificates_port=self.certificates_port,
        )


@dataclass(frozen=True)
class Cluster:
    """The running broker, its authority, and the users that a test makes."""

    kafka: SecureKafka
    authority: trustme.CA
    folder: Path
    admin: AdminClient

    @property
    def ca_file(self) -> Path:
        """Of the authority that signs all certificates."""
        return self.folder / "ca.pem"

    def add_user(self, name: str) -> dict[str, Any]:
        """A user with a password; the settings to connect with it."""
        self._upsert(name)
        return {
            "kafka_bootstrap": f"127.0.0.1:{self.kafka.scram_port}",
            "kafka_security_protocol": "SASL_SSL",
            "kafka_sasl_mechanism": "SCRAM-SHA-512",
            "kafka_sasl_username": name,
            "kafka_sasl_password": PASSWORD,
            "kafka_ca_file": self.ca_file,
        }

    def add_certificate(self, name: str) -> dict[str, Any]:
        """A certificate with an encrypted key; the settings to connect with it."""
        cert, key = self.issue(name, encrypted=True)
        return {
            "kafka_bootstrap": f"127.0.0.1:{self.kafka.certificates_port}",
            "kafka_security_protocol": "SSL",
            "kafka_cert_file": cert,
            "kafka_key_file": key,
            "kafka_key_password": PASSWORD,
            "kafka_ca_file": self.ca_file,
        }

    def issue(self, name: str, *, encrypted: bool = False, authority: trustme.CA | None = None) -> tuple[Path, Path]:
        """The files of a new certificate and its key."""
        return issue(authority or self.authority, self.folder, name, encrypted=encrypted)

    def allow(self, *acls: AclBinding) -> None:
        """Add these."""
        for future in self.admin.create_acls(list(acls)).values():
            future.result(timeout=20)

    def allow_all(self, name: str) -> None:
        """Every operation on everything but the cluster itself."""
        kinds = (ResourceType.TOPIC, ResourceType.GROUP, ResourceType.TRANSACTIONAL_ID)
        self.allow(*(binding(name, kind, "*", AclOperation.ALL) for kind in kinds))
        self.allow(binding(name, ResourceType.BROKER, "kafka-cluster", AclOperation.ALL))

    def forbid(self, acl: AclBinding) -> None:
        """Remove this one."""
        exact = AclBindingFilter(
            acl.restype,
            acl.name,
            acl.resource_pattern_type,
            acl.principal,
            acl.host,
            acl.operation,
            acl.permission_type,
        )
        for future in self.admin.delete_acls([exact]).values():
            assert len(future.result(timeout=20)) == 1, acl

    def _upsert(self, name: str) -> None:
        credential = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        update = UserScramCredentialUpsertion(name, credential, PASSWORD.encode())
        for future in self.admin.alter_user_scram_credentials([update]).values():
            future.result(timeout=20)


def binding(user: str, kind: ResourceType, name: str, operation: AclOperation, *, prefixed: bool = False) -> AclBinding:
    """What allows a user an operation."""
    pattern = ResourcePatternType.PREFIXED if prefixed else ResourcePatternType.LITERAL
    return AclBinding(kind, name, pattern, f"User:{user}", "*", operation, AclPermissionType.ALLOW)


def issue(authority: trustme.CA, folder: Path, name: str, *, encrypted: bool = False) -> tuple[Path, Path]:
    """The files of a new certificate and its key; an encrypted one has the pass phrase PASSWORD."""
    made = authority.issue_cert("127.0.0.1", "localhost", common_name=name)
    cert, key = folder / f"{name}.pem", folder / f"{name}-key.pem"
    cert.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
    encryption = BestAvailableEncryption(PASSWORD.encode()) if encrypted else NoEncryption()
    # Kafka reads this form of keys alone.
    parsed = load_pem_private_key(made.private_key_pem.bytes(), None)
    key.write_bytes(parsed.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    return cert, key


@contextmanager
def secure_cluster(home: Path) -> Iterator[Cluster]:
    """A running broker, with `home` as its folder."""
    for name in ("logs", "run", "tls"):
        (home / name).mkdir(parents=True)
    folder = home / "tls"
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    cert, key = issue(authority, folder, "server")
    (folder / "broker.pem").write_bytes(key.read_bytes() + cert.read_bytes())
    port, *others = ports.choose(dict.fromkeys(("kafka", "controller", "scram", "certificates")), {}).values()
    kafka = SecureKafka(home, port, threading.Event(), *others)
    kafka.start()
    try:
        yield Cluster(kafka, authority, folder, AdminClient({"bootstrap.servers": kafka.bootstrap, "log_level": 0}))
    finally:
        kafka.stop()
