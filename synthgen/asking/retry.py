"""How long to wait before the same request is sent again, and when to stop trying.

In: how often it was tried and what the server said. Out: seconds to wait, and whether the tries are enough. tenacity's
wait and stop objects state the policy; the asking loop does the waiting, because a row that waits must give up its
place.
"""

from dataclasses import field

from tenacity import (
    RetryCallState,
    stop_after_attempt,
    wait_exponential,
    wait_random,
    wait_random_exponential,
)
from tenacity.stop import stop_base
from tenacity.wait import wait_base

from synthgen.dataclasses import dataclass

__all__ = ["MAX_WAIT_S", "RetryPolicy"]

# An hour: longer limits (daily quotas) are probed once an hour, and a wrong header cannot park a run for years.
MAX_WAIT_S = 3600.0
_LONGER = 1.2


class _Unused:
    """tenacity's call state wants a retrier; its wait and stop objects never look at it."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Bounds from 1 s doubling to 60 s, of which three fifths are kept and the rest is drawn; six attempts, three where each may be billed.

    Each wait is longer than the one before, whatever is drawn. Source: AWS Architecture Blog, "Exponential Backoff
    And Jitter" (2015), equal jitter, with a little more kept. Full jitter draws a shorter second wait 25 times in 100,
    now and then a few milliseconds: hammering, to a server that is in trouble.
    """

    wait: wait_base = field(
        default_factory=lambda: (
            wait_exponential(multiplier=0.6, max=36) + wait_random_exponential(multiplier=0.4, max=24)
        )
    )
    stop: stop_base = field(default_factory=lambda: stop_after_attempt(6))
    flex: wait_base = field(
        default_factory=lambda: wait_exponential(multiplier=30, max=1800) + wait_random(0, 3)
    )
    stop_paid: stop_base = field(default_factory=lambda: stop_after_attempt(3))

    def backoff_s(self, attempt: int, server_wait_s: float | None = None, *, last_s: float = 0.0) -> float:
        """Seconds before the attempt after the `attempt`-th (1-based): the server's time where it named one, at most an hour.

        A server that names no time, or says "now", is not hammered: then jitter decides. `last_s`: what the server saw
        of the wait before, in the queue included; this one is longer, if need be twice as long as drawn.
        """
        if server_wait_s is not None and server_wait_s > 0:
            return min(server_wait_s, MAX_WAIT_S)
        drawn_s: float = self.wait(_state(attempt))
        return max(drawn_s, min(_LONGER * last_s, 2 * drawn_s))

    def flex_s(self, attempt: int) -> float:
        """Seconds before a server that sells what is left over is asked again, where it names no time."""
        wait_s: float = self.flex(_state(attempt))
        return wait_s

    def exhausted(self, attempt: int) -> bool:
        """Whether `attempt` tries are enough."""
        return self.stop(_state(attempt))

    def paid_enough(self, sends: int) -> bool:
        """Whether `sends` that may have been billed without bringing an answer are enough."""
        return self.stop_paid(_state(sends))


def _state(attempt: int) -> RetryCallState:
    state = RetryCallState(retry_object=_Unused(), fn=None, args=(), kwargs={})  # type: ignore[arg-type]  # see _Unused
    state.attempt_number = attempt
    return state
