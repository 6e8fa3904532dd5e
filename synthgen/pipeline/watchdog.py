"""The watchdog: a run that does not move says what it waits for.

In: a look at the queues and at the rest of the run every few seconds. Out: text for people and an event. Guarantees:
without any movement (a send, a reply, an error, a row or wave that ends) for `quiet_s`, the state of all that is open
is told, again each time the silence has doubled; where it is known when things go on (a pause the server asked for, a
limit, a row's backoff) one line a minute says until when instead. It looks only: nothing is stopped or sent.
Rejected: a time-out per request as the only alarm (it is longer than anybody's patience, and silent about the cause),
stopping the run (a slow answer is paid, too).
"""

import time
from collections.abc import Callable, Mapping
from datetime import datetime

from synthgen.asking.lanes import Queue
from synthgen.types import JSONValue

__all__ = ["Watchdog"]

_SAY_PAUSE_EVERY_S = 60.0
_SAME_MOMENT_S = 1.0


class Watchdog:
    """Call `check` every few seconds. `state` tells of the run outside the queues, `note` records a stall as an event."""

    def __init__(
        self,
        queues: Mapping[str, Queue],
        state: Callable[[], dict[str, JSONValue]],
        *,
        quiet_s: float,
        say: Callable[[str], None],
        note: Callable[[dict[str, JSONValue]], None],
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._queues = queues
        self._state = state
        self._quiet_s = quiet_s
        self._say = say
        self._note = note
        self._clock = clock
        self._wall = wall
        self._seen = self._movement()
        self._moved_at = clock()
        self._next_dump_s = quiet_s
        self._paused_said_at = float("-inf")

    def check(self) -> None:
        """Look whether anything moved, and speak if nothing did for too long."""
        now, movement = self._clock(), self._movement()
        if movement != self._seen:
            self._seen, self._moved_at, self._next_dump_s = movement, now, self._quiet_s
            return
        still_s = now - self._moved_at
        if still_s < self._quiet_s:
            return
        pauses = {alias: queue.moves_in_s() for alias, queue in self._queues.items()}
        # A moment that is past and still nothing moved explains nothing.
        known = {a: wait_s for a, wait_s in pauses.items() if wait_s is not None and wait_s > -_SAME_MOMENT_S}
        if known:
            if now - self._paused_said_at >= _SAY_PAUSE_EVERY_S:
                self._paused_said_at = now
                self._say(self._pause_line(known))
        elif still_s >= self._next_dump_s:
            self._next_dump_s = 2 * still_s
            self._dump(still_s)

    def _movement(self) -> tuple[object, ...]:
        """Something else whenever anything has moved."""
        counts = [lane.counts for queue in self._queues.values() for lane in queue.lanes]
        replies = [(c.sent, c.answered, c.rate_limited, c.errors, c.in_flight) for c in counts]
        waiting = [queue.waiting for queue in self._queues.values()]
        return (*replies, *waiting, *self._state().items())

    def _pause_line(self, known: Mapping[str, float]) -> str:
        alias, wait_s = min(known.items(), key=lambda item: item[1])
        until = datetime.fromtimestamp(self._wall() + wait_s).astimezone()
        troubles = [lane.last_trouble for lane in self._queues[alias].lanes if lane.last_trouble]
        why = f"; last trouble: {troubles[-1]!r}" if troubles else ""
        return f"{alias}: waits until {until:%H:%M:%S} ({max(wait_s, 0):.0f} s) before it asks on{why}"

    def _dump(self, still_s: float) -> None:
        queues: dict[str, JSONValue] = {alias: queue.state() for alias, queue in self._queues.items()}
        found: dict[str, JSONValue] = {"still_s": round(still_s, 1), **self._state(), "teachers": queues}
        self._say("\n".join([f"nothing has moved for {still_s:.0f} s; what is open:", *_lines(found)]))
        self._note(found)


def _lines(found: Mapping[str, JSONValue], indent: str = "  ") -> list[str]:
    """Plain values on one line, mappings below it; what a server said is shown escaped."""
    plain = [f"{name} {value!r}" for name, value in found.items() if not isinstance(value, dict)]
    lines = [indent + ", ".join(plain)] if plain else []
    for name, value in found.items():
        if isinstance(value, dict) and value:
            lines += [f"{indent}{name}:", *_lines(value, indent + "  ")]
    return lines
