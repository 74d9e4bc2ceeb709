"""Settings: their sources, what is refused, and that no secret is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest
from pydantic import SecretStr

from config.addresses import without_secrets
from config.kafka import client_config, producer_config
from config.settings import HOME_SETTINGS_FILE, Settings
from schemas.errors import EXIT_REFUSED, SettingsError
from schemas.mail_address import check_base_url, parse_sender
from schemas.vocabulary import UnknownPolicy


def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **variables: str) -> Settings:
    for name, value in variables.items():
        monkeypatch.setenv(f"BIDDEN_{name.upper()}", value)
    return Settings.load(directory=tmp_path)


def refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **variables: str) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, monkeypatch, **variables)
    assert caught.value.exit_code == EXIT_REFUSED
    return caught.value


def test_defaults(tmp_path: Path) -> None:
    """The defaults of the contract."""
    settings = Settings.load(directory=tmp_path)
    assert (settings.topic_prefix, settings.group, settings.partitions) == ("bidden", "bidden-workers", 12)
    assert (settings.lease_seconds, settings.max_attempts, settings.handover_window) == (60, None, 100)
    assert (settings.retry_base_seconds, settings.retry_max_seconds) == (30, 3600)
    assert (settings.smtp_connections, settings.smtp_timeout_seconds) == (10, 30)
    assert settings.unknown_policy is UnknownPolicy.HOLD
    assert settings.invitations_topic == "bidden.invitations.v1"
    assert settings.dead_letter_topic == "bidden.invitations.dlq.v1"


def test_the_order_of_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment, then .env, then what `bidden up` wrote to its folder, then the default."""
    home = tmp_path / ".bidden"
    home.mkdir()
    (home / HOME_SETTINGS_FILE).write_text("BIDDEN_GROUP=home\nBIDDEN_TOPIC_PREFIX=home\nBIDDEN_PARTITIONS=3\n")
    (tmp_path / ".env").write_text("BIDDEN_GROUP=dotenv\nBIDDEN_TOPIC_PREFIX=dotenv\n")
    settings = load(tmp_path, monkeypatch, group="environment")
    assert (settings.group, settings.topic_prefix, settings.partitions) == ("environment", "dotenv", 3)
    assert settings.max_attempts is None


#: As somebody saved it for version 0.1.0: every setting that there was.
_SAVED: Final = """
# our own servers
BIDDEN_DATABASE_URL=postgresql://bidden:secret@db.example.org:5432/bidden
BIDDEN_KAFKA_BOOTSTRAP=kafka1.example.org:9093,kafka2.example.org:9093
BIDDEN_KAFKA_SECURITY_PROTOCOL=SASL_SSL
BIDDEN_KAFKA_SASL_MECHANISM=SCRAM-SHA-512
BIDDEN_KAFKA_SASL_USERNAME=bidden
BIDDEN_KAFKA_SASL_PASSWORD='geheim'
BIDDEN_KAFKA_CA_FILE=/etc/bidden/ca.pem
BIDDEN_SMTP_URL=smtps://bidden:secret@mail.example.org:465
export BIDDEN_TOPIC_PREFIX=acme
BIDDEN_GROUP=acme-workers
BIDDEN_PARTITIONS=24
BIDDEN_MAIL_FROM="Acme <invitations@example.org>"
BIDDEN_BASE_URL=https://bidden.example.org/
BIDDEN_LEASE_SECONDS=90
BIDDEN_MAX_ATTEMPTS=7
BIDDEN_RETRY_BASE_SECONDS=10
BIDDEN_RETRY_MAX_SECONDS=1800
BIDDEN_UNKNOWN_POLICY=resend
BIDDEN_SMTP_CONNECTIONS=20
BIDDEN_SMTP_TIMEOUT_SECONDS=15
BIDDEN_HANDOVER_WINDOW=200
BIDDEN_LOG_RETENTION_DAYS=90
BIDDEN_OIDC_ISSUER=https://login.example.org
BIDDEN_OIDC_CLIENT_ID=bidden
BIDDEN_OIDC_CLIENT_SECRET=geheim
BIDDEN_OIDC_NAME=Acme
BIDDEN_HOME=/var/lib/bidden
BIDDEN_LOG_FORMAT=json
"""


def test_a_saved_dotenv_of_the_version_before(tmp_path: Path) -> None:
    """Every name and form of value that was accepted still is, and means the same."""
    (tmp_path / ".env").write_text(_SAVED)
    settings = Settings.load(directory=tmp_path)
    expected = {
        "database_url": SecretStr("postgresql://bidden:secret@db.example.org:5432/bidden"),
        "kafka_bootstrap": "kafka1.example.org:9093,kafka2.example.org:9093",
        "kafka_security_protocol": "SASL_SSL",
        "kafka_sasl_mechanism": "SCRAM-SHA-512",
        "kafka_sasl_username": "bidden",
        "kafka_sasl_password": SecretStr("geheim"),
        "kafka_ca_file": Path("/etc/bidden/ca.pem"),
        "smtp_url": SecretStr("smtps://bidden:secret@mail.example.org:465"),
        "topic_prefix": "acme",
        "group": "acme-workers",
        "partitions": 24,
        "mail_from": "Acme <invitations@example.org>",
        "base_url": "https://bidden.example.org",
        "lease_seconds": 90,
        "max_attempts": 7,
        "retry_base_seconds": 10,
        "retry_max_seconds": 1800,
        "unknown_policy": UnknownPolicy.RESEND,
        "smtp_connections": 20,
        "smtp_timeout_seconds": 15,
        "handover_window": 200,
        "max_worker_ends": 3,
        "log_retention_days": 90,
        "oidc_issuer": "https://login.example.org",
        "oidc_client_id": "bidden",
        "oidc_client_secret": SecretStr("geheim"),
        "oidc_name": "Acme",
        "send_rate": None,
        "send_rate_domain": None,
        "send_warmup": None,
        "home": Path("/var/lib/bidden"),
        "log_format": "json",
    }
    found = settings.model_dump()
    assert {name: found.pop(name) for name in expected} == expected
    # What came later has its default.
    assert found == {name: Settings.model_fields[name].default for name in found}


def test_home_may_come_from_dotenv(tmp_path: Path) -> None:
    """BIDDEN_HOME in .env says where the embedded servers' settings are."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / HOME_SETTINGS_FILE).write_text("BIDDEN_KAFKA_BOOTSTRAP=localhost:1\n")
    (tmp_path / ".env").write_text("BIDDEN_HOME=elsewhere\n")
    assert Settings.load(directory=tmp_path).require_kafka() == "localhost:1"


def test_an_empty_variable_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`BIDDEN_GROUP=` in a compose file means: not set."""
    assert load(tmp_path, monkeypatch, group="").group == "bidden-workers"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("database_url", "mysql://localhost/x"),
        ("database_url", "localhost:5432"),
        ("database_url", "postgresql://localhost/x?nonsense=1"),
        ("database_url", "postgresql://localhost:port/x"),
        ("database_url", "postgresql://localhost/%zz"),
        ("kafka_bootstrap", "localhost:port"),
        ("kafka_bootstrap", "localhost:1,"),
        ("group", "a\x1bb"),
        ("smtp_url", "http://localhost"),
        ("smtp_url", "smtp://"),
        ("kafka_security_protocol", "TLS"),
        ("topic_prefix", "with space"),
        ("topic_prefix", "x" * 151),
        ("partitions", "0"),
        ("partitions", "twelve"),
        ("mail_from", "nobody"),
        ("mail_from", "Name <@example.org>"),
        ("mail_from", "a@b.example\r\nBcc: x@y.example"),
        ("base_url", "example.org"),
        ("base_url", "ftp://example.org"),
        ("base_url", "https://example.org/?a=1"),
        ("lease_seconds", "0"),
        ("lease_seconds", "nan"),
        ("max_attempts", "0"),
        *(("retry_for", value) for value in ("0s", "24", "h", "1.5h", "-1h", "24 h", "1w", "31d", "99999999d", "1H")),
        *(("smtp_hello", value) for value in ("localhost", "a b.example", "-a.example", "mail.example.org\r\nRSET")),
        *(
            ("smtp_hello", value)
            for value in ("192.0.2.1", "[192.0.2.300]", "[::1]", "[IPv6:fe80::1%eth0]", "ä.example")
        ),
        ("retry_base_seconds", "0"),
        ("retry_max_seconds", "-1"),
        ("unknown_policy", "forget"),
        ("smtp_connections", "0"),
        ("smtp_timeout_seconds", "0"),
        ("handover_window", "0"),
        ("send_rate", "fast"),
        ("send_rate", "0/s"),
        ("send_rate", "14/s,"),
        ("send_rate", "14/s,20/s"),
        ("send_rate", "14/week"),
        ("send_rate", "1.5/s"),
        ("send_rate_domain", "2/s"),
        ("send_rate_domain", "example.com=2/s;example.com=3/s"),
        ("send_rate_domain", "example.com=2/s;"),
        ("send_warmup", "200"),
        ("send_warmup", "200/h,500/day"),
        ("log_format", "xml"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """FM-32: a setting that makes no sense is refused at start, and the error names its variable."""
    error = refusal(tmp_path, monkeypatch, **{name: value})
    assert error.field == f"BIDDEN_{name.upper()}"
    assert error.detail.startswith(f"BIDDEN_{name.upper()}: ")


@pytest.mark.parametrize(
    ("value", "seconds"), [("90s", 90), ("30m", 1800), ("24h", 86_400), ("5d", 432_000), ("30d", 2_592_000)]
)
def test_how_long_a_recipient_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, seconds: float
) -> None:
    """FM-37: BIDDEN_RETRY_FOR is a number and its unit; a day by default."""
    assert load(tmp_path, monkeypatch, retry_for=value).retry_for_seconds == seconds
    monkeypatch.delenv("BIDDEN_RETRY_FOR")
    assert Settings.load(directory=tmp_path).retry_for_seconds == 86_400


def test_resends_have_a_bound_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The policy `resend` sends five times at most, unless BIDDEN_MAX_ATTEMPTS says otherwise; `hold` never."""
    assert Settings.load(directory=tmp_path).resend_below == 0
    assert load(tmp_path, monkeypatch, unknown_policy="resend").resend_below == 5
    assert load(tmp_path, monkeypatch, unknown_policy="resend", max_attempts="2").resend_below == 2


@pytest.mark.parametrize("name", ["mail.example.org", "[192.0.2.1]", "[IPv6:2001:db8::1]", "xn--bcher-kva.example"])
def test_names_for_ehlo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A full host name or an address literal (RFC 5321, 4.1.3)."""
    assert load(tmp_path, monkeypatch, smtp_hello=name).smtp_hello == name


def test_settings_that_contradict_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A maximum below the base, and SASL without its parts, are refused with the variable to set."""
    error = refusal(tmp_path, monkeypatch, retry_base_seconds="100", retry_max_seconds="50")
    assert error.field == "BIDDEN_RETRY_MAX_SECONDS"
    monkeypatch.delenv("BIDDEN_RETRY_MAX_SECONDS")
    error = refusal(tmp_path, monkeypatch, kafka_security_protocol="SASL_SSL", kafka_sasl_mechanism="PLAIN")
    assert error.field == "BIDDEN_KAFKA_SASL_USERNAME"


@pytest.mark.parametrize("what", ["database", "kafka", "smtp"])
def test_a_server_that_is_not_set(tmp_path: Path, what: str) -> None:
    """A command that needs a server says which variable is missing, and what to do."""
    names = {"database": "DATABASE_URL", "kafka": "KAFKA_BOOTSTRAP", "smtp": "SMTP_URL"}
    with pytest.raises(SettingsError, match="start `bidden up` here") as caught:
        getattr(Settings.load(directory=tmp_path), f"require_{what}")()
    assert caught.value.field == f"BIDDEN_{names[what]}"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("database_url", "mysql://ada:hunter2@localhost/x"),
        ("smtp_url", "smtpx://ada:hunter2@localhost"),
        ("smtp_url", "smtp://ada:hunter2@"),
        ("database_url", "postgresql://ada:hunter2%zz@localhost/x"),
        ("database_url", "postgresql://ada:1/hunter2@localhost/x"),
        ("smtp_url", "smtp://ada:hunter2@h\u2100st"),
        ("base_url", "https://ada:[hunter2]@localhost"),
    ],
)
def test_errors_hold_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """The error about an address does not repeat its password, and neither does its cause."""
    error = refusal(tmp_path, monkeypatch, **{name: value})
    assert "hunter2" not in error.detail
    assert "hunter2" not in str(error.as_dict())
    assert "hunter2" not in str(error.__cause__)


def test_settings_show_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Printed settings show no password; the `require_` methods return it."""
    settings = load(
        tmp_path,
        monkeypatch,
        database_url="postgresql://ada:hunter2@localhost/x",
        smtp_url="smtps://ada:hunter2@localhost",
        kafka_security_protocol="SASL_SSL",
        kafka_sasl_mechanism="PLAIN",
        kafka_sasl_username="ada",
        kafka_sasl_password="hunter2",
    )
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in settings.model_dump_json()
    assert settings.require_database() == "postgresql://ada:hunter2@localhost/x"
    assert settings.require_smtp() == "smtps://ada:hunter2@localhost"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://ada:hunter2@db:5432/x?password=hunter2", "postgresql://db:5432/x"),
        ("smtp://localhost", "smtp://localhost"),
        ("postgresql://ada:hunter2@[::1]:5432/x", "postgresql://[::1]:5432/x"),
        ("smtps://[2001:db8::1]", "smtps://[2001:db8::1]"),
        ("postgresql://ada:1/hunter2@db/x", "(an address that cannot be read)"),
        ("postgresql:///x?host=/tmp&password=hunter2", "postgresql://?/x"),
        ("postgresql://ada:hunter2@db:port/x", "(an address that cannot be read)"),
        ("postgresql://ada:hunter2@[db/x", "(an address that cannot be read)"),
    ],
)
def test_addresses_without_secrets(url: str, shown: str) -> None:
    """An address in messages and logs has a host, and never a user or a password."""
    assert without_secrets(url) == shown


@pytest.mark.parametrize("mail_from", ["nobody", "a@b\r\nX: y", "Name <a b@c>", "é@example.org", "Name <>", "a@b, c@d"])
def test_a_sender_that_no_mail_can_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mail_from: str) -> None:
    """FM-32: refused at start, by the setting's name, and not when the first mail is composed."""
    assert refusal(tmp_path, monkeypatch, mail_from=mail_from).field == "BIDDEN_MAIL_FROM"


@pytest.mark.parametrize(
    "base_url",
    [
        "example.org",
        "ftp://example.org",
        "https://",
        "https://é.org",
        "https://a/?x",
        "https://a/#x",
        "https://a b",
        "https://u:p@a",
        'https://a/"',
        "https://[x",
        "https://a/\r\nX: y",
        f"https://{'a' * 600}",
    ],
)
def test_a_base_url_that_no_link_can_begin_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base_url: str) -> None:
    """FM-32: refused at start, by the setting's name, and not when the first mail is composed."""
    assert refusal(tmp_path, monkeypatch, base_url=base_url).field == "BIDDEN_BASE_URL"


def test_empty_is_neither_a_sender_nor_a_base_url() -> None:
    """The rules themselves; an empty variable counts as not set."""
    with pytest.raises(ValueError, match="must be an address"):
        parse_sender("")
    with pytest.raises(ValueError, match="must be ASCII"):
        check_base_url("")


def test_a_base_url_has_no_slash_at_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Links are made by appending to it."""
    assert load(tmp_path, monkeypatch, base_url="https://x.example/app/").base_url == "https://x.example/app"


def test_kafka_clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings reach librdkafka's configuration, and producers are idempotent."""
    plain = client_config(load(tmp_path, monkeypatch, kafka_bootstrap="localhost:9092"), "me")
    assert (plain["bootstrap.servers"], plain["client.id"]) == ("localhost:9092", "me")
    assert not [name for name in plain if name.startswith(("sasl", "ssl"))]
    variables: dict[str, Any] = {
        "kafka_security_protocol": "SASL_SSL",
        "kafka_sasl_mechanism": "SCRAM-SHA-512",
        "kafka_sasl_username": "ada",
        "kafka_sasl_password": "hunter2",
        "kafka_ca_file": "/ca.pem",
    }
    secure = producer_config(load(tmp_path, monkeypatch, **variables), "me")
    assert (secure["sasl.username"], secure["sasl.password"]) == ("ada", "hunter2")
    assert (secure["ssl.ca.location"], secure["security.protocol"]) == ("/ca.pem", "SASL_SSL")
    assert secure["enable.idempotence"] is True
