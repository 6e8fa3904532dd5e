"""How many rows may be on their way at once: a window for each teacher that a first question goes to.

In: rows in plan order, each with that teacher's alias. Out: `start` for each, at once or when an earlier row of the same
teacher has ended. Guarantees: of a teacher's rows at most its window are on their way (a task each); what is above is
held back as a row, in order; a teacher that is slow, paused or dead holds up no row of another one. How many are held
back is bounded by whoever admits them: with one teacher none, since then `room` is its window alone.
Rejected: one window for all (the rows of a paused teacher fill it within a second), and windows that close only while a
lane is paused (a server that hangs, or is ten times slower, is not paused).
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

__all__ = ["Windows"]

T = TypeVar("T")


class Windows(Generic[T]):
    """`limits`: rows on their way, by alias. `ended` must follow every `start`."""

    def __init__(self, limits: Mapping[str, int], start: Callable[[str, T], None]) -> None:
        self.held = 0
        self._start = start
        self._free = dict(limits)
        self._full = 0  # teachers without a free place
        self._waiting: dict[str, deque[T]] = {alias: deque() for alias in limits}
        self._room = asyncio.Event()
        self._closed = False

    async def room(self) -> None:
        """Wait until a row of some teacher could start at once."""
        while self._full == len(self._free):
            self._room.clear()
            await self._room.wait()

    def admit(self, alias: str, row: T) -> None:
        """Start `row`, or hold it back until its teacher has a free place."""
        if self._free[alias]:
            self._free[alias] -= 1
            self._full += not self._free[alias]
            self._start(alias, row)
        else:
            self._waiting[alias].append(row)
            self.held += 1

    def ended(self, alias: str) -> None:
        """A row has ended: the next one of its teacher starts."""
        if self._waiting[alias] and not self._closed:
            self.held -= 1
            self._start(alias, self._waiting[alias].popleft())
            return
        self._full -= not self._free[alias]
        self._free[alias] += 1
        self._room.set()

    def waiting(self) -> list[T]:
        """Rows that are held back."""
        return [row for waiting in self._waiting.values() for row in waiting]

    def close(self) -> None:
        """Start nothing that is held back: the run is being cancelled."""
        self._closed = True
