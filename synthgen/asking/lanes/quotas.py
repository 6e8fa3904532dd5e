"""Requests and tokens per second, minute and day: what an endpoint allows, and what a request takes of it.

In: the recipe's limits, what replies say of the server's own, and the usage of each answer. Out: how long the next
request has to wait. Guarantees: never more than a limit's requests pass in any of its windows; a request takes what
it is expected to use, and the difference comes back (or is owed) when its usage is known; where the
recipe and a reply name a limit for the same window the stricter one holds (who shares a key sets his part low on
purpose), else the one that is named; what was sent before a reply first named a limit counts against it; where other
users of the same key have used it up, the level follows what the server says remains.

Expected are the prompt's estimate (corrected by what earlier prompts turned out to be) and the output that nine of
ten answers stay below, `max_tokens` until an answer has come. A server that counts `max_tokens` and gives nothing back
(OpenAI documents that) shows it: it refuses requests for which, by its own count, enough remained of a limit on
tokens. After three of them that limit is counted its way; one alone proves nothing, and believing it leaves five sixths
of a limit unused that others use as well. Rejected: reserving `max_tokens` everywhere (answers a tenth as long leave
most of a limit unused), and aiolimiter and pyrate-limiter (no reservation and refund, a full minute's burst at the start).
"""

import math
from collections import deque
from collections.abc import Iterable
from typing import TypeAlias

from synthgen.asking.outcome import LimitKind, SeenLimit
from synthgen.dataclasses import dataclass
from synthgen.recipe.model import Limits
from synthgen.types import JSONValue, Usage

__all__ = ["Bucket", "Place", "Quotas"]

_MINUTE_S, _DAY_S = 60.0, 86400.0
_CONFIGURED: dict[str, tuple[LimitKind, float]] = {
    "rps": ("requests", 1.0),
    "rpm": ("requests", _MINUTE_S),
    "rpd": ("requests", _DAY_S),
    "tpm": ("tokens", _MINUTE_S),
    "tpd": ("tokens", _DAY_S),
    "itpm": ("input_tokens", _MINUTE_S),
    "otpm": ("output_tokens", _MINUTE_S),
}
_KINDS: tuple[LimitKind, ...] = ("requests", "tokens", "input_tokens", "output_tokens")
# Requests, input tokens, output tokens, `max_tokens`.
_Amounts: TypeAlias = tuple[float, float, float, float]
# Refusals though enough remained, beyond those where it did not, before a limit is known to count `max_tokens`: one also
# comes from an answer that is longer than expected.
_DENIALS = 3
_REMEMBERED = 64
_RELEARN_EVERY = 8


class Bucket:
    """A token bucket that never lets more than `limit` pass in any `window_s`.

    A burst may pass at once, the rest comes in evenly. The level may go below zero: an amount larger than the burst
    waits for a full bucket and then owes the rest, so a window may hold as much more as the largest amount exceeds the
    burst. The burst is a 60th of a window (at least 1), which costs as little of the rate, or where amounts are usually
    larger, as much as they are, up to a tenth (rows of 500 tokens at 20,000 a minute were refused 20 times of 100, and
    a half of the limit was left unused); half of a day's allowance, since nobody wants a thousand rows spread over a day.
    """

    def __init__(self, limit: float, window_s: float, now: float) -> None:
        self.window_s = window_s
        self._at = now
        self._level = float("inf")
        self.change(limit)

    def change(self, limit: float) -> None:
        """From now on, `limit` a window."""
        self.limit = limit
        self._let_burst(max(1.0, limit / (2 if self.window_s >= _DAY_S else 60)))

    def widen(self, amount: float) -> None:
        """Amounts of this size are usual: as far as a tenth of the limit goes, they are part of the burst."""
        if amount > self.burst:
            self._let_burst(max(self.burst, min(amount, self.limit / 10)))

    def _let_burst(self, burst: float) -> None:
        self.burst = burst
        self.rate = (self.limit - burst + 1) / self.window_s
        self._level = min(self._level, burst)

    def wait_s(self, amount: float, now: float) -> float:
        """Seconds until `amount` may pass; 0 means now."""
        self._refill(now)
        return max(0.0, (min(amount, self.burst) - self._level) / self.rate)

    def level(self, now: float) -> float:
        """What may pass now; below zero is owed."""
        self._refill(now)
        return self._level

    def take(self, amount: float) -> None:
        """Let `amount` pass; a negative amount is a refund."""
        self._level = min(self.burst, self._level - amount)

    def cap(self, level: float, now: float) -> None:
        """There is no more than `level` left, as the server says; at most one burst is believed to be owed."""
        self._refill(now)
        self._level = min(self._level, max(level, -self.burst))

    def _refill(self, now: float) -> None:
        self._level = min(self.burst, self._level + (now - self._at) * self.rate)
        self._at = now


@dataclass(slots=True, eq=False)
class Place:
    """A request of a step in a lane: what it takes of each limit, and when it was sent.

    `estimate` are the prompt's tokens as its sender guesses; `input_tokens` and `output_tokens` what was taken.
    `patience_s`: how long its answer is waited for.
    """

    estimate: int
    max_tokens: int
    step: str = ""
    input_tokens: float = 0.0
    output_tokens: float = 0.0
    sent_at: float = 0.0
    patience_s: float = math.inf
    passed: _Amounts = (0.0, 0.0, 0.0, 0.0)  # up to this one
    probe: bool = False
    retry: bool = False

    @property
    def expected(self) -> int:
        """The most tokens it can take, as its sender guesses; at least 1."""
        return max(self.estimate + self.max_tokens, 1)

    def amount(self, kind: LimitKind, *, reserved: bool = False) -> float:
        """What this request takes of a limit; with `reserved`, of one that counts `max_tokens`."""
        return _amount(kind, 1.0, self.input_tokens, self.max_tokens if reserved else self.output_tokens)


class Quotas:
    """The limits of one lane. `cached_free`: cached input counts for nothing (Anthropic)."""

    def __init__(self, limits: Limits, now: float, *, cached_free: bool = False) -> None:
        self._cached_free = cached_free
        self._buckets: dict[tuple[LimitKind, float], Bucket] = {}
        self._configured: dict[tuple[LimitKind, float], float] = {}
        for name, value in limits.model_dump(exclude={"concurrency"}, exclude_none=True).items():
            kind, window_s = _CONFIGURED[name]
            self._configured[kind, window_s] = value
            self._buckets[kind, window_s] = Bucket(value, window_s, now)
        self._reserving: set[tuple[LimitKind, float]] = set()  # limits that count `max_tokens`
        self._denied: dict[tuple[LimitKind, float], int] = {}
        self._passed: _Amounts = (0.0, 0.0, 0.0, 0.0)
        # What was used beyond what passed, as is known since of those answered.
        self._more_requests = self._more_input = self._more_output = 0.0
        self._since: float | None = None
        self._input_ratio = 1.0
        self._outputs: deque[int] = deque(maxlen=_REMEMBERED)
        self._answers = 0
        self._usual_output: float | None = None

    def wait_s(self, place: Place, now: float) -> float:
        """Seconds until this request may pass; fixes what it will take."""
        place.input_tokens = place.estimate * self._input_ratio
        place.output_tokens = float(place.max_tokens)
        if self._usual_output is not None:
            place.output_tokens = min(self._usual_output, place.max_tokens or self._usual_output)
        if not self._buckets:
            return 0.0
        return max(bucket.wait_s(self._amount(place, which), now) for which, bucket in self._buckets.items())

    def take(self, place: Place, now: float) -> None:
        """The request passes."""
        requests, input_tokens, output_tokens, max_tokens = self._passed
        self._passed = (
            requests + 1.0,
            input_tokens + place.input_tokens,
            output_tokens + place.output_tokens,
            max_tokens + place.max_tokens,
        )
        if self._since is None:
            self._since = now
        place.passed, place.sent_at = self._passed, now
        for which, bucket in self._buckets.items():
            amount = self._amount(place, which)
            bucket.take(amount)
            if amount > bucket.burst and self._usual_output is not None:
                bucket.widen(amount)

    def give_back(self, place: Place) -> None:
        """The request passed, but was never sent."""
        self._more_requests -= 1.0
        self._more_input -= place.input_tokens
        self._more_output -= place.output_tokens
        for which, bucket in self._buckets.items():
            bucket.take(-self._amount(place, which))

    def settle(self, place: Place, usage: Usage) -> bool:
        """Put what was used in the place of what was taken, and learn from it; the request itself stays counted.

        Returns whether it is the first to show how long answers are: those in flight are expected to use `max_tokens`.
        """
        unknown = self._usual_output is None
        input_tokens = usage.input_tokens - (usage.cached_input_tokens if self._cached_free else 0)
        self._more_input += input_tokens - place.input_tokens
        self._more_output += usage.output_tokens - place.output_tokens
        for which, bucket in self._buckets.items():
            if which not in self._reserving:
                used = _amount(which[0], 1.0, input_tokens, usage.output_tokens)
                bucket.take(used - place.amount(which[0]))
        if place.estimate and usage.input_tokens:
            ratio = min(max(input_tokens / place.estimate, 0.05), 20.0)
            self._input_ratio += 0.1 * (ratio - self._input_ratio)
        if usage.output_tokens:
            self._outputs.append(usage.output_tokens)
            if self._answers % _RELEARN_EVERY == 0:
                ordered = sorted(self._outputs)
                self._usual_output = float(ordered[(9 * len(ordered)) // 10])
            self._answers += 1
        return unknown and self._usual_output is not None

    def expect_usual(self, flying: Iterable[Place]) -> None:
        """Requests that were sent before any answer take what answers turn out to use, not `max_tokens`."""
        for place in flying:
            less = min(0.0, (self._usual_output or 0.0) - place.output_tokens)
            place.output_tokens += less
            self._more_output += less
            for which, bucket in self._buckets.items():
                if which not in self._reserving:
                    bucket.take(_amount(which[0], 0.0, 0.0, less))

    def see(self, place: Place, seen: Iterable[SeenLimit], now: float, *, refused: bool = False) -> None:
        """What the reply to `place` says of the server's limits; `refused`: it is a 429.

        Servers count at admission: since then came the refill, and went what was sent after this request.
        """
        for limit in seen:
            which = limit.kind, limit.window_s
            stricter = min(limit.limit, self._configured.get(which, math.inf))
            bucket = self._buckets.get(which)
            if bucket is None:
                bucket = self._buckets[which] = Bucket(stricter, limit.window_s, now)
                bucket.take(self._used_before(which, now))
            elif bucket.limit != stricter:
                bucket.change(stricter)
            if limit.remaining is not None:
                taken = place.amount(limit.kind)
                if refused:
                    self._weigh(which, place, limit.remaining)
                requests, input_tokens, output_tokens, max_tokens = (
                    now_ - then for now_, then in zip(self._passed, place.passed, strict=True)
                )
                output_tokens = max_tokens if which in self._reserving else output_tokens
                after = _amount(limit.kind, requests, input_tokens, output_tokens)
                refilled = bucket.rate * (now - place.sent_at)
                if refused and limit.kind != "requests" and which not in self._reserving:
                    after += taken  # comes back with `settle`, but it is not missing in what remains
                bucket.cap(limit.remaining + refilled - after, now)

    def _weigh(self, which: tuple[LimitKind, float], place: Place, remaining: float) -> None:
        """What a refusal says of the way a limit counts: only several that should not have been convince."""
        taken = place.amount(which[0])
        if remaining < taken:
            self._denied[which] = max(0, self._denied.get(which, 0) - 1)
        elif remaining < place.amount(which[0], reserved=True):
            self._denied[which] = self._denied.get(which, 0) + 1
            if self._denied[which] >= _DENIALS:
                self._reserving.add(which)

    def _used_before(self, which: tuple[LimitKind, float], now: float) -> float:
        """What this lane has taken in a window of a limit that nobody had named: all of it, or a window's share of it.

        What is in flight counts as expected.
        """
        requests, input_tokens, output_tokens, _ = self._passed
        used = _amount(
            which[0],
            requests + self._more_requests,
            input_tokens + self._more_input,
            output_tokens + self._more_output,
        )
        since_s = 0.0 if self._since is None else now - self._since
        return used * min(1.0, which[1] / max(since_s, 1.0))

    def _amount(self, place: Place, which: tuple[LimitKind, float]) -> float:
        return place.amount(which[0], reserved=which in self._reserving)

    def levels(self, now: float) -> dict[str, JSONValue]:
        """What may pass now of each limit, beside the limit; below zero is owed."""
        return {
            f"{kind} per {window_s:g} s": [round(bucket.level(now), 1), bucket.limit]
            for (kind, window_s), bucket in self._buckets.items()
        }


def _amount(kind: LimitKind, requests: float, input_tokens: float, output_tokens: float) -> float:
    match kind:
        case "requests":
            return requests
        case "tokens":
            return input_tokens + output_tokens
        case "input_tokens":
            return input_tokens
        case "output_tokens":
            return output_tokens
