"""The files of TLS to Kafka: what is refused at start, by which setting's name, and that no pass phrase is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest
import trustme

from config.kafka import client_config
from config.kafka_tls import tls_context
from config.settings import Settings
from config.startup import load
from schemas.errors import EXIT_REFUSED, SettingsError
from tests.secure_kafka import PASSWORD, issue

_SSL: Final = {"KAFKA_BOOTSTRAP": "localhost:1", "KAFKA_SECURITY_PROTOCOL": "SSL"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, two certificates of its, one with an encrypted key, and files that are none."""
    made = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(made / "ca.pem")
    issue(authority, made, "ada")
    issue(authority, made, "bob", encrypted=True)
    (made / "text").write_text("no certificate")
    (made / "empty").touch()
    (made / "binary").write_bytes(bytes(range(256)))
    return made


#: The files of CA_FILE, CERT_FILE and KEY_FILE, the pass phrase; the setting that is refused, and words of the reason.
REFUSED: Final = [
    ("nowhere", None, None, None, "CA_FILE", "No such file or directory"),
    ("text", None, None, None, "CA_FILE", "holds no certificate in PEM format"),
    ("empty", None, None, None, "CA_FILE", "holds no certificate in PEM format"),
    (".", None, None, None, "CA_FILE", "Is a directory"),
    ("ca.pem", "nowhere", "ada-key.pem", None, "CERT_FILE", "No such file or directory"),
    ("ca.pem", "ada.pem", "nowhere", None, "KEY_FILE", "No such file or directory"),
    ("ca.pem", "text", "ada-key.pem", None, "CERT_FILE", "holds no certificate in PEM format"),
    ("ca.pem", "binary", "ada-key.pem", None, "CERT_FILE", "holds no certificate in PEM format"),
    ("ca.pem", "ada-key.pem", "ada-key.pem", None, "CERT_FILE", "holds no certificate in PEM format"),
    ("ca.pem", "ada.pem", "text", None, "KEY_FILE", "holds no private key in PEM format"),
    ("ca.pem", "ada.pem", "ada.pem", None, "KEY_FILE", "holds no private key in PEM format"),
    ("ca.pem", "bob.pem", "ada-key.pem", None, "KEY_FILE", "is not the key of the certificate in"),
    ("ca.pem", "ada.pem", "bob-key.pem", PASSWORD, "KEY_FILE", "is not the key of the certificate in"),
    ("ca.pem", "bob.pem", "bob-key.pem", None, "KEY_PASSWORD", "is encrypted with a pass phrase"),
    ("ca.pem", "bob.pem", "bob-key.pem", f"{PASSWORD}x", "KEY_PASSWORD", "not the pass phrase of"),
    ("ca.pem", "bob.pem", "bob-key.pem", PASSWORD * 100, "KEY_PASSWORD", "1024 bytes"),
    ("ca.pem", "ada.pem", None, None, "CERT_FILE", "needs BIDDEN_KAFKA_KEY_FILE"),
    ("ca.pem", None, "ada-key.pem", None, "KEY_FILE", "needs BIDDEN_KAFKA_CERT_FILE"),
    ("ca.pem", None, None, PASSWORD, "KEY_PASSWORD", "needs BIDDEN_KAFKA_CERT_FILE"),
]


def variables(folder: Path, ca: str, cert: str | None, key: str | None, password: str | None) -> dict[str, str]:
    """The settings, as variables without their prefix."""
    files = {"KAFKA_CA_FILE": ca, "KAFKA_CERT_FILE": cert, "KAFKA_KEY_FILE": key}
    found = {name: str(folder / file) for name, file in files.items() if file is not None}
    return found if password is None else found | {"KAFKA_KEY_PASSWORD": password}


@pytest.mark.parametrize(("ca", "cert", "key", "password", "setting", "reason"), REFUSED)
def test_what_cannot_be_used_is_refused_by_its_name(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ca: str,
    cert: str | None,
    key: str | None,
    password: str | None,
    setting: str,
    reason: str,
) -> None:
    """FM-32: a file that is missing, is none, or does not fit the others ends every process with 2 at its start."""
    monkeypatch.chdir(tmp_path)
    for name, value in (_SSL | variables(folder, ca, cert, key, password)).items():
        monkeypatch.setenv(f"BIDDEN_{name}", value)
    with pytest.raises(SettingsError) as caught:
        load()
    assert (caught.value.exit_code, caught.value.field) == (EXIT_REFUSED, f"BIDDEN_KAFKA_{setting}")
    assert caught.value.detail.startswith(f"BIDDEN_KAFKA_{setting}")
    assert reason in caught.value.detail
    assert PASSWORD not in caught.value.detail


def test_an_unreadable_key_is_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's own word for it, whichever it is: root may read every file."""
    monkeypatch.setattr(Path, "read_bytes", _denied)
    values: dict[str, Any] = {"kafka_security_protocol": "SSL", "kafka_ca_file": folder / "ca.pem"}
    with pytest.raises(SettingsError, match=r"BIDDEN_KAFKA_CA_FILE: .* cannot be read: Permission denied"):
        tls_context(Settings(**values))


def _denied(path: Path) -> bytes:
    raise PermissionError(13, "Permission denied", str(path))


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SASL_PLAINTEXT"])
def test_a_certificate_without_tls_is_refused(folder: Path, protocol: str) -> None:
    """It would silently not be used."""
    values: dict[str, Any] = {"kafka_sasl_mechanism": "PLAIN", "kafka_sasl_username": "a", "kafka_sasl_password": "b"}
    values |= {"kafka_cert_file": folder / "ada.pem", "kafka_key_file": folder / "ada-key.pem"}
    values["kafka_security_protocol"] = protocol
    with pytest.raises(ValueError, match="BIDDEN_KAFKA_CERT_FILE makes sense only with BIDDEN_KAFKA_SECURITY_PROTOCOL"):
        Settings(**values)


@pytest.mark.parametrize(("name", "password"), [("ada", None), ("bob", PASSWORD)])
def test_what_fits_reaches_the_clients(folder: Path, name: str, password: str | None) -> None:
    """librdkafka's configuration, and the context of the Faust runner's client; no pass phrase in what is shown."""
    values: dict[str, Any] = {"kafka_bootstrap": "localhost:1", "kafka_security_protocol": "SSL"}
    values |= {
        "kafka_ca_file": folder / "ca.pem",
        "kafka_cert_file": folder / f"{name}.pem",
        "kafka_key_file": folder / f"{name}-key.pem",
        "kafka_key_password": password,
    }
    settings = Settings(**values)
    assert tls_context(settings) is not None
    config = client_config(settings, "me")
    assert config["ssl.certificate.location"] == str(folder / f"{name}.pem")
    assert config["ssl.key.location"] == str(folder / f"{name}-key.pem")
    assert config.get("ssl.key.password") == password
    assert PASSWORD not in repr(settings)


def test_without_tls_no_file_is_read(folder: Path) -> None:
    """An authority's file may stay in the settings."""
    values: dict[str, Any] = {"kafka_ca_file": folder / "nowhere"}
    assert tls_context(Settings(**values)) is None
