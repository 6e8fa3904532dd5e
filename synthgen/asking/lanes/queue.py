"""The queue of one teacher: who is sent next, and down which of its lanes.

In: requests that want to be sent, each of a step, new or sent before. Out: permission to send, and the lane. Order:

1. What was sent before goes before what is new, but takes at most every second turn while something new can go.
2. Among steps, the one that has taken the least, in tokens as its requests usually turn out to take: neither many
   requests nor large ones of one step hold up another's (or the judge's).
3. Within a step in order of arrival. A request too large for what the limits allow right now lets others pass, at most
   `_OVERTAKES` of them; then everybody waits for it.

The request goes to the lane that can take it now and is the fastest and emptiest; after a failure to another one if it
can; to a lane that was set aside as soon as that wants its probe. Waiters are woken by one timer: no polling, and a
turn costs O(steps + lanes). A lane that stops leaves the others; with the last of them the queue ends, and whoever
waits is sent away at once.
Rejected: a queue per lane (a request bound to a slow or dead one would wait beside an idle one), weighted round robin
with quanta (the same shares, with a constant to choose), and letting large requests wait until they fit (never, while
small ones keep coming).

Source: Goyal, Vin, Cheng 1996, "Start-time Fair Queueing".
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Literal

from synthgen.asking.lanes.lane import Lane, LaneStopped
from synthgen.asking.lanes.quotas import Place
from synthgen.dataclasses import dataclass
from synthgen.types import JSONValue, Usage

__all__ = ["Queue", "Turn"]

# `gated`: asked again without having been worked on (429, refused connection). `retry`: after a broken reply.
Turn = Literal["new", "gated", "retry"]

_AGAIN_FIRST: tuple[Turn, ...] = ("gated", "retry", "new")
_NEW_FIRST: tuple[Turn, ...] = ("new", "gated", "retry")
_OVERTAKES = 8
# Shorter waits are rounding: a timer set for them would fire again and again.
_NOW_S = 1e-6


@dataclass(slots=True, eq=False)
class _Waiter:
    """`called` brings the lane; `avoid` is the one that failed it last."""

    place: Place
    turn: Turn
    avoid: Lane | None
    called: asyncio.Future[Lane]
    overtaken: int = 0


class _Usual:
    """What requests took lately, of what they were expected to: newer ones count more."""

    def __init__(self) -> None:
        self._used = self._expected = self._requests = 0.0

    def learn(self, used: int, expected: int) -> None:
        self._used = 0.9 * self._used + used
        self._expected = 0.9 * self._expected + expected
        self._requests = 0.9 * self._requests + 1

    @property
    def known(self) -> bool:
        return self._requests > 0

    def of(self, expected: int) -> float:
        """What a request will take that is expected to take so much."""
        return expected * self._used / self._expected

    def each(self) -> float:
        """What any request takes; 1 while nobody knows."""
        return self._used / self._requests if self._requests else 1.0


class _Step:
    """The requests of one step; `taken` are its tokens so far, on a scale common to all steps."""

    def __init__(self) -> None:
        self.taken = 0.0
        self.waiting: dict[Turn, deque[_Waiter]] = {"gated": deque(), "retry": deque(), "new": deque()}
        self.usual = _Usual()


def _drop_cancelled(waiting: deque[_Waiter]) -> None:
    """Leave somebody first who still waits, or nobody."""
    while waiting and waiting[0].called.done():
        waiting.popleft()


class _Shares:
    """Who waits, by step; the step that has taken the least comes first.

    Counted is what a request of the step usually takes (of any step, before its first answer), and never corrected
    afterwards: a step that came meanwhile would wait for what another one gets back. `max_tokens` alone says little.
    """

    def __init__(self) -> None:
        self._steps: dict[str, _Step] = {}
        self._usual = _Usual()
        self._level = 0.0  # what the step called last had taken: nobody who was away may claim less

    def add(self, waiter: _Waiter) -> bool:
        """Returns whether nobody of its step waits before it."""
        step = self._steps.get(waiter.place.step)
        if step is None:
            step = self._steps[waiter.place.step] = _Step()
        if not any(step.waiting.values()):
            step.taken = max(step.taken, self._level)
        waiting = step.waiting[waiter.turn]
        _drop_cancelled(waiting)
        waiting.append(waiter)
        return len(waiting) == 1

    def pass_by(self, place: Place) -> None:
        """A request goes that has not waited, while nobody waits."""
        step = self._steps.get(place.step)
        if step is None:
            step = self._steps[place.step] = _Step()
        self._level = max(step.taken, self._level)
        step.taken = self._level + self._counted(step, place)

    def _counted(self, step: _Step, place: Place) -> float:
        return step.usual.of(place.expected) if step.usual.known else self._usual.each()

    def next_steps(self, turn: Turn) -> list[_Step]:
        """Those with somebody waiting for such a turn, in order."""
        found = []
        for step in self._steps.values():
            waiting = step.waiting[turn]
            if waiting and waiting[0].called.done():
                _drop_cancelled(waiting)
            if waiting:
                found.append(step)
        if len(found) > 1:
            found.sort(key=lambda step: step.taken)
        return found

    def take(self, step: _Step, turn: Turn) -> _Waiter:
        """The first of those waiting for such a turn, which counts from now on."""
        self._level = step.taken
        waiter = step.waiting[turn].popleft()
        step.taken += self._counted(step, waiter.place)
        return waiter

    def learn(self, place: Place, usage: Usage) -> None:
        """What a request took."""
        if used := usage.input_tokens + usage.output_tokens:
            expected = place.expected
            self._steps[place.step].usual.learn(used, expected)
            self._usual.learn(used, expected)

    def __iter__(self) -> Iterator[_Waiter]:
        for step in self._steps.values():
            for waiting in step.waiting.values():
                yield from (waiter for waiter in waiting if not waiter.called.done())


class Queue:
    """See the module. The lanes share one clock."""

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self.lanes = tuple(lanes)
        self.waiting = 0
        self._shares = _Shares()
        self._held: _Waiter | None = None  # too large for now, and being overtaken
        self._last_was_new = True
        # Until when they wait, and whether they come back with a lane.
        self._outside: dict[asyncio.Future[None], tuple[float, bool]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._due = math.inf  # of the timer; uvloop's handles of short waits do not tell
        self._end: LaneStopped | None = None
        for lane in self.lanes:
            lane.recovered = self._call_back

    async def enter(
        self,
        input_tokens: int,
        max_tokens: int = 0,
        *,
        step: str = "",
        turn: Turn = "new",
        avoid: Lane | None = None,
    ) -> tuple[Lane, Place]:
        """Wait for permission to send a prompt of about `input_tokens`; `leave` must follow.

        Raises:
            LaneStopped: no lane is left, also while waiting.
        """
        self.require_open()
        place = Place(input_tokens, max_tokens, step)
        if not self.waiting and (lane := self._free_for(place, turn, avoid)) is not None:
            self._shares.pass_by(place)
            self._last_was_new = turn == "new"
            return lane, place
        waiter = _Waiter(place, turn, avoid, asyncio.get_running_loop().create_future())
        first = self._shares.add(waiter)
        self.waiting += 1
        if first:  # else it cannot go before those who wait already
            self._call()
        try:
            lane = await waiter.called
        except asyncio.CancelledError:
            called = waiter.called
            if called.cancelled():
                self.waiting -= 1
            elif called.exception() is None:
                called.result().give_back(place)  # called in the same moment as cancelled
            self._call()
            raise
        return lane, place

    def leave(self, lane: Lane, place: Place, usage: Usage | None = None) -> None:
        """Give the place back; of its tokens, those not in `usage` too (None: unknown, all count as used)."""
        lane.vacate(place, usage)
        if usage is not None:
            self._shares.learn(place, usage)
        self._call()

    async def wait_outside(self, wait_s: float, *, with_lane: bool = False) -> None:
        """Wait for a retry without holding a place; `with_lane`: only until a lane comes out of trouble.

        Raises:
            LaneStopped: no lane is left, also while waiting.
        """
        self.require_open()
        loop = asyncio.get_running_loop()
        moved: asyncio.Future[None] = loop.create_future()
        self._outside[moved] = loop.time() + wait_s, with_lane
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await moved
        finally:
            del self._outside[moved]
        self.require_open()

    def has_other(self, lane: Lane) -> bool:
        """Whether another lane is at work, so that a request need not wait for this one."""
        return any(not other.ended and not other.probing for other in self.lanes if other is not lane)

    @property
    def busy(self) -> bool:
        """Whether somebody waits for it: to be sent, for a reply, or to be sent again."""
        return bool(self.waiting or self._outside) or any(lane.counts.in_flight for lane in self.lanes)

    @property
    def silent_s(self) -> float:
        """How long every reply of every lane has been trouble; 0 while one of them has none."""
        return min((lane.silent_s for lane in self.lanes if not lane.ended), default=0.0)

    @property
    def last_success(self) -> float:
        """When the last answer came, from whichever lane."""
        return max(lane.last_success for lane in self.lanes)

    @property
    def has_answered(self) -> bool:
        """Whether any answer came in this session."""
        return self.last_success > -math.inf

    @property
    def stopped(self) -> LaneStopped | None:
        """Why its endpoints answer nothing more, once that is so for all of them."""
        reasons = [lane.stopped for lane in self.lanes]
        return None if None in reasons else reasons[-1]

    def stop(self, lane: Lane, reason: str, message: str) -> None:
        """Send nothing more down `lane` because its endpoint answers nothing more; the last one ends the queue."""
        lane.close(LaneStopped(reason, message), blamed=True)
        if all(lane.ended for lane in self.lanes):
            self._send_away(LaneStopped(reason, message))

    def stop_all(self, reason: str, message: str) -> None:
        """Send nothing more, because of all its endpoints."""
        for lane in self.lanes:
            self.stop(lane, reason, message)

    def end(self, reason: str, message: str) -> None:
        """Send nothing more: whoever waits, and whoever comes, gets `LaneStopped`; what is in flight goes on."""
        for lane in self.lanes:
            lane.close(LaneStopped(reason, message), blamed=False)
        self._send_away(LaneStopped(reason, message))

    @property
    def ended(self) -> bool:
        """Whether nothing more is sent, for whatever reason."""
        return self._end is not None

    def require_open(self) -> None:
        """Check that the queue has not ended.

        Raises:
            LaneStopped: it has.
        """
        if self._end is not None:
            raise self._end.with_traceback(None)  # raised for many rows: it must not collect their frames

    def moves_in_s(self) -> float | None:
        """Seconds until it goes on by itself; None where only a reply (or nothing) will move it."""
        due = [until for until, _ in self._outside.values()]
        if self._timer is not None:
            due.append(self._due)
        return min(due) - asyncio.get_running_loop().time() if due else None

    def state(self) -> dict[str, JSONValue]:
        """What a person wants to know of a queue that does not move."""
        lanes: dict[str, JSONValue] = {lane.name: lane.state() for lane in self.lanes}
        return {"waiting": self.waiting, "waiting_for_retry": len(self._outside), "lanes": lanes}

    def _send_away(self, why: LaneStopped) -> None:
        if self._end is not None:
            return
        self._end = why
        for waiter in self._all_waiting():
            waiter.called.set_exception(why)
        self.waiting = 0
        self._call_out(lambda with_lane: True)
        if self._timer:
            self._timer.cancel()

    def _all_waiting(self) -> Iterator[_Waiter]:
        if self._held is not None and not self._held.called.done():
            yield self._held
        yield from self._shares

    def _call_back(self) -> None:
        """A lane answers again: those whose wait nobody named need not wait longer."""
        self._call_out(lambda with_lane: with_lane)

    def _call_out(self, whom: Callable[[bool], bool]) -> None:
        for moved, (_, with_lane) in self._outside.items():
            if whom(with_lane) and not moved.done():
                moved.set_result(None)

    def _call(self) -> None:
        """Call whoever may go now, and set the timer for the next who may."""
        wait_s = 0.0
        while self.waiting and wait_s <= _NOW_S:
            closed_s = math.inf
            open_lanes = []
            for lane in self.lanes:
                opens_s = lane.opens_in_s()
                if opens_s <= _NOW_S:
                    open_lanes.append(lane)
                else:
                    closed_s = min(closed_s, opens_s)
            wait_s = min(closed_s, self._call_one(open_lanes)) if open_lanes else closed_s
        self._wake_in(wait_s if self.waiting else math.inf)

    def _free_for(self, place: Place, turn: Turn, avoid: Lane | None) -> Lane | None:
        """Take the best lane that can send `place` now, None where none can."""
        open_lanes = [lane for lane in self.lanes if lane.opens_in_s() <= _NOW_S]
        return self._take(place, turn, avoid, open_lanes)[0] if open_lanes else None

    def _call_one(self, lanes: Sequence[Lane]) -> float:
        """Call the next who fits one of these open lanes; 0, or the seconds until somebody may fit."""
        soonest_s = math.inf
        if self._held is not None and self._held.called.done():  # cancelled
            self._held = None
        if self._held is not None:
            soonest_s = self._try(self._held, lanes)
            if soonest_s <= _NOW_S:
                self._held = None
                return 0.0
            if self._held.overtaken >= _OVERTAKES:
                return soonest_s
        for turn in _AGAIN_FIRST if self._last_was_new else _NEW_FIRST:
            for step in self._shares.next_steps(turn):
                wait_s = self._call_first(step, turn, lanes)
                if wait_s <= _NOW_S:
                    return 0.0
                soonest_s = min(soonest_s, wait_s)
        return soonest_s

    def _call_first(self, step: _Step, turn: Turn, lanes: Sequence[Lane]) -> float:
        """Call the first of a step; 0, or the seconds until it may fit. One that is too large steps aside."""
        soonest_s, waiting = math.inf, step.waiting[turn]
        while waiting:
            waiter = waiting[0]
            if waiter.called.done():  # cancelled
                waiting.popleft()
                continue
            wait_s = self._try(waiter, lanes)
            if wait_s <= _NOW_S:
                self._shares.take(step, turn)
                self._last_was_new = turn == "new"
                if self._held is not None:
                    self._held.overtaken += 1
                return 0.0
            soonest_s = min(soonest_s, wait_s)
            if self._held is not None or not self._is_too_large(waiter, lanes):
                break
            self._held = self._shares.take(step, turn)
        return soonest_s

    def _try(self, waiter: _Waiter, lanes: Sequence[Lane]) -> float:
        """Call `waiter` to the best of these lanes; 0, or the seconds until one may have room."""
        lane, wait_s = self._take(waiter.place, waiter.turn, waiter.avoid, lanes)
        if lane is not None:
            self.waiting -= 1
            waiter.called.set_result(lane)
        return wait_s

    def _take(
        self, place: Place, turn: Turn, avoid: Lane | None, lanes: Sequence[Lane]
    ) -> tuple[Lane | None, float]:
        """Send `place` down the best of these lanes; with none, the seconds until one may have room."""
        fitting, soonest_s = [], math.inf
        for lane in lanes:
            wait_s = lane.fits_in_s(place)
            if turn == "retry":
                wait_s = max(wait_s, lane.retries_in_s())
            soonest_s = min(soonest_s, wait_s)
            if wait_s <= _NOW_S:
                fitting.append(lane)
        if not fitting:
            return None, soonest_s
        lane = fitting[0] if len(fitting) == 1 else self._best(fitting, avoid)
        if len(self.lanes) > 1:
            lane.fits_in_s(place)  # what it takes of a limit is what the lane it goes to expects
        lane.take(place, retry=turn == "retry")
        return lane, 0.0

    def _best(self, lanes: Sequence[Lane], avoid: Lane | None) -> Lane:
        """The one that wants its probe, else the fastest for its load; one not measured yet counts as fast."""
        lanes = [lane for lane in lanes if lane is not avoid] or lanes
        fast_s = min((lane.latency_s for lane in self.lanes if lane.latency_s), default=1.0)
        return min(
            lanes,
            key=lambda lane: (
                not lane.probing,
                (lane.latency_s or fast_s) * (1 + lane.counts.in_flight / max(lane.allowed, 1)),
            ),
        )

    @staticmethod
    def _is_too_large(waiter: _Waiter, lanes: Sequence[Lane]) -> bool:
        """Whether only limits keep it, and not the retry budget: that one is for others to pass."""
        return waiter.turn != "retry" or any(lane.retries_in_s() <= _NOW_S for lane in lanes)

    def _wake_in(self, wait_s: float) -> None:
        if wait_s == math.inf and self._timer is None:
            return
        loop = asyncio.get_running_loop()
        due = loop.time() + wait_s
        if self._timer is not None:
            if self._due <= due < math.inf:
                return  # that one comes first, and looks again
            self._timer.cancel()
            self._timer = None
        if due < math.inf:
            self._timer, self._due = loop.call_later(wait_s, self._fired), due

    def _fired(self) -> None:
        self._timer = None
        self._call()
