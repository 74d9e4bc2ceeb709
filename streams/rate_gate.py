"""Between the window and the sending rate: which deliveries may be claimed now, which wait, which are put back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from db.send_limits import PutBack
from schemas.delivery import Delivery
from schemas.outcomes import Outcome, Retry
from schemas.send_results import Lapsed, SendResult, Throttled
from streams.send_rate import SendRate


@dataclass(slots=True)
class Admission:
    """`granted` may be claimed and sent at once, `waiting` may be asked for again, the rest is due again later."""

    granted: list[Delivery] = field(default_factory=list)
    waiting: list[Delivery] = field(default_factory=list)
    put_back: list[Delivery] = field(default_factory=list)


class RateGate:
    """One per window, used from its event loop. Without a rate it lets everything pass."""

    def __init__(self, rate: SendRate | None, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._clock = clock
        self._opens_at = 0.0
        self._begun: dict[Delivery, float] = {}

    def seconds_to_open(self) -> float:
        """In how many seconds it is worth asking for deliveries that wait; 0 for now."""
        return max(self._opens_at - self._clock(), 0.0) if self._opens_at else 0.0

    async def admit(self, requested: Sequence[Delivery]) -> Admission:
        """Asked before each claim. Also passes on what was observed, so call it with nothing, too."""
        if self._rate is None:
            return Admission(list(requested))
        grants = await self._rate.reserve([delivery.domain for delivery in requested])
        admission = Admission()
        items: dict[tuple[int, int], PutBack] = {}
        for delivery, verdict in zip(requested, grants.verdicts, strict=True):
            if verdict is None:
                admission.waiting.append(delivery)
            elif verdict == 0:
                admission.granted.append(delivery)
            else:
                admission.put_back.append(delivery)
                item = (delivery.batch_id, delivery.key.member_id)
                items.setdefault(item, PutBack(*item, verdict))
        self._opens_at = self._clock() + grants.wait if admission.waiting else 0.0
        if items:
            await self._rate.put_back(list(items.values()))
        return admission

    def not_claimed(self, granted: Sequence[Delivery]) -> None:
        """These were granted and then not claimed: settled meanwhile, or of a paused batch."""
        if self._rate is not None and granted:
            self._rate.unused([delivery.domain for delivery in granted])

    def begin(self, delivery: Delivery) -> None:
        """The mail is given to the sender."""
        if self._rate is not None:
            self._begun[delivery] = self._clock()

    def permits(self, delivery: Delivery) -> bool:
        """Whether a mail that was begun may still be tried. Asked before MAIL FROM; later it is the server's to say."""
        return self._rate is None or self._rate.permits(delivery.domain, self._begun[delivery])

    def end(self, delivery: Delivery, result: SendResult, outcome: Outcome) -> Outcome:
        """The result of a mail that was begun. What was throttled, or not tried for that, is due after the pause."""
        begun = self._begun.pop(delivery, None)
        if self._rate is None:
            return outcome
        if begun is None:
            # No mail could be composed, or its claim not be written.
            self.not_claimed([delivery])
            return outcome
        self._rate.observe(result, delivery.domain, begun)
        set_aside = isinstance(result, Throttled) or (
            isinstance(result, Lapsed) and not self._rate.permits(delivery.domain, begun)
        )
        if set_aside and isinstance(outcome, Retry):
            return replace(outcome, delay=self._rate.delay(delivery.domain))
        return outcome
