"""TLS to Kafka: the files that the settings name, read and checked before a client uses them.

The clients would refuse them, too, each at another time and with other words, and none says which setting is meant.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Final

from config.settings import PREFIX, Settings
from schemas.errors import SettingsError

_CA: Final = f"{PREFIX}KAFKA_CA_FILE"
_CERT: Final = f"{PREFIX}KAFKA_CERT_FILE"
_KEY: Final = f"{PREFIX}KAFKA_KEY_FILE"
_PASSWORD: Final = f"{PREFIX}KAFKA_KEY_PASSWORD"
_OTHERS_KEY: Final = "KEY_VALUES_MISMATCH"


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """What the settings say of TLS; None without it. SettingsError names the setting whose file cannot be used."""
    if not settings.kafka_security_protocol.endswith("SSL"):
        return None
    context = _with_authorities(settings.kafka_ca_file)
    cert, key = settings.kafka_cert_file, settings.kafka_key_file
    if cert is not None and key is not None:
        secret = settings.kafka_key_password
        _add_certificate(context, cert, key, secret.get_secret_value() if secret else None)
    return context


def _with_authorities(file: Path | None) -> ssl.SSLContext:
    if file is None:
        return ssl.create_default_context()
    _read(_CA, file)
    try:
        return ssl.create_default_context(cafile=str(file))
    except ssl.SSLError as error:
        raise _refusal(_CA, f"{file} holds no certificate in PEM format", error) from error


def _add_certificate(context: ssl.SSLContext, cert: Path, key: Path, secret: str | None) -> None:
    text = _read(_CERT, cert)
    _read(_KEY, key)
    asked: list[bool] = []

    def password() -> str:
        # Also without a pass phrase: otherwise the library asks for one at the terminal.
        asked.append(True)
        return secret or ""

    try:
        context.load_cert_chain(str(cert), str(key), password)
    except ssl.SSLError as error:
        if error.reason == _OTHERS_KEY:
            raise _refusal(_KEY, f"{key} is not the key of the certificate in {cert}", error) from error
        if asked and secret is None:
            raise _refusal(_PASSWORD, f"not set, and {key} is encrypted with a pass phrase", error) from error
        if asked:
            raise _refusal(_PASSWORD, f"not the pass phrase of {key}", error) from error
        if not _is_certificate(text):
            raise _refusal(_CERT, f"{cert} holds no certificate in PEM format", error) from error
        raise _refusal(_KEY, f"{key} holds no private key in PEM format", error) from error
    except ValueError as error:
        raise SettingsError(f"{_PASSWORD}: {error}", field=_PASSWORD) from error


def _is_certificate(pem: bytes) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem.decode("ascii"))
    except (ssl.SSLError, ValueError):
        return False
    return True


def _read(name: str, file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise SettingsError(f"{name}: {file} cannot be read: {error.strerror}", field=name) from error


def _refusal(name: str, what: str, error: ssl.SSLError) -> SettingsError:
    said = (error.reason or str(error)).replace("_", " ").lower()
    return SettingsError(f"{name}: {what} (OpenSSL: {said})", field=name)


#: For who only wants to know whether the files can be used.
check: Callable[[Settings], object] = tls_context
