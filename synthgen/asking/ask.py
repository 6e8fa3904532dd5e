"""The one paid path: every request of a run, whatever it is for, passes `Asker.ask`.

In: a `Request`, the step it serves and the teacher's alias. Out: the `Reply` the journal holds for it, asked only if
it is not there. Order of the gates: journal (already bought?) -> lane (may it be sent now?) -> budget (is there
money?) -> intent durable -> send -> reply durable -> return. Guarantees: an answer is in the journal before anyone
sees it; a key is never in flight twice; a row waiting for its retry holds no place in the lane.
A request that cannot be sent in this session (lane stopped, budget reached, draining) raises `NotAsked`: its row
stays pending. Policy gate 1 has passed before an `Asker` exists.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from synthgen.asking.budget import Budget
from synthgen.asking.lanes import Lane, LaneStopped
from synthgen.asking.outcome import Answer, Gate, LaneStop, Outcome, Retry, RowFailure, Teacher
from synthgen.asking.prices import cost_usd
from synthgen.asking.retry import RetryPolicy
from synthgen.errors import BudgetReached, StorageError
from synthgen.journal import Circumstances, Entry, Journal, Reply, answer_entry, failure_entry, read_reply
from synthgen.recipe.model import Price, TeacherConfig
from synthgen.types import Request, TeacherIdentity, Usage

__all__ = ["Asker", "NotAsked", "TeacherSpec"]

# A lane whose first replies are all "bad request" has a recipe problem, not twenty row problems.
_FIRST_REPLIES = 20


class NotAsked(Exception):
    """The request was not sent, and is not answered: pending. `reason` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class TeacherSpec:
    """A teacher of a recipe, resolved: who it is, what it costs (None: unknown), how to reach it."""

    alias: str
    identity: TeacherIdentity
    config: TeacherConfig
    price: Price | None
    endpoint: str

    def worst_usd(self, request: Request) -> float:
        """The most `request` can cost; 0 without a price (then there is no cap to keep)."""
        if self.price is None:
            return 0.0
        bound = Usage(request.input_tokens_bound(), output_tokens=request.sampling.max_tokens or 0)
        return cost_usd(self.price, bound)


@dataclass(slots=True)
class _Attempt:
    """One request on its way."""

    request: Request
    key: str
    step: str
    spec: TeacherSpec
    lane: Lane
    tries: int = 0
    waits: int = 0
    sent_at: float = 0.0
    latency_s: float = 0.0

    def circumstances(self) -> Circumstances:
        return Circumstances(
            self.step, self.spec.alias, self.spec.endpoint, self.tries, self.sent_at, self.latency_s
        )


class Asker:
    """The asking half of a run. Use inside one event loop; `close` when done."""

    def __init__(
        self,
        journal: Journal,
        budget: Budget,
        specs: Mapping[str, TeacherSpec],
        connect: Callable[[TeacherSpec], Teacher],
        policy: RetryPolicy | None = None,
    ) -> None:
        self.journal = journal
        self.budget = budget
        self.policy = policy or RetryPolicy()
        self.lanes = {alias: _lane(spec) for alias, spec in specs.items()}
        self.sent = 0
        self._specs = specs
        self._connect = connect
        self._teachers: dict[str, Teacher] = {}
        self._open: dict[str, asyncio.Task[Reply]] = {}
        self._halted: str | None = None
        self._halt = asyncio.Event()
        self._failed_first: dict[str, int] = dict.fromkeys(specs, 0)

    @property
    def halted(self) -> str | None:
        """Why nothing more is sent in this session, or None."""
        return self._halted

    @property
    def exhausted(self) -> bool:
        """Whether admitting further rows is pointless: halted, out of budget, or no lane left."""
        stopped = all(lane.stopped for lane in self.lanes.values())
        return self._halted is not None or self.budget.reached is not None or stopped

    def halt(self, reason: str) -> None:
        """Send nothing more; what is in flight is paid and goes on. Waiting rows become pending at once."""
        if self._halted is None:
            self._halted = reason
            self._halt.set()

    async def ask(self, request: Request, *, step: str, alias: str) -> Reply:
        """The reply to `request`, from the journal or from the teacher.

        Raises:
            NotAsked: it is not in the journal and cannot be sent now.
        """
        key = request.key()
        stored = self.journal.index.reply(key)
        if stored is not None:
            return read_reply(stored)
        task = self._open.get(key)
        if task is None:
            attempt = _Attempt(request, key, step, self._specs[alias], self.lanes[alias])
            task = asyncio.ensure_future(self._ask(attempt))
            self._open[key] = task
            task.add_done_callback(lambda _: self._open.pop(key, None))
            try:
                return await task
            finally:
                task.cancel()  # no effect once done; a cancelled row cancels its request
        return await asyncio.shield(task)

    async def _ask(self, attempt: _Attempt) -> Reply:
        while True:
            reserved_usd, outcome = await self._send(attempt)
            wait_s = await self._settle(attempt, outcome, reserved_usd)
            if wait_s is None:
                entry = self.journal.index.reply(attempt.key)
                assert entry is not None  # `_settle` has just committed it
                return read_reply(entry)
            await self._pause(wait_s)

    async def _send(self, attempt: _Attempt) -> tuple[float, Outcome]:
        """One attempt, through lane and budget."""
        request, lane = attempt.request, attempt.lane
        tokens = request.input_tokens_bound() // 4 + (request.sampling.max_tokens or 0)
        self._refuse_if_halted()
        try:
            await lane.enter(tokens)
        except LaneStopped as stop:
            raise NotAsked(stop.reason) from stop
        used: int | None = None
        try:
            self._refuse_if_halted()
            reserved_usd = attempt.spec.worst_usd(request)
            await self._reserve(reserved_usd)
            try:
                self._refuse_if_halted()
                await self._commit({"k": attempt.key, "t": "I", "usd": reserved_usd})
            except NotAsked:
                self.budget.settle(reserved_usd, 0.0)
                raise
            attempt.tries += 1
            attempt.sent_at = time.time()
            started = time.perf_counter()
            self.sent += 1
            outcome = await self._teacher(attempt.spec).answer(request)
            attempt.latency_s = time.perf_counter() - started
            if isinstance(outcome, Answer) and outcome.completion.usage:
                used = outcome.completion.usage.input_tokens + outcome.completion.usage.output_tokens
        finally:
            lane.leave(reserved=tokens, used=used)
        return reserved_usd, outcome

    async def _settle(self, attempt: _Attempt, outcome: Outcome, reserved_usd: float) -> float | None:
        """Store what the attempt brought; seconds to wait before the next one, or None when it is over."""
        lane, key = attempt.lane, attempt.key
        match outcome:
            case Answer(completion):
                cost = self._cost(attempt.spec, completion.usage, reserved_usd)
                lane.succeeded()
                lane.counts.answered += 1
                lane.counts.output_tokens += completion.usage.output_tokens if completion.usage else 0
                self._failed_first[attempt.spec.alias] = -1
                # Settled before stored: if the disk fails now, the money is spent all the same.
                self.budget.settle(reserved_usd, cost or 0.0)
                await self._commit(answer_entry(key, completion, cost, attempt.circumstances()))
                return None
            case RowFailure(reason, message):
                self.budget.settle(reserved_usd, 0.0)
                await self._store_failure(attempt, reason, message)
                return None
            case LaneStop(reason, message):
                self._drop(key, reserved_usd, reason, lost=False)
                lane.stop(reason, message)
                raise NotAsked(reason)
            case Gate(reason, wait_s, exhausted):
                self._drop(key, reserved_usd, reason, lost=False)
                lane.counts.rate_limited += 1
                lane.was_limited(wait_s, exhausted=exhausted)
                attempt.tries -= 1
                attempt.waits += 1
                self._give_up_if_dead(lane, attempt.spec, f"{reason}: no answer")
                return self.policy.backoff_s(min(attempt.waits, 6), wait_s)
            case Retry():
                return await self._settle_retry(attempt, outcome, reserved_usd)

    async def _settle_retry(self, attempt: _Attempt, outcome: Retry, reserved_usd: float) -> float | None:
        lane = attempt.lane
        lane.counts.errors += 1
        if outcome.body is not None:
            body = outcome.body[: 1 << 20].decode(errors="replace")
            self.budget.settle(reserved_usd, reserved_usd)
            self._append(
                {"k": attempt.key, "t": "X", "reason": outcome.reason, "usd": reserved_usd, "body": body}
            )
        else:
            self._drop(attempt.key, reserved_usd, outcome.reason, lost=outcome.maybe_paid)
        if self.policy.exhausted(attempt.tries):
            if lane.last_success > attempt.sent_at - time.time() + lane.clock() - 60:
                # Others got answers in the last minute: the trouble is this request, not the server.
                await self._store_failure(attempt, f"gave_up:{outcome.reason}", outcome.message)
                return None
            self._give_up_if_dead(lane, attempt.spec, f"{outcome.reason}: {outcome.message}")
        return self.policy.backoff_s(attempt.tries, outcome.wait_s)

    async def _store_failure(self, attempt: _Attempt, reason: str, message: str) -> None:
        alias = attempt.spec.alias
        await self._commit(failure_entry(attempt.key, reason, message, attempt.circumstances()))
        if self._failed_first[alias] >= 0:
            self._failed_first[alias] += 1
            if self._failed_first[alias] >= _FIRST_REPLIES:
                attempt.lane.stop(
                    "bad_requests", f"the first {_FIRST_REPLIES} requests were all refused: {message}"
                )

    def _give_up_if_dead(self, lane: Lane, spec: TeacherSpec, what: str) -> None:
        silent_s = lane.clock() - lane.last_success
        if silent_s > spec.config.give_up_after_s:
            lane.stop("given_up", f"no success for {silent_s:.0f} s; last: {what}")
            raise NotAsked("given_up")

    def _drop(self, key: str, reserved_usd: float, reason: str, *, lost: bool) -> None:
        """Close an attempt that brought no answer; a lost one keeps its money."""
        self.budget.settle(reserved_usd, reserved_usd if lost else 0.0)
        self._append(
            {"k": key, "t": "A", "reason": reason, "lost": lost, "usd": reserved_usd if lost else 0.0}
        )

    @staticmethod
    def _cost(spec: TeacherSpec, usage: Usage | None, reserved_usd: float) -> float | None:
        """What a reply cost; a priced teacher that reports no usage costs its reservation, the upper bound."""
        if spec.price is None:
            return None
        return reserved_usd if usage is None else cost_usd(spec.price, usage)

    async def _reserve(self, usd: float) -> None:
        try:
            await self.budget.reserve(usd)
        except BudgetReached as error:
            raise NotAsked("budget") from error

    async def _commit(self, entry: Entry) -> None:
        try:
            await self.journal.commit(entry)
        except StorageError as error:
            self.halt("storage")
            raise NotAsked("storage") from error

    def _append(self, entry: Entry) -> None:
        try:
            self.journal.append(entry)
        except StorageError as error:
            self.halt("storage")
            raise NotAsked("storage") from error

    def _refuse_if_halted(self) -> None:
        if self._halted:
            raise NotAsked(self._halted)

    async def _pause(self, wait_s: float) -> None:
        try:
            async with asyncio.timeout(wait_s):
                await self._halt.wait()
        except TimeoutError:
            return

    def _teacher(self, spec: TeacherSpec) -> Teacher:
        if spec.alias not in self._teachers:
            self._teachers[spec.alias] = self._connect(spec)
        return self._teachers[spec.alias]

    async def close(self) -> None:
        """Release the teachers; nothing may be in flight."""
        for teacher in self._teachers.values():
            await teacher.close()


def _lane(spec: TeacherSpec) -> Lane:
    limits = spec.config.limits
    return Lane(spec.alias, limits.concurrency, rpm=limits.rpm, tpm=limits.tpm)
