"""The rate that limits nobody names allow: learned from what is refused, and from what is answered in between.

In: when requests are sent, answered, refused. Out: how long the next one has to wait. A quota of requests or tokens a
minute whose headers say nothing cannot be kept by the number in flight where answers are quick: one in flight is 20
requests a second at a server that answers in 50 ms. Such a quota is used up both times when it refuses, so what it let
pass in between is what it allows; a little less is sent from then on, and a little more after every while without a
refusal. While it paces, refusals are its own business: the limit in flight is not cut for them.
It begins where cutting that limit does not help: when one place more or less is a large step, or most replies are
still refusals a second after a cut. Where nothing was answered in between it learns nothing: that is a storm.
Rejected: halving the rate (what was answered says it at once), and a share of one place in flight (needs the latency).

Source: Casetti et al. 2002 (TCP Westwood: after a loss, the rate that arrived). Numbers: `tests/test_untold_limits.py`.
"""

import math

__all__ = ["Pace"]

_EPISODE_S = 1.0
# Where fewer may be in flight, cutting that helps no more.
_FEWEST = 3
# As much as was answered, less what keeps it from being refused at once.
_LESS = 0.98
# So few answers measure no rate.
_MEASURED = 4
# The first step up, twice as large each time; how long, and how many answers, each is tried.
_STEP, _STEP_S, _STEP_ANSWERS = 0.01, 5.0, 10
_FREE = 2.0


class Pace:
    """Of one lane. Without a lesson it lets everything pass."""

    def __init__(self) -> None:
        self.passed_a_second = math.inf  # between the last two episodes; infinite where that is not known
        self._a_second = math.inf
        self._next_at = -math.inf
        self._answers = 0  # since the last episode
        self._refused_at: float | None = None  # the last episode
        self._step = _STEP
        self._step_at = -math.inf
        self._step_answers = 0

    @property
    def is_set(self) -> bool:
        """Whether it has learned a rate."""
        return self._a_second < math.inf

    def wait_s(self, now: float) -> float:
        """Seconds until the next request may pass; not above 0 means now."""
        return self._next_at - now

    def sent(self, now: float) -> None:
        """A request is sent."""
        if self._a_second < math.inf:
            self._next_at = max(now, self._next_at) + 1 / self._a_second

    def answered(self, now: float) -> None:
        """A request was let pass: it has an answer."""
        self._answers += 1
        if self._a_second == math.inf:
            return
        self._step_answers += 1
        if now >= self._step_at + _STEP_S and self._step_answers >= _STEP_ANSWERS:
            self._a_second *= 1 + self._step
            self._begin_step(now, 2 * self._step)
            if self._step > _FREE:
                self._a_second, self._next_at = math.inf, -math.inf

    def refused(self, now: float, sent_at: float, limit: int) -> bool:
        """A request was refused, with `limit` allowed in flight.

        Returns whether that is a matter of pace, so that the limit in flight need not be cut.
        """
        last = self._refused_at
        if last is not None and (sent_at < last or now < last + _EPISODE_S):
            return self.is_set
        if last is not None and 0 < self._answers < _MEASURED:
            return self.is_set  # too short to measure anything yet
        self.passed_a_second = math.inf
        if last is not None and self._answers:
            self.passed_a_second = self._answers / (now - last)
            if self.is_set:
                self._a_second = min(self._a_second, max(_LESS * self.passed_a_second, self._a_second / 2))
            elif limit < _FEWEST:
                self._a_second = _LESS * self.passed_a_second
        self._refused_at, self._answers = now, 0
        self._begin_step(now, _STEP)
        return self.is_set

    def _begin_step(self, now: float, step: float) -> None:
        self._step, self._step_at, self._step_answers = step, now, 0
