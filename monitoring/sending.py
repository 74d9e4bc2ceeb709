"""How fast mails are sent, and why not faster: for the pages, the estimate of the time left, and `doctor`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from db import send_limits
from db.connect import Connection
from db.send_limits import Shown
from mail.dates import moment
from schemas.send_limits import RateSettings, ScopeState
from schemas.send_rates import SERVER, SendRates, as_text, parse
from streams import adaptive_rate, rate_limits

#: A throttling reply is mentioned for so long after mails pass again, in seconds.
_MENTIONED_SECONDS: Final = 900.0
#: A wait for the rate that is set is mentioned from here on.
_WORTH_SAYING: Final = 5.0
_KEPT_SECONDS: Final = 1.0
#: After so long a pause the mail server takes nothing: a person should look.
_LONG_PAUSE: Final = 30.0


@dataclass(frozen=True, slots=True)
class Sending:
    """The rates in force, `settings` where an admin has set them, and what was learned. Names no address."""

    rates: SendRates
    settings: RateSettings | None = None
    server: Shown | None = None
    domains: tuple[Shown, ...] = ()

    @property
    def limit(self) -> str:
        """The rates that are set for the server, as text; empty if none."""
        if self.server is None:
            return as_text(self.rates.server)
        return as_text(rate_limits.rates_of(SERVER, self.rates, self.server.state, self.server.now))

    @property
    def needs_a_person(self) -> bool:
        """The mail server has taken no mails for minutes."""
        return self.server is not None and self.server.state.learned.pause_seconds >= _LONG_PAUSE

    @property
    def seconds_to_next(self) -> float:
        """In how many seconds the next mail may go out; 0 for now."""
        if self.server is None:
            return 0.0
        server = self.server
        rates = rate_limits.rates_of(SERVER, self.rates, server.state, server.now)
        room = rate_limits.room(server.state, rates, server.usage, server.now)
        return room.wait if room.mails < 1 else 0.0

    @property
    def permitted(self) -> float | None:
        """Mails a second that may go out now; None without a limit, 0 while the rate is used up or sending pauses."""
        if self.seconds_to_next > _WORTH_SAYING:
            return 0.0
        if self.server is None:
            return rate_limits.pace(ScopeState(SERVER), self.rates.server)
        server = self.server
        return rate_limits.pace(server.state, rate_limits.rates_of(SERVER, self.rates, server.state, server.now))

    def seconds_to_send(self, mails: int) -> float:
        """How long so many mails take at least, by the limits of the mail server."""
        server = self.server
        if server is None:
            server = Shown(0.0, ScopeState(SERVER), {})
        rates = rate_limits.rates_of(SERVER, self.rates, server.state, server.now)
        return rate_limits.seconds_to_send(mails, server.state, rates, server.usage, server.now)

    def notices(self, time_zone: str = "UTC") -> list[str]:
        """Sentences for people, without a full stop; none where mails go out without a limit."""
        found = []
        if self.limit:
            found.append(f"At most {self.limit.replace(',', ' and ')}")
        if self.server is not None:
            learned = self.server.state.learned
            recent = self.server.now - learned.throttled_at < _MENTIONED_SECONDS
            if adaptive_rate.is_learning(learned) and (recent or learned.pause_seconds > 0):
                found.append(_throttled("The mail server", self.server, time_zone))
            elif self.seconds_to_next > _WORTH_SAYING:
                found.append(f"The rate is used up; the next mail in {duration(self.seconds_to_next)}")
        if self.domains:
            one = len(self.domains) == 1
            found.append(f"{len(self.domains)} recipient domain{' asks' if one else 's ask'} for fewer mails")
        return found

    def notices_of_domains(self, time_zone: str = "UTC") -> list[str]:
        """A sentence for each domain that asked for fewer mails. For admins: a domain may be one person's own."""
        return [_throttled(shown.state.scope, shown, time_zone) for shown in self.domains]


def read(conn: Connection, environment: SendRates) -> Sending:
    """What holds now. `environment`: the rates of this process's settings, which hold unless an admin set others."""
    settings = send_limits.read_settings(conn)
    shown = send_limits.to_show(conn)
    rates = environment
    if settings is not None:
        try:
            rates = parse(settings.rate, settings.rate_domain, settings.warmup)
        except ValueError:
            settings = None  # as workers do
    server = next((each for each in shown if each.state.scope == SERVER), None)
    return Sending(rates, settings, server, tuple(each for each in shown if each.state.scope != SERVER))


def permitted(environment: SendRates, monotonic: Callable[[], float]) -> Callable[[Connection], float | None]:
    """For dispatchers: the mails a second that workers may send now, read at most once a second."""
    kept: list[tuple[float, float | None]] = []

    def read_permitted(conn: Connection) -> float | None:
        if not kept or monotonic() - kept[0][0] > _KEPT_SECONDS:
            kept[:] = [(monotonic(), read(conn, environment).permitted)]
        return kept[0][1]

    return read_permitted


def describe(sending: Sending) -> str:
    """One line for `doctor`."""
    source = f"set by {sending.settings.set_by} on the site" if sending.settings is not None else "of the settings"
    limit = sending.limit or ("domains only" if sending.rates.domains else "no limit")
    return "; ".join([f"{limit}, {source}", *sending.notices()[1 if sending.limit else 0 :]])


def duration(seconds: float) -> str:
    """`4 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _throttled(who: str, shown: Shown, time_zone: str) -> str:
    learned = shown.state.learned
    at = moment(datetime.fromtimestamp(learned.throttled_at, UTC), time_zone)
    text = f"{who} asked for fewer mails at {at}: {learned.reply}"
    rate = adaptive_rate.rate_of(learned)
    if rate is not None:
        text += f"; now {_number(rate)} a second"
    if learned.pause_seconds > 0:
        wait = max(adaptive_rate.resumes_at(learned) - shown.now, 0.0)
        text += f", next try in {duration(wait)}" if wait >= 1 else ", trying now"
    return text


def _number(rate: float) -> str:
    return f"{rate:.0f}" if rate >= 10 else f"{rate:.2g}"
