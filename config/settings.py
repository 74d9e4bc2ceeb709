"""The settings, read once at start and refused by name when they make no sense.

Order: the environment, then `.env` in the working directory, then what `bidden up` wrote to its folder
(`BIDDEN_HOME/settings.env`), then the default. Addresses contain passwords: they are `SecretStr`, and shown only
through `config.addresses.without_secrets`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from config.addresses import check_bootstrap, check_database_url, check_mail_from, check_smtp_url, is_loopback, split
from config.setting_forms import duration, hello_name, parsed_by, proxy_networks, seconds
from schemas.errors import SettingsError
from schemas.mail_address import check_base_url
from schemas.send_rates import SendRates, parse_domains, parse_rates, parse_warmup
from schemas.send_rates import parse as parse_send_rates
from schemas.time_zones import iana_time_zone
from schemas.vocabulary import RolePolicy, UnknownPolicy

PREFIX = "BIDDEN_"
#: The file below BIDDEN_HOME that `bidden up` writes and every command reads.
HOME_SETTINGS_FILE = "settings.env"
#: How often the policy `resend` sends at most, where BIDDEN_MAX_ATTEMPTS does not say.
_RESENDS: Final = 5


def _clean(value: object) -> object:
    """No setting may have control characters, or bytes that are not UTF-8."""
    if isinstance(value, str) and any(ord(c) < 32 or ord(c) == 127 or "\ud800" <= c <= "\udfff" for c in value):
        raise ValueError("must be UTF-8 text without control characters")
    return value


class Settings(BaseSettings):
    """All settings of a process. Use `load`, which raises errors for people."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="ignore", env_ignore_empty=True, hide_input_in_errors=True
    )

    database_url: Annotated[SecretStr | None, AfterValidator(lambda v: v and check_database_url(v))] = None
    kafka_bootstrap: Annotated[str | None, AfterValidator(lambda v: v and check_bootstrap(v))] = None
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    kafka_sasl_username: str | None = None
    kafka_sasl_password: SecretStr | None = None
    kafka_ca_file: Path | None = None
    kafka_cert_file: Path | None = None
    kafka_key_file: Path | None = None
    kafka_key_password: SecretStr | None = None
    kafka_group_protocol: Literal["classic", "consumer"] = "classic"
    smtp_url: Annotated[SecretStr | None, AfterValidator(lambda v: v and check_smtp_url(v))] = None
    topic_prefix: str = Field("bidden", pattern=r"^[A-Za-z0-9._-]{1,150}$")
    group: str = Field("bidden-workers", min_length=1, max_length=200)
    partitions: int = Field(12, ge=1, le=1000)
    mail_from: Annotated[str, AfterValidator(check_mail_from)] = "Invitations <invitations@bidden.example>"
    base_url: Annotated[str, AfterValidator(check_base_url)] = "http://localhost:8000"
    lease_seconds: float = Field(60, ge=1, le=3600)
    retry_for: Annotated[str, AfterValidator(duration)] = "24h"
    max_attempts: int | None = Field(None, ge=1, le=100)
    retry_base_seconds: float = Field(30, gt=0, le=86400)
    retry_max_seconds: float = Field(3600, gt=0, le=7 * 86400)
    unknown_policy: UnknownPolicy = UnknownPolicy.HOLD
    role_policy: RolePolicy = RolePolicy.EACH
    send_rate: Annotated[str | None, AfterValidator(parsed_by(parse_rates))] = None
    send_rate_domain: Annotated[str | None, AfterValidator(parsed_by(parse_domains))] = None
    send_warmup: Annotated[str | None, AfterValidator(parsed_by(parse_warmup))] = None
    smtp_connections: int = Field(10, ge=1, le=500)
    smtp_hello: Annotated[str | None, AfterValidator(lambda v: v and hello_name(v))] = None
    smtp_timeout_seconds: float = Field(30, gt=0, le=600)
    handover_window: int = Field(100, ge=1, le=10_000)
    max_worker_ends: int = Field(3, ge=2, le=100)
    log_retention_days: int = Field(180, ge=1, le=36_500)
    trusted_proxies: Annotated[str, AfterValidator(parsed_by(proxy_networks))] = "127.0.0.1,::1"
    webhook_allow_private: bool = False
    oidc_issuer: str | None = None
    oidc_client_id: str | None = None
    oidc_client_secret: SecretStr | None = None
    oidc_name: str = Field("your organisation", min_length=1, max_length=60)
    source_url: Annotated[SecretStr | None, AfterValidator(lambda v: v and check_database_url(v))] = None
    source_writer_url: Annotated[SecretStr | None, AfterValidator(lambda v: v and check_database_url(v))] = None
    source_file: Path | None = None
    source_time_zone: Annotated[str | None, AfterValidator(lambda v: v and iana_time_zone(v))] = None
    source_max_age: Annotated[str | None, AfterValidator(lambda v: v and duration(v))] = None
    home: Path = Path(".bidden")
    state_dir: Path | None = None
    log_format: Literal["console", "json"] = "console"
    metrics_port: int | None = Field(None, ge=1, le=65_535)
    metrics_host: str = Field("127.0.0.1", max_length=253)

    @field_validator("*", mode="before")
    @classmethod
    def _is_clean(cls, value: object) -> object:
        return _clean(value)

    @field_validator("oidc_issuer")
    @classmethod
    def _oidc_issuer(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = split(value)
        if parts.scheme not in {"http", "https"} or not parts.netloc or parts.query or parts.fragment:
            raise ValueError("must look like https://host or https://host/path")
        if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
            raise ValueError("must begin with https://, unless the provider is on this machine itself")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.retry_max_seconds < self.retry_base_seconds:
            raise ValueError("BIDDEN_RETRY_MAX_SECONDS must not be less than BIDDEN_RETRY_BASE_SECONDS")
        if self.kafka_security_protocol.startswith("SASL"):
            for name in ("kafka_sasl_mechanism", "kafka_sasl_username", "kafka_sasl_password"):
                if getattr(self, name) is None:
                    raise ValueError(f"{PREFIX}{name.upper()} is needed with SASL")
        self._check_client_certificate()
        if self.oidc_issuer is not None:
            for name in ("oidc_client_id", "oidc_client_secret"):
                if getattr(self, name) is None:
                    raise ValueError(f"{PREFIX}{name.upper()} is needed with {PREFIX}OIDC_ISSUER")
        return self

    def _check_client_certificate(self) -> None:
        """Certificate and key are set together, and where TLS uses them. What is in the files is checked at start."""
        names = [
            name for name in ("cert_file", "key_file", "key_password") if getattr(self, f"kafka_{name}") is not None
        ]
        if not names:
            return
        first = f"{PREFIX}KAFKA_{names[0].upper()}"
        for name in ("cert_file", "key_file"):
            if name not in names:
                raise ValueError(f"{first} needs {PREFIX}KAFKA_{name.upper()} beside it")
        if not self.kafka_security_protocol.endswith("SSL"):
            raise ValueError(f"{first} makes sense only with {PREFIX}KAFKA_SECURITY_PROTOCOL SSL or SASL_SSL")

    @classmethod
    def load(cls, *, directory: Path | None = None) -> Self:
        """Read the settings. SettingsError names the environment variable that is wrong.

        `.env` and a relative BIDDEN_HOME are relative to `directory` (default: the working directory).
        """
        # Absolute: a folder whose name begins with a tilde is no home directory.
        try:
            base = (directory or Path()).absolute()
        except FileNotFoundError:
            raise SettingsError(
                "the working directory does not exist any more: change to another one, and start again"
            ) from None
        try:
            # BIDDEN_HOME itself can come from the environment or from .env, so it is read first.
            home = base / _Home(_env_file=base / ".env").home  # type: ignore[call-arg] # pydantic-settings accepts it
            return cls(_env_file=(home / HOME_SETTINGS_FILE, base / ".env"))  # type: ignore[call-arg] # likewise
        except ValidationError as error:
            raise _settings_error(error) from error
        except UnicodeDecodeError:
            raise SettingsError(f".env, or {HOME_SETTINGS_FILE} in {PREFIX}HOME, is not UTF-8 text") from None
        except OSError as error:
            name = ".env" if str(error.filename) == str(base / ".env") else f"{PREFIX}HOME"
            raise SettingsError(f"{name}: cannot be read: {error.strerror}", field=name) from error

    @property
    def state_folder(self) -> Path:
        """Where workers keep their journals."""
        return self.home / "state" if self.state_dir is None else self.state_dir

    @property
    def retry_for_seconds(self) -> float:
        """How long after its first temporary refusal a recipient is tried."""
        return seconds(self.retry_for)

    @property
    def resend_below(self) -> int:
        """Below how many attempts an unknown delivery is sent again; 0, never, under the policy `hold`."""
        if self.unknown_policy is UnknownPolicy.HOLD:
            return 0
        return _RESENDS if self.max_attempts is None else self.max_attempts

    @property
    def send_rates(self) -> SendRates:
        """The rates of the environment; those that an admin set in the database hold instead."""
        return parse_send_rates(self.send_rate, self.send_rate_domain, self.send_warmup)

    def require_database(self) -> str:
        """The database's address with its secrets."""
        if self.database_url is None:
            raise _missing("DATABASE_URL")
        return self.database_url.get_secret_value()

    def require_kafka(self) -> str:
        """The brokers' addresses."""
        if self.kafka_bootstrap is None:
            raise _missing("KAFKA_BOOTSTRAP")
        return self.kafka_bootstrap

    def require_smtp(self) -> str:
        """The mail server's address with its secrets."""
        if self.smtp_url is None:
            raise _missing("SMTP_URL")
        return self.smtp_url.get_secret_value()

    @property
    def invitations_topic(self) -> str:
        """The topic that carries one message per member and batch."""
        return f"{self.topic_prefix}.invitations.v1"

    @property
    def dead_letter_topic(self) -> str:
        """The topic of messages that can never be processed."""
        return f"{self.topic_prefix}.invitations.dlq.v1"

    @property
    def outcomes_topic(self) -> str:
        """The compacted topic of what became of each delivery."""
        return f"{self.topic_prefix}.outcomes.v1"

    @property
    def topics(self) -> tuple[str, ...]:
        """All our topics."""
        return self.invitations_topic, self.dead_letter_topic, self.outcomes_topic, self.claims_topic

    @property
    def claims_topic(self) -> str:
        """The topic of the claims that workers hold, from which a restored ledger learns."""
        return f"{self.topic_prefix}.claims.v1"


class _Home(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="ignore", env_ignore_empty=True, hide_input_in_errors=True
    )
    home: Annotated[Path, BeforeValidator(_clean)] = Path(".bidden")


def _missing(name: str) -> SettingsError:
    variable = f"{PREFIX}{name}"
    return SettingsError(
        f"{variable} is not set: start `bidden up` here, or set it in the environment or in .env",
        field=variable,
    )


def _settings_error(error: ValidationError) -> SettingsError:
    first: Any = error.errors(include_url=False, include_input=False)[0]
    variable = f"{PREFIX}{str(first['loc'][0]).upper()}" if first["loc"] else None
    message = str(first["msg"]).removeprefix("Value error, ")
    if variable is None:
        # About several settings: the first word is the one to change.
        return SettingsError(message, field=message.split()[0])
    return SettingsError(f"{variable}: {message}", field=variable)
