"""The lane: one (endpoint, credential, model) with one gate in front of it.

In: requests that want to be sent, and what became of them. Out: permission to send, in order of arrival. A lane
bounds concurrency, requests a minute and tokens a minute, waits as a whole when its server says that nothing remains
or when over half of its last 32 replies were 429, and stops for good when key, quota or credit are gone.
Waiters stand in one queue woken by one timer: no polling.
Rejected: aiolimiter and pyrate-limiter (no reservation and refund, a full minute's burst at the start).
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["Bucket", "Lane", "LaneStopped"]

_RECENT = 32


class LaneStopped(Exception):
    """This lane answers nothing more in this run; its rows stay pending."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Bucket:
    """A token bucket that never lets more than `per_minute` pass in any 60 s.

    `burst` may pass at once, the rest comes in evenly. The level may go below zero: a request larger than the burst
    waits for a full bucket and then owes the rest.
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
    """See the module. `clock` is monotonic seconds."""

    name: str
    concurrency: int
    rpm: int | None = None
    tpm: int | None = None
    clock: Callable[[], float] = time.monotonic
    counts: LaneCounts = field(default_factory=LaneCounts)
    stopped: LaneStopped | None = None
    last_success: float = field(init=False)
    _requests: Bucket | None = field(init=False, default=None)
    _tokens: Bucket | None = field(init=False, default=None)
    _waiting: deque[tuple[asyncio.Future[None], int]] = field(init=False, default_factory=deque)
    _recent: deque[bool] = field(init=False, default_factory=lambda: deque(maxlen=_RECENT))
    _paused_until: float = field(init=False, default=0.0)
    _timer: asyncio.TimerHandle | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        now = self.last_success = self.clock()
        if self.rpm:
            self._requests = Bucket(self.rpm, max(1.0, self.rpm / 60), now)
        if self.tpm:
            self._tokens = Bucket(self.tpm, max(1.0, self.tpm / 10), now)

    async def enter(self, tokens: int) -> None:
        """Wait for permission to send a request that may use `tokens`; `leave` must follow.

        Raises:
            LaneStopped: the lane has ended, also while waiting.
        """
        if self.stopped:
            raise self.stopped
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, tokens))
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.leave()  # admitted in the same moment as cancelled
            raise

    def leave(self, *, reserved: int = 0, used: int | None = None) -> None:
        """Give the place back; tokens reserved but not `used` return to the bucket (None: all were used)."""
        self.counts.in_flight -= 1
        if self._tokens and used is not None:
            self._tokens.take(used - reserved)
        self._admit()

    def succeeded(self) -> None:
        """An answer came: the lane is alive."""
        self.last_success = self.clock()
        self._recent.append(False)

    def was_limited(self, wait_s: float | None, *, exhausted: bool) -> None:
        """A 429 or 503: the whole lane waits when the server says so, or when most replies are like it."""
        self._recent.append(True)
        crowded = len(self._recent) == _RECENT and sum(self._recent) > _RECENT // 2
        if wait_s and (exhausted or crowded):
            self._paused_until = max(self._paused_until, self.clock() + wait_s)
            self._recent.clear()

    def stop(self, reason: str, message: str) -> None:
        """End the lane: whoever waits, and whoever comes, gets `LaneStopped`."""
        if self.stopped:
            return
        self.stopped = LaneStopped(reason, message)
        for turn, _ in self._waiting:
            if not turn.done():
                turn.set_exception(self.stopped)
        self._waiting.clear()

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
            if wait_s > 0:
                self._wake_in(wait_s)
                return
            self._waiting.popleft()
            if self._requests:
                self._requests.take(1)
            if self._tokens:
                self._tokens.take(tokens)
            self.counts.in_flight += 1
            self.counts.sent += 1
            turn.set_result(None)

    def _wake_in(self, wait_s: float) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(wait_s, self._admit)
