"""The rates that are set: their text, and that nothing above them is ever granted."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.send_limits import Learned, ScopeState
from schemas.send_rates import DAY, SERVER, Rate, SendRates, domain_of, parse, parse_domains, parse_rates, parse_warmup
from streams.rate_limits import Grants, bucket, given_back, grant, rate_in_force, rates_of, seconds_to_send
from tests.fuzzing import fuzz


def test_rates() -> None:
    """Each unit has a short and a long name; several rates hold at once, the shortest time first."""
    assert parse_rates("14/s") == (Rate(14, 1),)
    assert parse_rates("50000/day, 14/s") == (Rate(14, 1), Rate(50_000, DAY))
    assert parse_rates("600/min,9/h") == parse_rates("9/hour,600 / minute") == (Rate(600, 60), Rate(9, 3600))
    assert [str(rate) for rate in parse_rates("1/S,2/min,3/h,4/d")] == ["1/s", "2/min", "3/h", "4/day"]


def test_rates_of_domains() -> None:
    """Domains are compared in lower case and ASCII; `*` is each domain that is not named."""
    rates = parse(None, "Example.com=2/s;*=10/s,500/h;bücher.example=1/min", None)
    assert rates.of_domain("example.com") == (Rate(2, 1),)
    assert rates.of_domain("other.example") == (Rate(10, 1), Rate(500, 3600))
    assert rates.of_domain(domain_of("ada@BÜCHER.example.")) == (Rate(1, 60),)
    assert parse(None, "example.com=2/s", None).of_domain("other.example") == ()


def test_warmup() -> None:
    """One rate for each day."""
    assert parse_warmup("200/day,500/day") == (200, 500)
    assert not parse(None, None, None)
    assert parse(None, None, "200/day")


@pytest.mark.parametrize(
    "text",
    ["", " ", "14", "s", "/s", "14/", "14/fortnight", "-1/s", "0/s", "1.5/s", "14/s,", "14/s,15/s", "9999999999/s"],
)
def test_no_rate(text: str) -> None:
    """FM-32: what is no rate is refused, and the refusal shows one."""
    with pytest.raises(ValueError, match=r"14/s"):
        parse_rates(text)


@pytest.mark.parametrize(
    "text", ["2/s", "=2/s", "a b=2/s", "a@b.example=2/s", "a=2/s;", "a=2/s;A=3/s", "a=fast", "a=*"]
)
def test_no_rate_of_a_domain(text: str) -> None:
    """FM-32: the same for domains."""
    with pytest.raises(ValueError, match=r"/s|twice"):
        parse_domains(text)


class Granted:
    """A caller of `grant` that keeps the states and the usage, as the database does."""

    def __init__(self, rates: SendRates) -> None:
        self.rates = rates
        self.states: dict[str, ScopeState] = {}
        self.usage: dict[str, dict[int, dict[float, int]]] = {}

    def ask(self, wanted: list[str], now: float) -> Grants:
        """Grants, and what they use is counted."""
        for scope in {SERVER, *wanted}:
            if scope == SERVER or self.rates.of_domain(scope):
                self.states.setdefault(scope, ScopeState(scope))
        usage = {
            scope: {seconds: list(counts.items()) for seconds, counts in windows.items()}
            for scope, windows in self.usage.items()
        }
        asked = {scope: state for scope, state in self.states.items() if scope in {SERVER, *wanted}}
        grants, states = grant(wanted, asked, self.rates, usage, now)
        self.states.update(states)
        for scope, count in grants.counts.items():
            for rate in rates_of(scope, self.rates, self.states[scope], now):
                windows = self.usage.setdefault(scope, {}).setdefault(rate.seconds, {})
                at = bucket(now, rate.seconds)
                windows[at] = windows.get(at, 0) + count
        return grants


RATES: Any = st.lists(
    st.builds(Rate, st.integers(1, 40), st.sampled_from([1, 60, 3600])), max_size=3, unique_by=lambda r: r.seconds
).map(tuple)
STEPS: Any = st.lists(
    st.tuples(
        st.one_of(st.floats(0, 0.2), st.floats(0, 3), st.floats(0, 90)),
        st.lists(st.sampled_from(["a.example", "b.example"]), max_size=60),
    ),
    max_size=60,
)


@fuzz(100)
@given(server=RATES, domain=RATES, steps=STEPS)
def test_never_above(server: tuple[Rate, ...], domain: tuple[Rate, ...], steps: list[tuple[float, list[str]]]) -> None:
    """FM-37: in any second, minute or hour there are no more grants than the rate allows, for server and domain."""
    asking = Granted(SendRates(server, {"a.example": domain} if domain else {}))
    granted: list[tuple[float, str]] = []
    now = 1_700_000_000.0
    for pause, wanted in steps:
        now += pause
        grants = asking.ask(wanted, now)
        assert len(grants.verdicts) == len(wanted)
        granted += [(now, name) for name, verdict in zip(wanted, grants.verdicts, strict=True) if verdict == 0]
        for name, verdict in zip(wanted, grants.verdicts, strict=True):
            assert verdict is None or verdict == 0 or (name == "a.example" and domain)
    for rates, times in (
        (server, [at for at, _ in granted]),
        (domain, [at for at, name in granted if name == "a.example"]),
    ):
        for rate in rates:
            assert most_in(times, rate.seconds) <= rate.count


def most_in(times: list[float], seconds: float) -> int:
    """The most of these times in any window."""
    window: deque[float] = deque()
    most = 0
    for at in times:
        window.append(at)
        while window[0] <= at - seconds:
            window.popleft()
        most = max(most, len(window))
    return most


@pytest.mark.parametrize("text", ["2/s", "14/s", "500/s", "600/min", "14/s,600/min"])
def test_nearly_all_of_the_rate_is_used(text: str) -> None:
    """A caller that asks again at the time that it was given gets at least 90 % of the rate over two minutes."""
    rates = parse(text, None, None)
    asking = Granted(rates)
    start = now = 1_700_000_000.0
    granted = 0
    while now < start + 120:
        grants = asking.ask(["a.example"] * 100, now)
        granted += grants.counts.get(SERVER, 0)
        assert grants.wait > 0 or grants.counts.get(SERVER) == 100
        now += max(grants.wait, 0.02)
    assert granted >= 0.9 * 120 * min(rate.per_second for rate in rates.server)


def test_a_limited_domain_holds_up_nobody_else() -> None:
    """FM-37: mails to a domain that is used up are put back, each for its own slot; all others go at once."""
    asking = Granted(parse(None, "a.example=2/s", None))
    wanted = ["a.example", "b.example"] * 50
    verdicts = asking.ask(wanted, 1000.0).verdicts
    assert [verdict for name, verdict in zip(wanted, verdicts, strict=True) if name == "b.example"] == [0.0] * 50
    others = [verdict for name, verdict in zip(wanted, verdicts, strict=True) if name == "a.example"]
    assert others[:2] == [0.0, 0.0]
    delays = [verdict for verdict in others[2:] if verdict is not None]
    assert len(delays) >= 45
    assert delays == sorted(delays)
    assert 20 < delays[-1] < 30


def test_what_is_given_back_may_be_granted_again() -> None:
    """A cancelled batch's mails take nobody's slots; what was sent still counts."""
    asking = Granted(parse("14/s", None, None))
    assert asking.ask(["a"] * 9, 1000.0).counts == {SERVER: 3}
    assert asking.ask(["a"] * 9, 1000.01).counts == {}
    state = asking.states[SERVER]
    asking.states[SERVER] = given_back(state, parse_rates("14/s"), 2, 1000.0)
    assert sum(n for _, n in asking.states[SERVER].recent) == 1
    assert asking.ask(["a"] * 9, 1000.01).counts == {SERVER: 2}
    assert given_back(ScopeState(SERVER), (), 5, 1000.0) == ScopeState(SERVER)


def test_a_warm_up_goes_by_days() -> None:
    """Day n begins n - 1 times 24 hours after the first mail under the schedule. A longer schedule goes on."""
    asking = Granted(parse(None, None, "3/day,5/day"))
    start = 1_700_000_000.0
    assert asking.ask(["a"] * 9, start).counts == {SERVER: 3}
    assert asking.ask(["a"] * 9, start + DAY - 1).counts == {}
    assert asking.ask(["a"] * 9, start + DAY + 3600).counts == {SERVER: 5}
    asking.rates = parse(None, None, "3/day,5/day,7/day")
    assert asking.ask(["a"] * 9, start + 2 * DAY + 7200).counts == {SERVER: 7}
    assert asking.ask(["a"] * 99, start + 3 * DAY).counts == {SERVER: 99}
    asking.rates = parse(None, None, "1/day")
    assert asking.ask(["a"] * 9, start + 9 * DAY).counts == {SERVER: 1}


def test_the_time_that_mails_take() -> None:
    """What remains of a window costs nothing, the pace does, and a pause is added."""
    state = ScopeState(SERVER)
    assert seconds_to_send(1400, state, parse_rates("14/s"), {}, 0.0) == 100
    assert seconds_to_send(50, state, parse_rates("100/h"), {}, 0.0) == 0
    assert seconds_to_send(150, state, parse_rates("100/h"), {}, 0.0) == pytest.approx(1800)
    assert seconds_to_send(50, state, parse_rates("100/h"), {3600: [(0.0, 100)]}, 60.0) == pytest.approx(1800)
    learned = ScopeState(SERVER, learned=Learned(ceiling=10.0, paused_until=30.0, pause_seconds=4))
    assert seconds_to_send(90, learned, (), {}, 10.0) == pytest.approx(30)
    assert rate_in_force(state, ()) is None
    assert rate_in_force(state, parse_rates("14/s,600/min")) == 10
    assert rate_in_force(learned, parse_rates("14/s")) == pytest.approx(9)
