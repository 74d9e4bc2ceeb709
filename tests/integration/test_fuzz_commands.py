"""Fuzzes every command with valid and invalid arguments."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import click
import hypothesis.strategies as st
import pytest
from confluent_kafka import KafkaException, Producer
from hypothesis import example, given

from cli import progress
from config.kafka import client_config
from config.settings import Settings
from db import accounts
from db.accounts import AccountRole
from producers import batch_control
from producers.topics import Topics
from schemas.outcomes import Failed, Sent, Unknown
from tests.acceptance.processes import environment, eventually
from tests.commands import COMMANDS
from tests.fuzzing import AWFUL, fingerprint, fuzz, run
from tests.integration.importing import EVENT, subscription
from tests.integration.scenario import Scenario
from web.auth.api_clients import create_client

#: They run until they are stopped, or start servers: they get only arguments that must be refused.
ENDLESS: Final = {"up", "demo", "worker", "dispatch", "serve", "admin"}
#: Examples for each command; fewer for those that use Kafka, whose clients are slow to start.
EXAMPLES: Final = {
    "import": 40,
    "sync": 40,
    "invite": 50,
    "status": 50,
    "batches": 10,
    "log": 50,
    "why": 50,
    "audit": 40,
    "pause": 40,
    "resume": 40,
    "cancel": 40,
    "retry": 40,
    "resolve": 80,
    "cleanup": 40,
    "replay": 60,
    "backup": 15,
    "restore": 15,
    "reconcile": 6,
    "account add": 20,
    "account list": 10,
    "account password": 15,
    "account change": 30,
    "account disable": 20,
    "account enable": 20,
    "migrate": 6,
    "doctor": 4,
    "dlq list": 8,
    "dlq show": 30,
    "dlq redrive": 40,
    "dlq discard": 30,
    "client add": 60,
    "client list": 8,
    "client revoke": 30,
}
KAFKA: Final = {
    "invite", "replay", "reconcile", "migrate", "doctor", "dlq list", "dlq show", "dlq redrive", "dlq discard",
}  # fmt: skip

IDS: Final = ["1", "1", "1", "2", "3", "4", "99", "01", str(2**63 - 1)]
NO_IDS: Final = ["0", "-1", "1.0", "1e3", str(2**63), str(10**30), "one"]
AUDIENCES: Final = ["students", "coaches", "everyone"]
NO_AUDIENCES: Final = ["Students", "nobody", "students,coaches"]
TIMES: Final = ["2026-04-09T18:30:00Z", "2026-04-09T18:30:00+01:00", "2026-W15-4T10:00Z", "1970-01-01T00:00:00Z"]
NO_TIMES: Final = [
    "2026-04-09", "2026-04-09T18:30:00", "2026-02-30T00:00:00Z", "2026-13-01T00:00:00Z", "2026-04-09T25:00:00Z", "now",
    "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2026-04-09T18:30:00+99:00", "2026-04-09T18:30:60Z",
    "yesterday", "1775759400", "\u0662026-04-09T18:30:00Z", "1969-12-31T23:59:59Z", "2026-04-09T18:30:00 Z",
]  # fmt: skip
POSITIONS: Final = ["0:0", "0:1", "0:2", "1:0", "9:0", "00:00", "999999999:0", "0:999999999999999999"]
NO_POSITIONS: Final = [
    "0:-1", "-1:0", "0:", ":0", ":", "0", "0:0:0", "0;0", "0: 0", "\u0660:\u0660", "0:0\n", "0.0:1", "0x0:0",
    "9999999999:0", "0:9999999999999999999",
]  # fmt: skip
AGES: Final = ["180d", "12h", "30m", "0d", "999999d", "999999m"]
NO_AGES: Final = ["9999999d", "-1d", "1y", "d", "1", "1.5d", "1d1h", "\u0663d", "180 d", "180D"]
NAMES: Final = ["Ada", "Zoë [/red]", "x" * 200, "", "'; --"]
NO_NAMES: Final = ["x" * 201, "\udcff", "\0", "\x1b[2J", "a\nb"]
#: Valid and invalid values of each parameter. Parameters that would start something have no valid ones.
VALUES: Final[dict[str, tuple[list[str], list[str]]]] = {
    "event": ([*IDS, "workshop/1", "[/red]"], [*NO_IDS, "workshop/", "a b"]),
    "member": (IDS, NO_IDS),
    "batch": (IDS, NO_IDS),
    "audience": (AUDIENCES, NO_AUDIENCES),
    "initiator": (NAMES, NO_NAMES),
    "role": (["admin", "organiser"], ["Admin", "king", ""]),
    "chapters": (IDS, NO_IDS),
    "by": (NAMES, NO_NAMES),
    "key": (["k1", "k2", "Zoë"], ["", *NO_NAMES]),
    "verdict": (["resend", "sent", "failed"], ["SENT", "lost"]),
    "status_filter": (["sent", "failed", "unknown", "skipped", "pending"], ["retry", "SENT"]),
    "older_than": (AGES, NO_AGES),
    "since": (TIMES, NO_TIMES),
    "positions": (POSITIONS, NO_POSITIONS),
    "position": (POSITIONS, NO_POSITIONS),
    "file": (["-"], ["nowhere.jsonl", "", ".", "/proc/self/mem", "x" * 300]),
    "every": ([], ["0s", "-1s", "15", "1.5s", "s", "15 s", "soon", "9999999999999s"]),
    "members": ([], ["14", "0", "-1", "1000001", "4300.0", "all"]),
    "workers": ([], ["-1", "65", "1.0", "two"]),
    "host": ([], ["", "no host", "256.0.0.1", "\0"]),
    "port": ([], ["-1", "65536", "http", "80.0"]),
    "name": (["planner", "Zoë [/red]", "x" * 60], ["x" * 61, " ", *NO_NAMES]),
    "email": (
        ["ada@bidden.example", " ADA@bidden.example", "olga@bidden.example", "new@bidden.example"],
        ["nobody@bidden.example", "ada", "@", "a b@c.example", "x" * 330 + "@b", *NO_NAMES],
    ),
    "scopes": (["read", "invite", "operate", "dead-letters"], ["", "READ", "read,invite", "write"]),
    "webhook": (
        ["https://example.org/hook", "http://127.0.0.1:1/"],
        ["http://example.org", "https://a:b@c", *NO_NAMES[1:]],
    ),
    "client_id": (IDS, NO_IDS),
    "expires": (["2027-01-31", "9999-12-30"], ["2020-01-01", "2027-02-30", "tomorrow", "2027-01-31T00:00:00Z", ""]),
    "processes": (["worker", "dispatcher", "web", "operator", "migrate"], ["Worker", "site", ""]),
    "runner": ([], ["Confluent", "kafka", "faust,confluent"]),
}
EXTRA: Final = ["--nonsense", "--json=1", "-x", "--\udcff", "-\x1b", "--", "one-too-many", "\udcff"]


@st.composite
def command_lines(draw: st.DrawFn, name: str) -> list[str]:
    """Arguments for a command in any order and number: all valid, one invalid, or most invalid."""
    parameters = COMMANDS[name].params
    wrong = draw(st.sampled_from(["", "", "all", "extra", *(parameter.name or "" for parameter in parameters)]))
    parts: list[list[str]] = []
    for parameter in parameters:
        optional = isinstance(parameter, click.Option) and not parameter.required
        for _ in range(draw(st.sampled_from([0, 0, 1, 2] if optional else [1] * 8 + [0, 2]))):
            if isinstance(parameter, click.Option) and parameter.is_flag:
                parts.append(list(parameter.opts))
                continue
            valid, invalid = VALUES[parameter.name or ""]
            is_valid = valid and wrong not in ("all", parameter.name)
            value = draw(st.sampled_from(valid) if is_valid else st.one_of(st.sampled_from(invalid), AWFUL))
            if parameter.name == "file":
                value = value.replace("\0", "")  # no system passes it on, and no file has such a name
            if isinstance(parameter, click.Argument):
                parts.append([value])
            else:
                parts.append(draw(st.sampled_from([[parameter.opts[0], value], [f"{parameter.opts[0]}={value}"]])))
    if wrong == "extra":
        parts.insert(0, [draw(st.sampled_from(EXTRA))])
    return [*name.split(), *(argument for part in draw(st.permutations(parts)) for argument in part)]


def test_no_command_is_left_out() -> None:
    """FM-32: a new command is fuzzed, too: this file has the number of its examples, or that it runs until stopped."""
    assert set(COMMANDS) == ENDLESS | EXAMPLES.keys()
    names = {parameter.name for command in COMMANDS.values() for parameter in command.params}
    flags = {
        "as_json", "as_csv", "dry_run", "wait", "watch", "excluded", "from_beginning", "everything", "again", "links",
        "stay", "with_site", "complete", "accept", "is_check", "end", "from_stdin", "no_password", "no_chapters",
    }  # fmt: skip
    assert {name for name in names if name and name not in VALUES} == flags


@pytest.fixture
def settings(settings_for: Callable[..., Settings]) -> Settings:
    """Settings without topics: most commands need none."""
    return settings_for()


@pytest.fixture
def seeded(scenario: Scenario, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Scenario:
    """Batches in every state, and the settings in the environment."""
    past = {"id": 2, "starts_at": "2020-04-09T18:30:00Z", "ends_at": "2020-04-09T20:30:00Z"}
    scenario.build(students=[1, 2, 3], coaches=[4], ref="[/red]").load(
        EVENT | past | {"ref": "workshop/1"}, subscription(4, 1)
    )
    agent = scenario.agent()
    first = scenario.plan("students")
    for member_id, outcome in ((1, Sent("250 ok")), (2, Failed("550 no")), (3, Unknown("lost"))):
        agent.deliver(scenario.request(first, member_id), outcome)
    scenario.plan("coaches")
    batch_control.cancel(scenario.conn, scenario.plan("everyone"))
    ada = accounts.add(scenario.conn, email="ada@bidden.example", name="Ada", role=AccountRole.ADMIN)
    accounts.add(scenario.conn, email="olga@bidden.example", name="Olga", role=AccountRole.ORGANISER, chapters=[1])
    create_client(scenario.conn, "Ada", name="Zoë [/red]", account_id=ada, scopes=["read"])

    def cancel_all(_: float) -> None:
        for row in scenario.execute("SELECT id FROM batches WHERE state IN ('running', 'paused')"):
            batch_control.cancel(scenario.conn, row["id"])

    monkeypatch.setattr(progress, "time", SimpleNamespace(sleep=cancel_all))
    monkeypatch.chdir(tmp_path)
    for name, value in environment(settings).items():
        if name.startswith("BIDDEN_"):
            monkeypatch.setenv(name, value)
    return scenario


@pytest.fixture
def letters(settings: Settings) -> None:
    """Topics, and dead letters with arbitrary content."""
    topics = Topics(settings)
    topics.create()

    def has_leaders() -> bool:
        try:
            return len(topics.latest(topics.partitions())) == settings.partitions
        except KafkaException:
            return False

    eventually(has_leaders, "every partition has a leader")
    producer = Producer(client_config(settings, "test"), logger=None)
    for header, content in (("bidden-offset", b"9" * 5000), ("bidden-reason", b"\xff[/]\x1b[31m"), ("x", None)):
        producer.produce(settings.dead_letter_topic, b"\xff\x00", b"[/red]", headers=[(header, content)])
    assert producer.flush(30) == 0


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_any_words(name: str, seeded: Scenario, settings: Settings, request: pytest.FixtureRequest) -> None:
    """FM-32: any arguments give an exit code of the contract; a refused command writes nothing but who was refused."""
    if name in KAFKA:
        request.getfixturevalue("letters")
    topics = Topics(settings)
    partitions = topics.partitions() if name in KAFKA else []

    def offsets() -> Any:
        return (topics.latest(partitions), topics.committed(partitions)) if partitions else None

    @fuzz(EXAMPLES[name])
    @given(arguments=command_lines(name))
    @example(arguments=[*name.split(), "--json"])
    @example(arguments=name.split())
    @example(arguments=[*name.split(), "--json", "\udcff\x1b[31m[/red]"])
    def check(arguments: list[str]) -> None:
        before, offsets_before = fingerprint(seeded.conn, "audit_log"), offsets()
        result = run(*arguments)
        result.check()
        if result.code > 1:
            assert fingerprint(seeded.conn, "audit_log") == before, arguments
            assert offsets() == offsets_before, arguments

    check()


@pytest.mark.parametrize("name", sorted(ENDLESS))
def test_what_must_not_start(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """FM-32: a command that runs until it is stopped refuses unknown arguments before it starts anything."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cli.commands.local._require_embedded", lambda: pytest.fail("it would start"))
    invalid = [[word] for word in ("--nonsense", "one-too-many", "--json=yes", "-x", "\udcff", "\x1b[31m")]
    for parameter in COMMANDS[name].params:
        if parameter.name in VALUES:
            values = ["", "\0", "\udcff", "[/]", "9" * 5000, "--json", *VALUES[parameter.name][1]]
            invalid += [[parameter.opts[0], value] for value in values]
    for one in invalid:
        result = run(name, *one)
        result.check()
        assert result.code == 2, result

    @fuzz(30)
    @given(arguments=command_lines(name), one=st.sampled_from(invalid))
    def check(arguments: list[str], one: list[str]) -> None:
        help_options = {"-h", "--help", "--version", "--"}
        result = run(*[argument for argument in arguments if argument not in help_options], *one)
        result.check()
        assert result.code == 2, result

    check()
    assert list(tmp_path.iterdir()) == []


def test_the_group_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """FM-32: arguments instead of a command."""
    monkeypatch.chdir(tmp_path)

    @fuzz(60)
    @given(arguments=st.lists(st.one_of(AWFUL, st.sampled_from(["dlq", "--json"])), max_size=3))
    def check(arguments: list[str]) -> None:
        result = run(*arguments)
        result.check()
        assert result.code == 2 or {"-h", "--help", "--version"} & set(arguments), result

    check()


@pytest.mark.usefixtures("letters")
def test_texts_that_are_stored(seeded: Scenario) -> None:
    """FM-31, FM-32: names and reasons are checked before they are stored; a key must not be empty or too long."""
    for option, value in (
        ("--by", "\udcff"),
        ("--by", "\0"),
        ("--by", "\x1b[2J"),
        ("--key", ""),
        ("--key", "x" * 9999),
    ):
        before = fingerprint(seeded.conn, "audit_log")
        result = run("invite", "1", "--audience", "everyone", option, value, "--json")
        assert (result.code, result.error["error"], result.error["field"]) == (2, "refused", option[2:]), result
        assert fingerprint(seeded.conn, "audit_log") == before
    result = run("resolve", "1", "--unknown", "sent", "--by", "\udcff", "--json")
    assert (result.code, result.error["field"]) == (2, "by")


@pytest.mark.usefixtures("seeded", "letters")
def test_letters_of_anybody() -> None:
    """FM-20: the content of a dead letter is data: no markup, no invalid number, no terminal control sequence."""
    for arguments in (["dlq", "list"], ["dlq", "show", "0:0"], ["dlq", "show", "0:1"]):
        result, as_json = run(*arguments), run(*arguments, "--json")
        assert (result.code, as_json.code) == (0, 0), (result, as_json)
        assert "\x1b" not in result.out
        assert "[/red]" in result.out
    assert run("dlq", "show", "0:0", "--json").out.count('"source_offset":null') == 1


@pytest.mark.usefixtures("seeded", "letters")
def test_a_server_that_does_not_answer_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that stops answering in the middle of a command is unreachable: exit 3, and no traceback."""

    def silent(*_: object) -> Callable[[], None]:
        raise TimeoutError

    monkeypatch.setattr(Topics, "latest", silent)
    result = run("replay", "--to-offset", "0:0", "--json")
    result.check()
    assert result.code == 3
