"""How many requests a lane holds in flight: as many as the server is the faster for.

In: what became of each request. Out: `limit`. Guarantees: 1 <= `limit` <= `ceiling`; it grows only after a whole
round of replies without trouble during which at least 80 % of it was in use, and is cut once per episode of 429s or
timeouts, however many arrive; with a queue it does not grow to where answers come too late. Two ways to grow: `Aimd` until
the server refuses, `Gradient` for servers that hardly ever do (vLLM queues instead) until the time per token says that
more in flight only wait longer, or the server refuses after all.
Rejected: growing with every reply (outruns what is known of the last step), cutting with every 429 (a burst of them is
one event, and the limit would fall to 1).

Sources: Chiu and Jain 1989 (additive increase, multiplicative decrease); Jacobson 1988 (slow start up to a threshold);
Brakmo and Peterson 1995 (TCP Vegas: delay as the signal). Factors: starting values of the design, held by the
simulations in `tests/test_lanes.py`.
"""

import math
from typing import Protocol

__all__ = ["Aimd", "Concurrency", "Gradient", "Growth"]

_SATURATED = 0.8
_CUT = 0.7
_STEP = 0.05
# A server that refuses a share of requests whatever the load must not talk the limit down to 1 within a second.
_EPISODE_S = 1.0
_LEAST_ROUND = 8
# A server's own queue (client.md, section 8): too long for its work, what is left of it, how long a look at it counts.
_CROWDED, _QUEUE_HEADROOM, _QUEUE_HOLDS_S = 0.3, 0.1, 5.0
# The least share of a step by which it grows at a server that refuses to be sent more so fast.
_SLOWEST = 1 / 8
# So much longer than ever before an answer takes where there is a queue; what it may take of the time it has.
_QUEUES, _IN_TIME = 1.5, 0.5
# The replies of two rounds whose limits differ by less tell the same.
_SAME = 0.2


class Growth(Protocol):
    """Chooses the limit after a round under the last one.

    A round is `measured` replies for each place of the limit, after `skipped` ones: where the time per token matters, it
    must not begin with the replies that come first because they are the shortest.
    """

    @property
    def skipped(self) -> float:
        """Replies to a new limit that are not measured, as a share of it."""
        ...

    @property
    def measured(self) -> float:
        """Replies that make a round, as a share of the limit."""
        ...

    def after_round(self, limit: float, s_per_token: float) -> float:
        """The next limit; `s_per_token` is the median of the round."""
        ...

    def after_cut(self, limit: float) -> None:
        """The server refused requests, or did not answer them in time; `limit` is what it was cut to."""
        ...


class Aimd:
    """Doubles up to the first refusal, later up to where refusals began; from there 5 % a round."""

    skipped, measured = 0.0, 1.0

    def __init__(self) -> None:
        self._threshold = math.inf

    def after_round(self, limit: float, s_per_token: float) -> float:
        if limit < self._threshold:
            return min(2 * limit, max(self._threshold, limit + 1))
        return limit + max(1.0, _STEP * limit)

    def after_cut(self, limit: float) -> None:
        self._threshold = limit


class Gradient:
    """Doubles while that makes the server faster, then keeps the queue at it short.

    By Little's law a server that gives each request its token every `s` seconds makes limit / s tokens a second. Where
    a doubling brings less than 1.75 times as many, there is a crowd, or the few replies of a short round look like one:
    a whole round decides. Less than 1.3 times as many, and the time per token before it is what an uncrowded server
    needs: the limit then moves towards the share of itself that is not waiting, plus a quarter: to notice when there is
    room again, and because what is in flight here is not all at the server (benchmarks/limits.py, a tenth gave 0.93).
    Where it refuses requests before there is a crowd, it grows from there as `Aimd` does: steps of 5 % are too small to
    tell a gain by, and doubling again met the same refusals every few rounds (59 instead of 107 rows/s in simulation).
    """

    skipped = 0.5
    _SURE, _WORTH, _HEADROOM, _SMOOTH = 1.75, 1.3, 0.25, 0.3

    def __init__(self) -> None:
        self._last: tuple[float, float] | None = None  # limit and seconds per token one step ago
        self._calm_s: float | None = None
        self._calm_limit = 0.0
        self._refused_at = math.inf
        self._doubting = False  # a short round said that the last step brought little
        self._weight = 0.0  # places of the steps whose seconds per token were alike

    @property
    def measured(self) -> float:
        # On the way up a place that is not used costs more than an error, which a second look corrects.
        return 0.5 if self._calm_s is None and self._last is not None and not self._doubting else 1.0

    def after_round(self, limit: float, s_per_token: float) -> float:
        if self._calm_s is None:
            if limit >= self._refused_at:
                return limit + max(1.0, _STEP * limit)
            return min(self._explore(limit, s_per_token), max(self._refused_at, limit + 1))
        if s_per_token < self._calm_s:
            self._calm_s += 0.05 * (s_per_token - self._calm_s)
        elif limit <= self._calm_limit:
            self._calm_s += 0.3 * (s_per_token - self._calm_s)  # no crowd there: it was measured too short
        if limit < _CUT * self._calm_limit:
            # Less than what was no crowd once: another kind of request, or another server. Look again.
            self._calm_s, self._last = None, None
            return limit
        busy = min(1.0, self._calm_s / s_per_token)
        return limit + self._SMOOTH * (limit * max(0.5, busy) + self._HEADROOM * limit - limit)

    def after_cut(self, limit: float) -> None:
        self._last, self._doubting = None, False
        self._refused_at = limit
        self._calm_limit = min(self._calm_limit, limit)

    def _explore(self, limit: float, s_per_token: float) -> float:
        last, doubting = self._last, self._doubting
        if last is None or limit <= last[0]:
            return self._go_on(limit, s_per_token, 2.0, weight=limit)
        gain, most = (limit / s_per_token) / (last[0] / last[1]), limit / last[0]
        if gain >= 1 + (self._SURE - 1) * (most - 1):
            # No crowd: all steps up to here measure the same, the more of them the better.
            weight = self._weight + limit
            s_per_token = (self._weight * last[1] + limit * s_per_token) / weight
            return self._go_on(limit, s_per_token, 2.0, weight=weight)
        self._doubting = not doubting
        if not doubting:
            return limit
        if gain >= 1 + (self._WORTH - 1) * (most - 1):
            return self._go_on(limit, s_per_token, 1.5, weight=limit)
        knee = limit * last[1] / s_per_token
        self._last = None
        self._calm_limit, self._calm_s = last
        return max(last[0], knee * (1 + self._HEADROOM))

    def _go_on(self, limit: float, s_per_token: float, step: float, *, weight: float) -> float:
        self._last, self._weight, self._doubting = (limit, s_per_token), weight, False
        return step * limit


class Concurrency:
    """The limit of one lane, from `start` up to `ceiling`."""

    def __init__(self, growth: Growth, *, start: int, ceiling: int) -> None:
        self.ceiling = ceiling
        self._growth = growth
        self._limit = float(min(start, ceiling))
        self.limit = int(self._limit)  # how many may be in flight now
        self._changed_at = -math.inf
        self._cut_at = -math.inf
        self._queue_until = -math.inf
        self._succeeded_since_cut = True
        self._pace = 1.0
        self._early = 0  # replies of this limit that are not measured yet
        self._saturated = 0
        self._times: list[float] = []
        self._shares: list[float] = []  # of the time that each had, the part it took
        self._least_s = math.inf  # per token, of all rounds
        self._was_late = False
        self._new_round()

    def answered(self, now: float, sent_at: float, patience_s: float, in_flight: int, tokens: int) -> None:
        """An answer of `tokens` tokens to a request sent at `sent_at`, waited for `patience_s` at most, while `in_flight` were."""
        if sent_at < self._changed_at:
            return  # says nothing of the present limit
        self._succeeded_since_cut = True
        if self._early:
            self._early -= 1
            return
        took_s = now - sent_at
        self._times.append(took_s / max(tokens, 1))
        self._shares.append(took_s / patience_s)
        self._saturated += in_flight >= _SATURATED * self.limit
        if len(self._times) < self._round:
            return
        if self._saturated >= _SATURATED * len(self._times):
            s_per_token = max(_middle(self._times), 1e-9)
            most = self._limit if now < self._queue_until else self._most_in_time(s_per_token)
            limit = self._growth.after_round(self._limit, s_per_token)
            if limit > self._limit:
                limit = self._limit + self._pace * (limit - self._limit)
            self._set(min(limit, max(most, self._limit)), now)
        else:
            self._new_round()

    def hold(self) -> None:
        """Trouble that is no sign of too many requests: this round does not count."""
        self._new_round()

    def queued(self, now: float, in_flight: int, waiting: float, running: float) -> None:
        """What the server itself says: so many requests wait there, so many are worked on, `in_flight` of all ours.

        While some wait nothing grows; where they are more than three tenths of the others, our share of those waiting
        is not sent any more. Measured against what is in flight, not the limit, since a queue takes time to drain.
        """
        self._queue_until = now + _QUEUE_HOLDS_S if waiting else -math.inf
        if running and waiting > _CROWDED * running:
            worked_on = in_flight * running / (running + waiting)
            self._set(min(self._limit, (1 + _QUEUE_HEADROOM) * worked_on), now)

    def cut(self, now: float, sent_at: float, *, ramp: bool = False, late: bool = False) -> None:
        """The server refused a request because there were too many, or (`ramp`) more too fast: then it also grows half as fast;
        `late`: it did not answer it in time."""
        self._new_round()
        self._was_late |= late
        if sent_at < self._cut_at or now < self._cut_at + _EPISODE_S:
            return
        self._cut_at = now
        if ramp:
            self._pace = max(self._pace / 2, _SLOWEST)
        self._set(_CUT * self._limit, now)
        if self._succeeded_since_cut:  # without, the server refuses everything: that is no measure
            self._growth.after_cut(self._limit)
            self._new_round()
        self._succeeded_since_cut = False

    def _most_in_time(self, s_per_token: float) -> float:
        """The limit at which usual answers take half as long as they are waited for, where a queue shows.

        A server works on what nobody waits for any more, and bills it. Where time does not grow with the limit, or
        nothing was late yet, it tells nothing.
        """
        self._least_s = min(self._least_s, s_per_token)
        if not self._was_late and s_per_token < _QUEUES * self._least_s:
            return math.inf
        return self._limit * _IN_TIME / max(math.fsum(self._shares) / len(self._shares), 1e-9)

    def _set(self, limit: float, now: float) -> None:
        limit = min(max(limit, 1.0), float(self.ceiling))
        if abs(limit - self._limit) >= _SAME * self._limit:
            self._changed_at = now
            self._early = int(self._growth.skipped * limit)
        self._limit, self.limit = limit, int(limit)
        self._new_round()

    def _new_round(self) -> None:
        self._round = max(int(self._growth.measured * self._limit), _LEAST_ROUND)
        self._saturated = 0
        self._shares.clear()
        self._times.clear()


def _middle(times: list[float]) -> float:
    """The mean of the middle half: nearly as steady as the mean, and as deaf to a few slow answers as the median."""
    ordered, quarter = sorted(times), len(times) // 4
    middle = ordered[quarter : len(ordered) - quarter]
    return math.fsum(middle) / len(middle)
