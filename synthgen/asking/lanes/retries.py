"""The retry budget: how large a share of what a lane sends may be second tries.

In: what is sent. Out: how long the next retry has to wait. Guarantee: of the requests of the last minute at most a
fifth are retries (a minute without much traffic allows `_ALWAYS` all the same), so that a broken server cannot
multiply the bill; what is above waits, it does not fail. Requests that were refused for their rate, or never reached
anybody, are no retries: they cost nothing.
Rejected: a budget that fills up with answers (Finagle's), which a long healthy hour lets overflow into a storm.

Source: the share of the design (client.md, section 8); Google SRE book, chapter 21, allows a tenth per client.
"""

from collections import deque

__all__ = ["RetryBudget"]

_WINDOW_S = 60
_SHARE = 0.2
# So that a run of a few dozen rows retries at all.
_ALWAYS = 100


class RetryBudget:
    """Sends and retries of the last minute, counted in cells of a second: at most 61 of them."""

    def __init__(self) -> None:
        self._cells: deque[list[int]] = deque()  # [second, sent, retried]
        self._sent = 0
        self._retried = 0

    def sent(self, now: float, *, retry: bool) -> None:
        """A request is sent."""
        second = int(now)
        if not self._cells or self._cells[-1][0] != second:
            self._forget(now)
            self._cells.append([second, 0, 0])
        cell = self._cells[-1]
        cell[1] += 1
        cell[2] += retry
        self._sent += 1
        self._retried += retry

    def wait_s(self, now: float) -> float:
        """Seconds until a retry may be sent if nothing else is sent meanwhile; 0 means now."""
        self._forget(now)
        if self._retried < max(_ALWAYS, int(_SHARE * (self._sent + 1))):
            return 0.0
        oldest = next(second for second, _, retried in self._cells if retried)
        return oldest + _WINDOW_S + 1 - now

    def _forget(self, now: float) -> None:
        while self._cells and self._cells[0][0] + _WINDOW_S < int(now):
            _, sent, retried = self._cells.popleft()
            self._sent -= sent
            self._retried -= retried
