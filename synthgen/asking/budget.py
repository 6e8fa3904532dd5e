"""The cap: money is reserved before a request is sent and settled when its reply is stored.

In: the worst price of each request, then what it cost. Out: permission, or `BudgetReached`. Guarantee: spent plus
reserved never exceeds the cap (but for the rounding of sums, below 1e-12 USD), as long as no reply costs more than its
worst price. A reply that never came keeps its reservation. Nobody waits for money that nothing of this session can free.
"""

import asyncio
from collections import deque

from synthgen.asking.outcome import NotAsked
from synthgen.errors import BudgetReached

__all__ = ["Budget"]


class Budget:
    """Spent and reserved USD of one run. `cap_usd` None means no cap: then everything fits."""

    def __init__(self, cap_usd: float | None, spent_usd: float) -> None:
        self.cap_usd = cap_usd
        self.spent_usd = spent_usd
        self.reserved_usd = 0.0
        self.aside_usd = 0.0  # of batches whose end this session will not see
        self.reached: BudgetReached | None = None
        self._reservations = 0
        self._closed: str | None = None
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def reserve(self, usd: float, *, final: bool = True) -> None:
        """Reserve `usd`, waiting for requests in flight to settle where that may make room.

        Raises:
            BudgetReached: it does not fit even with nothing in flight. Where that is `final`, later calls raise it
                too. What costs nothing always fits.
            NotAsked: there is no room, and `send_away` was called.
        """
        if usd <= 0:
            return
        while self.reached is None and not self._fits(usd):
            if not self._reservations:
                aside = f", {self.aside_usd:.6f} reserved for batches under way," if self.aside_usd else ""
                reached = BudgetReached(
                    f"budget reached: {self.spent_usd:.6f} of {self.cap_usd:.6f} USD spent{aside} and the next request "
                    f"may cost {usd:.6f}; raise budget_usd (or --max-cost) and run the same command to go on"
                )
                if not final:
                    raise reached
                self.reached = reached
                self._wake()
                break
            if self._closed is not None:
                raise NotAsked(self._closed)
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            await turn
        if self.reached is not None:
            raise self.reached.with_traceback(None)  # raised for many rows: it must not collect their frames
        self.hold(usd)

    def try_reserve(self, usd: float) -> bool:
        """Reserve `usd` if it fits now."""
        if usd <= 0:
            return True
        if self.reached is not None or not self._fits(usd):
            return False
        self.hold(usd)
        return True

    def hold(self, usd: float) -> None:
        """Reserve what an earlier session has already sent."""
        if usd > 0:
            self.reserved_usd += usd
            self._reservations += 1

    @property
    def waits(self) -> bool:
        """Whether something is reserved, so that room may come."""
        return self._reservations > 0

    def settle(self, reserved_usd: float, cost_usd: float) -> None:
        """The request is over: its reservation becomes its cost (0 for a rejected request)."""
        if reserved_usd > 0:
            self._reservations -= 1
            # Counted, since a sum of floats does not come back to 0 by itself.
            self.reserved_usd = self.reserved_usd - reserved_usd if self._reservations else 0.0
        self.spent_usd += cost_usd
        self._wake()

    def set_aside(self, usd: float) -> None:
        """Keep a reservation that nobody settles in this session: it counts against the cap, nobody waits for it."""
        self.aside_usd += max(usd, 0.0)
        self.settle(usd, 0.0)

    def send_away(self, reason: str) -> None:
        """From now on nobody waits for room."""
        self._closed = reason
        self._wake()

    def _fits(self, usd: float) -> bool:
        committed_usd = self.spent_usd + self.reserved_usd + self.aside_usd
        return self.cap_usd is None or committed_usd + usd <= self.cap_usd + 1e-12

    def _wake(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
