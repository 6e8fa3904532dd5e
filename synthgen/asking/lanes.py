"""The lane: one (endpoint, credential, model) with one gate in front of it.

In: requests that want to be sent, and what became of them. Out: permission to send, in order of arrival. A lane
bounds concurrency, requests a minute and tokens a minute, waits as a whole when its server says that nothing remains
or when over half of its last 32 replies were 429, and stops for good when key, quota or credit are gone. Waiters
stand in one queue woken by one timer: no polling. When a lane ends, whoever waits for it is sent away at once.
Rejected: aiolimiter and pyrate-limiter (no reservation and refund, a full minute's burst at the start).
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

__all__ = ["Bucket", "Lane", "LaneStopped"]

_RECENT = 32
# Shorter waits are rounding: a timer set for them would fire again and again.
_NOW_S = 1e-6


class LaneStopped(Exception):
    """This lane sends nothing more in this session; its rows stay pending."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Bucket:
    """A token bucket that never lets more than `per_minute` pass in any 60 s.

    `burst` may pass at once, the rest comes in evenly. The level may go below zero: an amount larger than the burst
    waits for a full bucket and then owes the rest, so 60 s may hold as much more as the largest amount exceeds the
    burst.
    """

    def __init__(self, per_minute: float, burst: float, now: float) -> None:
        self.burst = min(burst, per_minute)
        self.rate = max(per_minute - self.burst + 1, 1) / 60
        self._level = self.burst
        self._at = now

    def wait_s(self, amount: float, now: float) -> float:
        """Seconds until `amount` may pass; 0 means now."""
        self._refill(now)
        return max(0.0, (min(amount, self.burst) - self._level) / self.rate)

    def take(self, amount: float) -> None:
        """Let `amount` pass; a negative amount is a refund."""
        self._level = min(self.burst, self._level - amount)

    def _refill(self, now: float) -> None:
        self._level = min(self.burst, self._level + (now - self._at) * self.rate)
        self._at = now


@dataclass(slots=True)
class LaneCounts:
    """What the live view shows of a lane."""

    in_flight: int = 0
    sent: int = 0
    answered: int = 0
    rate_limited: int = 0
    errors: int = 0
    output_tokens: int = 0


@dataclass(slots=True)
class Lane:
    """See the module. `clock` is monotonic seconds; `stopped` is set where the endpoint itself is the reason."""

    name: str
    concurrency: int
    rpm: int | None = None
    tpm: int | None = None
    clock: Callable[[], float] = time.monotonic
    counts: LaneCounts = field(default_factory=LaneCounts)
    stopped: LaneStopped | None = None
    last_success: float = field(init=False, default=-math.inf)
    last_trouble: str = field(init=False, default="")
    _troubled_at: float | None = field(init=False, default=None)
    _end: LaneStopped | None = field(init=False, default=None)
    _ended: asyncio.Event = field(init=False, default_factory=asyncio.Event)
    _requests: Bucket | None = field(init=False, default=None)
    _tokens: Bucket | None = field(init=False, default=None)
    _waiting: deque[tuple[asyncio.Future[None], int]] = field(init=False, default_factory=deque)
    _recent: deque[bool] = field(init=False, default_factory=lambda: deque(maxlen=_RECENT))
    _paused_until: float = field(init=False, default=0.0)
    _timer: asyncio.TimerHandle | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        now = self.clock()
        if self.rpm:
            self._requests = Bucket(self.rpm, max(1.0, self.rpm / 60), now)
        if self.tpm:
            self._tokens = Bucket(self.tpm, max(1.0, self.tpm / 10), now)

    async def enter(self, tokens: int) -> None:
        """Wait for permission to send a request that may use `tokens`; `leave` must follow.

        Raises:
            LaneStopped: the lane has ended, also while waiting.
        """
        self.require_open()
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, tokens))
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._take(-1, -tokens)  # admitted in the same moment as cancelled
            self._admit()
            raise

    def leave(self, *, reserved: int = 0, used: int | None = None) -> None:
        """Give the place back; tokens reserved but not `used` return to the bucket (None: all were used)."""
        self.counts.in_flight -= 1
        if self._tokens and used is not None:
            self._tokens.take(used - reserved)
        self._admit()

    async def wait_outside(self, wait_s: float) -> None:
        """Wait for a retry without holding a place.

        Raises:
            LaneStopped: the lane has ended, also while waiting.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._ended.wait()
        self.require_open()

    def succeeded(self) -> None:
        """An answer came: the lane is alive."""
        self.counts.answered += 1
        self.last_success = self.clock()
        self.refused()

    def refused(self) -> None:
        """A reply that says no to this request alone: somebody is there."""
        self._troubled_at = None
        self._recent.append(False)

    def failed(self, what: str = "") -> None:
        """A broken reply, or none; `what` is for people."""
        self.counts.errors += 1
        self.last_trouble = what
        self._recent.append(False)
        self._note_trouble()

    def was_limited(self, wait_s: float, *, exhausted: bool) -> None:
        """A 429 or 503: the whole lane waits when nothing remains, or when most replies are like it."""
        self.counts.rate_limited += 1
        self._recent.append(True)
        self._note_trouble()
        crowded = len(self._recent) == _RECENT and sum(self._recent) > _RECENT // 2
        if exhausted or crowded:
            self._paused_until = max(self._paused_until, self.clock() + wait_s)
            self._recent.clear()

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
        self._ended.set()
        for turn, _ in self._waiting:
            if not turn.done():
                turn.set_exception(self._end)
        self._waiting.clear()
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

    def _admit(self) -> None:
        while self._waiting and self.counts.in_flight < self.concurrency:
            turn, tokens = self._waiting[0]
            if turn.done():
                self._waiting.popleft()
                continue
            now = self.clock()
            wait_s = self._paused_until - now
            if self._requests:
                wait_s = max(wait_s, self._requests.wait_s(1, now))
            if self._tokens:
                wait_s = max(wait_s, self._tokens.wait_s(tokens, now))
            if wait_s > _NOW_S:
                self._wake_in(wait_s)
                return
            self._waiting.popleft()
            self._take(1, tokens)
            turn.set_result(None)

    def _take(self, places: int, tokens: int) -> None:
        """Take a place with its tokens; negative numbers give it back as if it had never been taken."""
        self.counts.in_flight += places
        self.counts.sent += places
        if self._requests:
            self._requests.take(places)
        if self._tokens:
            self._tokens.take(tokens)

    def _wake_in(self, wait_s: float) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(wait_s, self._admit)
