"""The lane: one (endpoint, credential, model) and what it can take now.

In: requests as the queue sends them, and what became of them. Out: how long the next one has to wait. Gates, in this
order: the pause (the lane waits as a whole when its server says that nothing remains, when over half of its last 32
replies were 429, or when ten requests in a row got nothing: to the server's time or one of our own, then one probe,
then a ramp of two seconds); the places of `concurrency`; the `quotas` for requests and tokens; for second tries, the
retry budget. It stops for good when key, quota or credit are gone. Who waits, and for which lane, is the `queue`'s
business.
Rejected: a pause with every 429 (a server that refuses some requests and serves others would stand idle), every request
retrying on its own (at 600 requests a minute that made 300 to 900 useless requests of 750), and a health check of its
own for a server that is down (one that lists its models need not answer; a row that is asked again loses nothing).
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Literal

from synthgen.asking.lanes.concurrency import Aimd, Concurrency, Gradient
from synthgen.asking.lanes.quotas import Place, Quotas
from synthgen.asking.lanes.retries import RetryBudget
from synthgen.asking.outcome import SeenLimit
from synthgen.dataclasses import dataclass
from synthgen.recipe.model import Limits
from synthgen.types import JSONValue, Usage

__all__ = ["Lane", "LaneCounts", "LaneStopped"]

# Where the recipe names no concurrency: where to start, and what one process of ours can serve.
_START, _MOST = 16, 1024
_RECENT = 32
# Of the last replies: fewer 503 or timeouts are the server's bad luck, more are our doing.
_OVERLOADED_SHARE = 0.2
_RAMP_S = 2.0
# Requests in a row that got a broken reply or no connection, after which nobody is there (client.md, section 6).
_BROKEN = 10
# A pause whose length the server does not name: doubling from one second.
_LONGEST_OWN_PAUSE_S = 15.0


class LaneStopped(Exception):
    """Nothing more is sent here in this session; rows that have nowhere else to go stay pending."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(slots=True)
class LaneCounts:
    """What the live view shows of a lane."""

    in_flight: int = 0
    sent: int = 0
    answered: int = 0
    rate_limited: int = 0
    errors: int = 0
    output_tokens: int = 0

    @property
    def told(self) -> int:
        """Requests of which the server said something for good: answers and refusals."""
        return self.sent - self.in_flight - self.rate_limited - self.errors


class Lane:
    """See the module. `clock` is monotonic seconds; `stopped` is set where the endpoint itself is the reason.

    `counting`: what uses up an input limit, all input or only what was not cached. `crowding`: whether too many in
    flight show as refusals or, where the server queues them, as time. `limits.concurrency` is where the lane starts
    and never exceeds; without one it starts at 16 and finds out. `recovered` is called when a paused lane answers again.
    """

    def __init__(
        self,
        name: str,
        limits: Limits,
        *,
        counting: Literal["all", "uncached"] = "all",
        crowding: Literal["refused", "queued"] = "refused",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.clock = clock
        self.counts = LaneCounts()
        self.stopped: LaneStopped | None = None
        self.last_success = -math.inf
        self.last_trouble = ""
        self.latency_s = 0.0
        self.recovered: Callable[[], None] = lambda: None
        self._concurrency = Concurrency(
            Gradient() if crowding == "queued" else Aimd(),
            start=limits.concurrency or _START,
            ceiling=limits.concurrency or _MOST,
        )
        self._quotas = Quotas(limits, clock(), cached_free=counting == "uncached")
        self._retries = RetryBudget()
        self._flying: dict[Place, None] = {}  # oldest first
        self._troubled_at: float | None = None
        self._end: LaneStopped | None = None
        self._recent: deque[Literal["", "limited", "timeout"]] = deque(maxlen=_RECENT)
        self._broken = 0  # since the last reply that was one
        self._paused_until = -math.inf
        self._paused_at = -math.inf
        self._pauses = 0  # since the last sign of life
        self._probing = False
        self._probe: Place | None = None
        self._ramp_from = -math.inf

    # What it can take

    @property
    def concurrency(self) -> int:
        """The most that can ever be in flight."""
        return self._concurrency.ceiling

    @property
    def allowed(self) -> int:
        """How many may be in flight now: `concurrency`, or what the server has shown to bear; fewer in a ramp."""
        limit = self._concurrency.limit
        ramped_s = self.clock() - self._ramp_from
        return limit if ramped_s >= _RAMP_S else min(limit, 1 + int(limit * ramped_s / _RAMP_S))

    @property
    def probing(self) -> bool:
        """Whether it was set aside, and one request has to show that it answers again."""
        return self._probing

    @property
    def paused_s(self) -> float:
        """Seconds of the pause that are left; 0 for none."""
        return max(0.0, self._paused_until - self.clock())

    def opens_in_s(self) -> float:
        """Seconds until it may send anything at all; infinite where only a reply can change that."""
        if self._end is not None or self._probe is not None:
            return math.inf
        now, in_flight = self.clock(), self.counts.in_flight
        if now < self._paused_until:
            return self._paused_until - now
        limit = self._concurrency.limit
        if in_flight >= limit:
            return math.inf
        if now - self._ramp_from < _RAMP_S and in_flight >= self.allowed:
            return max(self._ramp_from + _RAMP_S * in_flight / limit - now, 1e-3)
        return 0.0

    def fits_in_s(self, place: Place) -> float:
        """Seconds until its limits have room for `place`."""
        return self._quotas.wait_s(place, self.clock())

    def retries_in_s(self) -> float:
        """Seconds until its retry budget has room."""
        return self._retries.wait_s(self.clock())

    def take(self, place: Place, *, retry: bool = False) -> None:
        """Send `place` now; `vacate` must follow."""
        now = self.clock()
        self._quotas.take(place, now)
        self._retries.sent(now, retry=retry)
        place.retry = retry
        self.counts.in_flight += 1
        self.counts.sent += 1
        self._flying[place] = None
        if self._probing:
            self._probe, place.probe = place, True

    def give_back(self, place: Place) -> None:
        """`place` was taken, but never sent."""
        self._quotas.give_back(place)
        self.counts.sent -= 1
        self.vacate(place)

    def vacate(self, place: Place, usage: Usage | None = None) -> None:
        """Free the place; of its tokens, those not in `usage` too (None: unknown, all count as used)."""
        self.counts.in_flight -= 1
        del self._flying[place]
        if usage is not None and self._quotas.settle(place, usage):
            self._quotas.expect_usual(self._flying)
        if place is self._probe:
            self._probe = None

    # What became of it

    def saw(self, place: Place, seen: Iterable[SeenLimit], *, refused: bool = False) -> None:
        """What the reply to `place` says of the server's limits; before its outcome. `refused`: it is a 429."""
        self._quotas.see(place, seen, self.clock(), refused=refused)

    def succeeded(self, place: Place, usage: Usage | None = None) -> None:
        """An answer came: the lane is alive."""
        self.counts.answered += 1
        now = self.last_success = self.clock()
        took_s = now - place.sent_at
        self.latency_s += (0.1 if self.latency_s else 1.0) * (took_s - self.latency_s)
        tokens = usage.output_tokens if usage else 1
        self.refused(place)
        self._concurrency.answered(now, place.sent_at, place.patience_s, self.counts.in_flight, tokens)

    def refused(self, place: Place) -> None:
        """A reply that says no to this request alone: somebody is there."""
        self._troubled_at = None
        self._broken = 0
        self._recent.append("")
        if self._pauses and place.sent_at > self._paused_at:
            self._recover()

    def failed(self, place: Place, what: str = "", *, timed_out: bool = False) -> None:
        """A broken reply, or none (none in time: `timed_out`); `what` is for people."""
        self.counts.errors += 1
        self.last_trouble = what
        # One that fails again may be the trouble itself: at the end of a run only such are left.
        self._broken += not place.retry
        self._recent.append("timeout" if timed_out else "")
        self._note_trouble()
        if timed_out and self._often("timeout"):
            self._concurrency.cut(self.clock(), place.sent_at, late=True)
        else:
            self._concurrency.hold()
        if place.probe if self._probing else self._broken >= _BROKEN:
            self._pause(None)

    def was_limited(
        self,
        place: Place,
        wait_s: float | None,
        *,
        exhausted: bool = False,
        overloaded: bool = False,
        ramp: bool = False,
    ) -> None:
        """A 429, or a 503 (`overloaded`): the whole lane waits when nothing remains, or when most replies are so.

        `wait_s` is the time the server named, if it did; `ramp`: it says that what is sent grows too fast.
        """
        now = self.clock()
        self.counts.rate_limited += 1
        self._broken = 0
        self.last_trouble = "503, overloaded" if overloaded else "429, rate limit"
        self._recent.append("limited")
        self._note_trouble()
        # A server that is overloaded refuses whoever comes; only where it does so often, it is us.
        if overloaded and not self._often("limited"):
            self._concurrency.hold()
        else:
            self._concurrency.cut(now, place.sent_at, ramp=ramp)
        crowded = len(self._recent) == _RECENT and self._recent.count("limited") > _RECENT // 2
        if exhausted or crowded or (place.probe and self._probing):
            self._pause(wait_s)

    def saw_queue(self, waiting: float, running: float) -> None:
        """How many requests of all its users wait at the server, and how many it works on."""
        self._concurrency.queued(self.clock(), self.counts.in_flight, waiting, running)

    @property
    def silent_s(self) -> float:
        """How long every reply has been trouble; 0 while the last one was none, and before the first."""
        return 0.0 if self._troubled_at is None else self.clock() - self._troubled_at

    # The end

    def close(self, why: LaneStopped, *, blamed: bool) -> None:
        """Send nothing more; what is in flight goes on. `blamed`: the endpoint itself is the reason."""
        if blamed and self.stopped is None:
            self.stopped = why
        self._end = self._end or why

    @property
    def ended(self) -> bool:
        """Whether nothing more is sent, for whatever reason."""
        return self._end is not None

    def require_open(self) -> None:
        """Check that the lane has not ended.

        Raises:
            LaneStopped: it has.
        """
        if self._end is not None:
            raise self._end.with_traceback(None)  # raised for many rows: it must not collect their frames

    def state(self) -> dict[str, JSONValue]:
        """What a person wants to know of a lane that does not move; seconds are rounded."""
        oldest = next(iter(self._flying), None)
        return {
            "in_flight": self.counts.in_flight,
            "allowed": self.allowed,
            "oldest_in_flight_s": None if oldest is None else round(self.clock() - oldest.sent_at, 1),
            "paused_s": round(self.paused_s, 1),
            "probing": self._probing,
            "silent_s": round(self.silent_s, 1),
            "last_trouble": self.last_trouble,
            "retries_in_s": round(self.retries_in_s(), 1),
            "limits": self._quotas.levels(self.clock()),
            "ended": self._end.reason if self._end else None,
        }

    def _often(self, what: Literal["limited", "timeout"]) -> bool:
        return self._recent.count(what) > _OVERLOADED_SHARE * _RECENT

    def _note_trouble(self) -> None:
        if self._troubled_at is None:
            self._troubled_at = self.clock()

    def _pause(self, wait_s: float | None) -> None:
        """Send nothing for the server's time, or for one of our own; then one probe."""
        now = self.clock()
        if not wait_s:
            wait_s = min(2.0**self._pauses, _LONGEST_OWN_PAUSE_S)
        self._pauses += 1
        self._paused_until = max(self._paused_until, now + wait_s)
        self._paused_at = now
        self._probing = True
        self._recent.clear()

    def _recover(self) -> None:
        """An answer to a request sent after the pause: open again, slowly."""
        self._pauses = 0
        if not self._probing:
            return
        self._probing, self._probe = False, None
        self._ramp_from = self.clock()
        self.recovered()
