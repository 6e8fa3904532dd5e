"""Simulated time, and servers in it: hours of traffic in seconds, the same every time."""

import asyncio
import math
import random
import selectors
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from synthgen.asking.lanes import Lane, Place, Queue, Turn
from synthgen.asking.outcome import SeenLimit
from synthgen.recipe.model import Limits
from synthgen.types import Usage

T = TypeVar("T")
START = 1000.0


class SimulatedTime(selectors.SelectSelector):
    """Where nothing is ready, jumps to the next timer instead of waiting for it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.jumps = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout:
            self.now += timeout
            self.jumps += 1
        return ready


class Simulation(asyncio.SelectorEventLoop):
    """An event loop whose clock is simulated."""

    def __init__(self) -> None:
        self.simulated = SimulatedTime()
        super().__init__(self.simulated)

    def time(self) -> float:
        return self.simulated.now


def simulate(story: Coroutine[None, None, T]) -> T:
    with asyncio.Runner(loop_factory=Simulation) as runner:
        return runner.run(story)


def now() -> float:
    return asyncio.get_running_loop().time()


class OneLane(Lane):
    """A lane with a queue of its own, as most teachers have it. `patience_s`: how long each answer is waited for."""

    def __init__(
        self,
        limits: Limits,
        *,
        counting: Literal["all", "uncached"] = "all",
        crowding: Literal["refused", "queued"] = "refused",
        patience_s: float = math.inf,
    ) -> None:
        super().__init__("big", limits, counting=counting, crowding=crowding, clock=now)
        self.lost = 0
        self.patience_s = patience_s
        self.queue = Queue([self])

    async def enter(
        self, input_tokens: int, max_tokens: int = 0, *, step: str = "", turn: Turn = "new"
    ) -> Place:
        _, place = await self.queue.enter(input_tokens, max_tokens, step=step, turn=turn)
        place.patience_s = self.patience_s
        return place

    def leave(self, place: Place, usage: Usage | None = None) -> None:
        self.queue.leave(self, place, usage)

    async def wait_outside(self, wait_s: float, *, with_lane: bool = False) -> None:
        await self.queue.wait_outside(wait_s, with_lane=with_lane)

    def stop(self, reason: str, message: str) -> None:
        self.queue.stop(self, reason, message)

    def end(self, reason: str, message: str) -> None:
        self.queue.end(reason, message)


@dataclass
class Server:
    """Answers after `latency_s` times a number drawn from `spread`, for as long as no limit stands against it.

    `rpm` and `tpm` are sliding windows; tokens count when the answer is complete. `places`: refuses more in flight.
    `knee`: serves as many at full speed, and more of them as much slower. `down`: refuses everybody at these times.
    `tells` its request limit and what remains of it with every reply.
    """

    latency_s: float = 0.5
    rpm: int | None = None
    tpm: int | None = None
    places: int | None = None
    knee: int | None = None
    down: Callable[[float], bool] = lambda at: False
    retry_after_s: float | None = None
    tells: bool = False
    input_tokens: int = 50
    output_tokens: tuple[int, int] = (100, 100)
    spread: tuple[float, float] = (0.6, 1.4)
    seed: int = 0
    in_flight: int = 0
    answered: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    _random: random.Random = field(default_factory=random.Random)
    _requests: deque[float] = field(default_factory=deque)
    _tokens: deque[tuple[float, int]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self._random.seed(self.seed)

    def remaining(self) -> float | None:
        """Of the request limit, in this window."""
        while self._requests and self._requests[0] <= now() - 60:
            self._requests.popleft()
        return None if self.rpm is None else self.rpm - len(self._requests)

    def _refuses(self) -> bool:
        while self._tokens and self._tokens[0][0] <= now() - 60:
            self._tokens.popleft()
        return (
            self.down(now())
            or self.remaining() == 0
            or (self.places is not None and self.in_flight >= self.places)
            or (self.tpm is not None and sum(tokens for _, tokens in self._tokens) >= self.tpm)
        )

    async def serve(self) -> tuple[Usage | None, tuple[SeenLimit, ...]]:
        """The usage of an answer, or None for a 429; and what the headers say."""
        if self._refuses():
            self.refused.append(now())
            await asyncio.sleep(0.01)
            return None, self._headers()
        self._requests.append(now())
        headers = self._headers()
        output = self._random.randint(*self.output_tokens)
        usage = Usage(self.input_tokens, output_tokens=output)
        self.in_flight += 1
        slower = max(1.0, self.in_flight / self.knee) if self.knee else 1.0
        usual = sum(self.output_tokens) / 2
        try:
            await asyncio.sleep(self.latency_s * self._random.uniform(*self.spread) * slower * output / usual)
        finally:
            self.in_flight -= 1
        self._tokens.append((now(), usage.input_tokens + output))
        self.answered.append(now())
        return usage, headers

    def _headers(self) -> tuple[SeenLimit, ...]:
        remaining = self.remaining()
        return (SeenLimit("requests", self.rpm, remaining, 60.0),) if self.tells and self.rpm else ()

    def rate(self, start_s: float, end_s: float) -> float:
        """Answers a second in this part of the simulation."""
        return sum(START + start_s <= at < START + end_s for at in self.answered) / (end_s - start_s)


async def drive(
    lane: OneLane,
    server: Server,
    *,
    for_s: float,
    rows: int = 2000,
    max_tokens: int = 0,
    looks_like: int | None = None,
    timeout_s: float | None = None,
) -> None:
    """What the asking loop does with its lane: many rows, each sent until it is answered.

    `looks_like`: the tokens a prompt seems to have; without, those it has. What the server has not answered after
    `timeout_s` is given up, and lost.
    """
    backoff = random.Random(1)
    estimate = server.input_tokens if looks_like is None else looks_like

    async def row() -> None:
        tries = 0
        while True:
            place = await lane.enter(estimate, max_tokens)
            try:
                async with asyncio.timeout(timeout_s):
                    usage, headers = await server.serve()
            except TimeoutError:
                lane.lost += 1
                lane.failed(place, "timeout", timed_out=True)
                lane.leave(place)
                tries += 1
                await lane.wait_outside(backoff.uniform(0, min(60, 2**tries)))
                continue
            lane.saw(place, headers, refused=usage is None)
            if usage:
                lane.succeeded(place, usage)
                lane.leave(place, usage)
                return
            named = server.retry_after_s
            lane.was_limited(place, named)
            lane.leave(place, Usage())
            tries += 1
            await lane.wait_outside(named or backoff.uniform(0, min(60, 2**tries)), with_lane=not named)

    async def rows_in_turn() -> None:
        while now() < START + for_s:
            await row()

    workers = [asyncio.ensure_future(rows_in_turn()) for _ in range(rows)]
    await asyncio.sleep(for_s)
    for worker in workers:
        worker.cancel()
    await asyncio.gather(*workers, return_exceptions=True)
