"""The lane: one (endpoint, credential, model) with one gate in front of it.

In: requests that want to be sent, and what became of them. Out: permission to send, in order of arrival. Four gates,
in this order: the pause (the lane waits as a whole when its server says that nothing remains or when over half of its
last 32 replies were 429: to the server's time, then one probe, then a ramp of two seconds); the places of
`concurrency`; the `quotas` for requests and tokens. It stops for good when key, quota or credit are gone. Waiters
stand in one queue woken by one timer: no polling. When a lane ends, whoever waits for it is sent away at once.
Rejected: a pause with every 429 (a server that refuses some requests and serves others would stand idle), and every
request retrying on its own (at 600 requests a minute that made 300 to 900 useless requests of 750).
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from synthgen.asking.lanes.concurrency import Aimd, Concurrency, Gradient
from synthgen.asking.lanes.quotas import Place, Quotas
from synthgen.asking.outcome import SeenLimit
from synthgen.recipe.model import Limits
from synthgen.types import Usage

__all__ = ["Lane", "LaneCounts", "LaneStopped"]

# Where the recipe names no concurrency: where to start, and what one process of ours can serve.
_START, _MOST = 16, 1024
_RECENT = 32
_OVERLOADED_SHARE = 0.2
_RAMP_S = 2.0
# A pause whose length the server does not name: doubling from one second.
_LONGEST_OWN_PAUSE_S = 15.0
# Shorter waits are rounding: a timer set for them would fire again and again.
_NOW_S = 1e-6


class LaneStopped(Exception):
    """This lane sends nothing more in this session; its rows stay pending."""

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


class Lane:
    """See the module. `clock` is monotonic seconds; `stopped` is set where the endpoint itself is the reason.

    `counting`: what uses up an input limit, all input or only what was not cached. `crowding`: whether too many in
    flight show as refusals or, where the server queues them, as time. `limits.concurrency` is where the lane starts
    and never exceeds; without one it starts at 16 and finds out.
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
        self._concurrency = Concurrency(
            Gradient() if crowding == "queued" else Aimd(),
            start=limits.concurrency or _START,
            ceiling=limits.concurrency or _MOST,
        )
        self._quotas = Quotas(limits, clock(), cached_free=counting == "uncached")
        self._troubled_at: float | None = None
        self._end: LaneStopped | None = None
        self._waiting: deque[tuple[asyncio.Future[None], Place]] = deque()
        self._outside: dict[asyncio.Future[None], bool] = {}  # and whether they come back with the lane
        self._recent: deque[bool] = deque(maxlen=_RECENT)
        self._timer: asyncio.TimerHandle | None = None
        self._paused_until = -math.inf
        self._paused_at = -math.inf
        self._pauses = 0  # since the last sign of life
        self._probing = False
        self._probe: Place | None = None
        self._ramp_from = -math.inf

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

    async def enter(self, input_tokens: int, max_tokens: int = 0) -> Place:
        """Wait for permission to send a prompt of about `input_tokens`; `leave` must follow.

        Raises:
            LaneStopped: the lane has ended, also while waiting.
        """
        self.require_open()
        place = Place(input_tokens, max_tokens)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, place))
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._quotas.give_back(place)  # admitted in the same moment as cancelled
                self.counts.sent -= 1
                self._vacate(place)
            self._admit()
            raise
        return place

    def leave(self, place: Place, usage: Usage | None = None) -> None:
        """Give the place back; of its tokens, those not in `usage` too (None: unknown, all count as used)."""
        if usage is not None:
            self._quotas.settle(place, usage)
        self._vacate(place)
        self._admit()

    async def wait_outside(self, wait_s: float, *, with_lane: bool = False) -> None:
        """Wait for a retry without holding a place; `with_lane`: only until the lane is out of trouble.

        Raises:
            LaneStopped: the lane has ended, also while waiting.
        """
        self.require_open()
        moved: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._outside[moved] = with_lane
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await moved
        finally:
            del self._outside[moved]
        self.require_open()

    def saw(self, place: Place, seen: Iterable[SeenLimit], *, refused: bool = False) -> None:
        """What the reply to `place` says of the server's limits; before its outcome. `refused`: it is a 429."""
        self._quotas.see(place, seen, self.clock(), refused=refused)

    def succeeded(self, place: Place, usage: Usage | None = None) -> None:
        """An answer came: the lane is alive."""
        self.counts.answered += 1
        self.last_success = self.clock()
        tokens = usage.output_tokens if usage else 1
        self.refused(place)
        self._concurrency.answered(self.last_success, place.sent_at, self.counts.in_flight, tokens)

    def refused(self, place: Place) -> None:
        """A reply that says no to this request alone: somebody is there."""
        self._troubled_at = None
        self._recent.append(False)
        if place.sent_at > self._paused_at:
            self._recover()

    def failed(self, place: Place, what: str = "") -> None:
        """A broken reply, or none; `what` is for people."""
        self.counts.errors += 1
        self.last_trouble = what
        self._recent.append(False)
        self._note_trouble()
        self._concurrency.hold()
        if place.probe and self._probing:
            self._pause(None)

    def was_limited(
        self, place: Place, wait_s: float | None, *, exhausted: bool = False, overloaded: bool = False
    ) -> None:
        """A 429, or a 503 (`overloaded`): the whole lane waits when nothing remains, or when most replies are so.

        `wait_s` is the time the server named, if it did.
        """
        now = self.clock()
        self.counts.rate_limited += 1
        self._recent.append(True)
        self._note_trouble()
        # A server that is overloaded refuses whoever comes; only where it does so often, it is us.
        if overloaded and sum(self._recent) <= _OVERLOADED_SHARE * _RECENT:
            self._concurrency.hold()
        else:
            self._concurrency.cut(now, place.sent_at)
        crowded = len(self._recent) == _RECENT and sum(self._recent) > _RECENT // 2
        if exhausted or crowded or (place.probe and self._probing):
            self._pause(wait_s)

    @property
    def silent_s(self) -> float:
        """How long every reply has been trouble; 0 while the last one was none, and before the first."""
        return 0.0 if self._troubled_at is None else self.clock() - self._troubled_at

    def stop(self, reason: str, message: str) -> None:
        """End the lane because its endpoint answers nothing more."""
        if self.stopped is None:
            self.stopped = LaneStopped(reason, message)
            self.end(reason, message)

    def end(self, reason: str, message: str) -> None:
        """Send nothing more: whoever waits, and whoever comes, gets `LaneStopped`; what is in flight goes on."""
        if self._end is not None:
            return
        self._end = LaneStopped(reason, message)
        for turn, _ in self._waiting:
            if not turn.done():
                turn.set_exception(self._end)
        self._waiting.clear()
        self._call_in(lambda with_lane: True)
        if self._timer:
            self._timer.cancel()

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
        """An answer to a request sent after the pause: open again, slowly, and call in who waits for that."""
        self._pauses = 0
        if not self._probing:
            return
        self._probing, self._probe = False, None
        self._ramp_from = self.clock()
        self._call_in(lambda with_lane: with_lane)

    def _call_in(self, whom: Callable[[bool], bool]) -> None:
        for moved, with_lane in self._outside.items():
            if whom(with_lane) and not moved.done():
                moved.set_result(None)

    def _admit(self) -> None:
        while self._waiting:
            turn, place = self._waiting[0]
            if turn.done():
                self._waiting.popleft()
                continue
            now = self.clock()
            wait_s = self._wait_s(place, now)
            if wait_s > _NOW_S:
                self._wake_in(wait_s)
                return
            self._waiting.popleft()
            self._quotas.take(place, now)
            self.counts.in_flight += 1
            self.counts.sent += 1
            if self._probing:
                self._probe, place.probe = place, True
            turn.set_result(None)

    def _wait_s(self, place: Place, now: float) -> float:
        """Seconds until `place` may be taken; infinite where only a reply can change that."""
        if now < self._paused_until:
            return self._paused_until - now
        if self._probe is not None or self.counts.in_flight >= self._concurrency.limit:
            return math.inf
        if self.counts.in_flight >= self.allowed:
            opens_at = self._ramp_from + _RAMP_S * self.counts.in_flight / self._concurrency.limit
            return max(opens_at - now, 1e-3)
        return self._quotas.wait_s(place, now)

    def _vacate(self, place: Place) -> None:
        self.counts.in_flight -= 1
        if place is self._probe:
            self._probe = None

    def _wake_in(self, wait_s: float) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if wait_s < math.inf:
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._admit)
