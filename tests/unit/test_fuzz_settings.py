"""Invalid values of every setting: refused by name, without a traceback and without secrets."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import hypothesis.strategies as st
import pytest
from hypothesis import example, given

from cli.main import main
from config.addresses import without_secrets
from config.settings import HOME_SETTINGS_FILE, PREFIX, Settings
from mail.compose import CompiledTemplate
from mail.smtp import url
from producers.topics import Topics
from schemas.envelope import Envelope
from schemas.errors import SettingsError
from schemas.invitation import EventDetails, Recipient
from schemas.keys import DeliveryKey
from schemas.vocabulary import Action, EventKind, Role
from tests.fuzzing import AWFUL, fuzz, run

SECRET: Final = "hunter2"
#: Almost valid values of the settings that have a syntax.
_ADDRESSES: Final = [
    f"ada:{SECRET}@127.0.0.1:1/x", f"ada:{SECRET}@[::1]:1/x", f"ada:{SECRET}/@127.0.0.1:1/x", f"ada:{SECRET}@@h:1/x",
    f"ada:1/{SECRET}@h/x", f"ada:{SECRET}%zz@127.0.0.1:1/x", f"ada:[{SECRET}]@127.0.0.1:1/x", f"{SECRET}:x@h\u2100st/x",
    f"ada:{SECRET}@[::1/x", f"ada:{SECRET}@127.0.0.1:port/x", f"ada:{SECRET}@127.0.0.1:99999/x",
    f"/x?password={SECRET}",
    f"ada:{SECRET}@127.0.0.1:1/x?nonsense={SECRET}", f"ada:{SECRET}@127.0.0.1:1/x?{SECRET}", f"127.0.0.1:1/%00{SECRET}",
    f"ada:{SECRET}@127.0.0.1:1/x#{SECRET}", f":{SECRET}@", "", "localhost", "h1:1,h2:2/x", f"ada:{SECRET}#@127.0.0.1/x",
]  # fmt: skip
_SCHEMES: Final = ["postgresql://", "postgres://", "mysql://", "smtp://", "smtps://", "http://", "https://", "", "//"]
URLS: Final = st.tuples(st.sampled_from(_SCHEMES), st.sampled_from(_ADDRESSES)).map("".join)
BROKERS: Final = st.lists(
    st.sampled_from(
        ["localhost:1", "[::1]:1", "h", "h:0", "h:99999", "h:x", ":1", "", " ", f"ada:{SECRET}@h:1", "a b:1"]
    ),
    min_size=1,
    max_size=3,
).map(",".join)
NUMBERS: Final = st.sampled_from(["0", "-1", "1", "1.5", "1e400", "inf", "-inf", "NaN", "9" * 30, "ten", "0x1", " 7 "])
_MAILBOXES: Final = [
    "a@b.example", "A <a@b.example>", "nobody", "<>", "@", "a@", "A <a@b", "a@b, c@d", "a b@c", "ü@é.example",
    "a@[::1]", "=?utf-8?q?=0D=0A?= <a@b.example>", '"<x@y>" <a@b.example>', "a@b.example>", "A <a@b.example> B",
    "A\\ <a@b>", "a..b@c", "A B <a@b.example>, C <c@d.example>",
]  # fmt: skip
VARIABLES: Final = sorted(PREFIX + name.upper() for name in Settings.model_fields)


def values(variable: str) -> st.SearchStrategy[str]:
    """Values for the variable: almost valid ones, and arbitrary ones."""
    near = {
        "DATABASE_URL": URLS,
        "SMTP_URL": URLS,
        "BASE_URL": URLS,
        "KAFKA_BOOTSTRAP": BROKERS,
        "MAIL_FROM": st.sampled_from(_MAILBOXES),
        "KAFKA_CA_FILE": st.sampled_from(["/nowhere", "/", "/etc/passwd"]),
        "HOME": st.sampled_from(["~nobody-of-that-name", "x" * 300, "/dev/null", "/proc/self/mem", "."]),
    }
    # No environment can hold a NUL.
    return st.one_of(near.get(variable.removeprefix(PREFIX), NUMBERS), AWFUL).map(lambda text: text.replace("\0", ""))


def cases() -> st.SearchStrategy[tuple[str, str]]:
    """A variable and its value."""
    return st.sampled_from(VARIABLES).flatmap(lambda variable: st.tuples(st.just(variable), values(variable)))


EVENT: Final = EventDetails(
    event_id=1,
    kind=EventKind.WORKSHOP,
    name="Workshop",
    description=None,
    starts_at=datetime(2096, 4, 9, 18, 30, tzinfo=UTC),
    ends_at=datetime(2096, 4, 9, 20, 30, tzinfo=UTC),
    time_zone="Europe/London",
    host_name="The Engine Room",
    host_address="1 Example Street",
    chapter_names=("London",),
    chapter_email="london@example.org",
)


def load_settings(variable: str, directory: Path) -> Settings | SettingsError:
    """The settings of the environment, used as the product uses this variable; or the error."""
    try:
        settings = Settings.load(directory=directory)
        if variable == "BIDDEN_SMTP_URL":
            url.parse(settings.require_smtp())
        if variable in ("BIDDEN_KAFKA_CA_FILE", "BIDDEN_KAFKA_BOOTSTRAP"):
            Topics(settings)
    except SettingsError as error:
        return error
    return settings


def test_any_value(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """FM-32: any value of any variable is accepted, or refused by the variable's name. Accepted settings compose a mail
    and create a client. No error and no displayed address holds a password.
    """
    monkeypatch.setenv("BIDDEN_KAFKA_SECURITY_PROTOCOL", "SSL")
    monkeypatch.setenv("BIDDEN_KAFKA_BOOTSTRAP", "localhost:1")

    @fuzz(500)
    @given(case=cases())
    @example(case=("BIDDEN_KAFKA_CA_FILE", "/nowhere"))
    def check(case: tuple[str, str]) -> None:
        variable, value = case
        with monkeypatch.context() as patch:
            patch.setenv(variable, value)
            found = load_settings(variable, tmp_path)
        if isinstance(found, SettingsError):
            assert found.field == variable, (case, found)
            assert variable in found.detail
            assert SECRET not in f"{found.detail} {found.__cause__}", case
            return
        for address in (found.database_url, found.smtp_url):
            assert address is None or SECRET not in without_secrets(address.get_secret_value()), case
        mail = CompiledTemplate(EVENT, Role.STUDENT, found.mail_from, found.base_url).compose(
            Recipient(1, "Ada", None, "ada@example.org", "t"),
            DeliveryKey(1, Action.INVITE, 1, "Student"),
            datetime(2026, 1, 1, tzinfo=UTC),
        )
        assert isinstance(mail, Envelope), (case, mail)

    check()


@pytest.mark.parametrize("name", ["worker", "dispatch"])
def test_a_process_does_not_start(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """FM-32: a process that would run until stopped exits with 2 and names the invalid variable."""
    monkeypatch.chdir(tmp_path)

    @fuzz(120)
    @given(case=cases().filter(lambda case: case[0] != "BIDDEN_DATABASE_URL" or name == "worker"))
    def check(case: tuple[str, str]) -> None:
        variable, value = case
        with monkeypatch.context() as patch:
            patch.setenv(variable, value)
            is_wrong = isinstance(load_settings("", tmp_path), SettingsError)
            result = run(name, "--json")
        result.check()
        assert result.code == 2
        assert result.error["field"] in ({variable} if is_wrong else {"BIDDEN_DATABASE_URL", "BIDDEN_SMTP_URL"})
        assert SECRET not in result.err

    check()


@pytest.mark.parametrize("content", [b"\xff\xfe", b"BIDDEN_GROUP=\xff", b"\0=\n'\"", b"=" * 9000, b"BIDDEN_HOME=\0\n"])
@pytest.mark.parametrize("file", [".env", f".bidden/{HOME_SETTINGS_FILE}"])
def test_any_file(content: bytes, file: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """FM-32: a file of settings that is not text is refused; lines that are no settings are ignored."""
    (tmp_path / ".bidden").mkdir()
    (tmp_path / file).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    result = run("batches", "--json")
    result.check()
    assert result.code == 2


def test_a_full_disk(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Output that cannot be written: exit 1 and an error, because the command itself may have succeeded."""

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cli.main.cli.main", full)
    with pytest.raises(SystemExit) as end, contextlib.suppress(OSError):
        main(["batches"])
    assert end.value.code == 1
    assert "No space left on device" in capsys.readouterr().err
