"""The one paid path: every request of a run, whatever it is for, passes `Asker.ask`.

In: a `Request`, the step it serves and the teacher's alias. Out: the `Reply` the journal holds for it, asked only if
it is not there. Order of the gates: journal (already bought?) -> queue and lane (may it be sent now?) -> budget (is there
money?) -> intent durable -> send -> reply durable -> return. Guarantees: an answer is in the journal before anyone
sees it; a key is never in flight twice; a row waiting for its retry holds no place in the lane.
A request that cannot be sent in this session (lane stopped, budget reached, draining) raises `NotAsked`: its row
stays pending. A request fails for good when the teacher refuses it, or when its tries are used up while others got
answers; a server that answers nobody makes no failures. Policy gate 1 has passed before an `Asker` exists.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from synthgen.asking.budget import Budget
from synthgen.asking.lanes import Lane, LaneStopped, Place, Queue, Turn
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
_KEPT_BODY_BYTES = 1 << 20


class NotAsked(Exception):
    """The request was not sent, and is not answered: pending. `reason` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class TeacherSpec:
    """A teacher of a recipe, resolved: who it is, what it costs (None: unknown), how to reach it.

    `pool` holds the same teacher once for each of its hosts where it has several, with an alias of its own; else
    nothing.
    """

    alias: str
    identity: TeacherIdentity
    config: TeacherConfig
    price: Price | None
    endpoint: str
    pool: tuple["TeacherSpec", ...] = ()

    @property
    def hosts(self) -> tuple["TeacherSpec", ...]:
        """One spec for each endpoint; what is sent goes to one of them."""
        return self.pool or (self,)

    def worst_usd(self, request: Request) -> float:
        """The most `request` can cost; 0 without a price (then there is no cap to keep)."""
        if self.price is None:
            return 0.0
        bound = Usage(request.input_tokens_bound(), output_tokens=request.sampling.max_tokens or 0)
        return cost_usd(self.price, bound)


@dataclass(slots=True)
class _Attempt:
    """One request on its way.

    `tries` are sends that count against it, `backoffs` those after which it had to wait: `wait_s`, the last time,
    `with_lane` where nobody named that time: it need not wait longer than the lane does.
    """

    request: Request
    key: str
    step: str
    spec: TeacherSpec
    queue: Queue
    lane: Lane | None = None  # that of the last send
    endpoint: str = ""
    turn: Turn = "new"
    tries: int = 0
    backoffs: int = 0
    wait_s: float = 0.0
    with_lane: bool = False
    failing_since: float | None = None
    maybe_paid: int = 0  # tries that may have been billed without bringing an answer
    sent_at: float = 0.0
    latency_s: float = 0.0

    def circumstances(self) -> Circumstances:
        return Circumstances(
            self.step, self.spec.alias, self.endpoint, self.tries, self.sent_at, self.latency_s
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
        self._hosts = {host.alias: host for spec in specs.values() for host in spec.hosts}
        self.lanes = {name: _lane(host) for name, host in self._hosts.items()}
        self.queues = {
            alias: Queue([self.lanes[host.alias] for host in spec.hosts]) for alias, spec in specs.items()
        }
        self.sent = 0
        self._specs = specs
        self._connect = connect
        self._teachers: dict[str, Teacher] = {}
        self._open: dict[str, asyncio.Event] = {}  # keys in flight, set when they are over
        self._halted: str | None = None
        self._first_refusals = dict.fromkeys(self.lanes, 0)  # of lanes that have not answered yet

    @property
    def halted(self) -> str | None:
        """Why nothing more is sent in this session, or None."""
        return self._halted

    def exhausted(self, aliases: Iterable[str]) -> bool:
        """Whether nothing more can be sent to these teachers: halted, out of budget, or stopped."""
        return self._halted is not None or all(self.queues[alias].ended for alias in aliases)

    def halt(self, reason: str) -> None:
        """Send nothing more; what is in flight is paid and goes on. Waiting rows become pending at once."""
        if self._halted is None:
            self._halted = reason
            for queue in self.queues.values():
                queue.end(reason, reason)

    async def ask(self, request: Request, *, step: str, alias: str) -> Reply:
        """The reply to `request`, from the journal or from the teacher.

        Raises:
            NotAsked: it is not in the journal and cannot be sent now.
        """
        key = request.key()
        while True:
            stored = self.journal.index.reply(key)
            if stored is not None:
                return read_reply(stored)
            if key not in self._open:
                break
            await self._open[key].wait()
        self._open[key] = over = asyncio.Event()
        try:
            return await self._ask(_Attempt(request, key, step, self._specs[alias], self.queues[alias]))
        except LaneStopped as stop:
            raise NotAsked(stop.reason) from stop
        finally:
            del self._open[key]
            over.set()

    async def _ask(self, attempt: _Attempt) -> Reply:
        while True:
            try:
                reserved_usd, outcome = await self._send(attempt)
            except LaneStopped:
                attempt.queue.require_open()
                continue  # its lane stopped while it waited for money: there are others
            entry = self._settle(attempt, outcome, reserved_usd)
            if entry is not None:
                await self._commit(entry)
                return read_reply(entry)
            await attempt.queue.wait_outside(attempt.wait_s, with_lane=attempt.with_lane)

    async def _send(self, attempt: _Attempt) -> tuple[float, Outcome]:
        """One attempt, through lane and budget."""
        request, queue = attempt.request, attempt.queue
        lane, place = await queue.enter(
            request.input_tokens_bound() // 4,
            request.sampling.max_tokens or 0,
            step=attempt.step,
            turn=attempt.turn,
            avoid=attempt.lane,
        )
        attempt.lane, attempt.endpoint = lane, self._hosts[lane.name].endpoint
        used: Usage | None = None
        try:
            reserved_usd = attempt.spec.worst_usd(request)
            await self._reserve(reserved_usd)
            outcome = await self._send_reserved(attempt, lane, reserved_usd)
            self._learn(attempt, outcome, lane, place)  # before the place is free for the next
            match outcome:
                case Answer(completion):
                    used = completion.usage
                case Gate() | RowFailure() | LaneStop():
                    used = Usage()
        finally:
            queue.leave(lane, place, used)
        return reserved_usd, outcome

    async def _send_reserved(self, attempt: _Attempt, lane: Lane, reserved_usd: float) -> Outcome:
        """One attempt whose money is reserved: the intent first, then the wire."""
        sent = False
        try:
            lane.require_open()
            await self._commit({"k": attempt.key, "t": "I", "usd": reserved_usd})
            sent = True
            self.sent += 1
            attempt.tries += 1
            attempt.sent_at = time.time()
            started = time.perf_counter()
            outcome = await self._teacher(lane.name).answer(attempt.request)
        except (LaneStopped, NotAsked):
            self.budget.settle(reserved_usd, 0.0)
            raise
        except asyncio.CancelledError:
            # Out of the wire the answer may be on its way; out of the commit the intent is, but nothing else.
            self._drop(attempt.key, reserved_usd, "cancelled", lost=sent)
            raise
        attempt.latency_s = time.perf_counter() - started
        return outcome

    def _learn(self, attempt: _Attempt, outcome: Outcome, lane: Lane, place: Place) -> None:
        """What an outcome says of the lane, and how long this request has to wait."""
        match outcome:
            case Answer(completion, limits):
                lane.saw(place, limits)
                lane.succeeded(place, completion.usage)
                lane.counts.output_tokens += completion.usage.output_tokens if completion.usage else 0
                self._first_refusals.pop(lane.name, None)
            case RowFailure(_, message):
                lane.refused(place)
                self._note_refusal(attempt.queue, lane, message)
            case LaneStop(reason, message):
                attempt.wait_s = 0.0  # another lane may take it
                attempt.turn = "gated"
                attempt.queue.stop(lane, reason, message)
            case Gate(reason, wait_s, exhausted, limits):
                attempt.tries -= 1
                attempt.backoffs += 1
                attempt.wait_s = self.policy.backoff_s(attempt.backoffs, wait_s)
                if attempt.queue.has_other(lane):
                    attempt.wait_s = min(attempt.wait_s, self.policy.backoff_s(attempt.backoffs))
                attempt.with_lane = not wait_s
                attempt.turn = "gated"
                lane.saw(place, limits)
                lane.was_limited(place, wait_s, exhausted=exhausted, overloaded=reason == "overloaded")
                self._give_up_if_dead(attempt, reason)
            case Retry(reason, message, wait_s):
                attempt.turn = "gated" if reason == "connect" else "retry"
                if reason == "connect":
                    attempt.tries -= 1  # nobody was reached: that says nothing about the request
                elif attempt.failing_since is None:
                    attempt.failing_since = lane.clock()
                attempt.maybe_paid += outcome.maybe_paid or outcome.body is not None
                attempt.backoffs += 1
                attempt.wait_s = self.policy.backoff_s(attempt.backoffs, wait_s)
                attempt.with_lane = False
                lane.failed(place, f"{reason}: {message}")
                self._give_up_if_dead(attempt, f"{reason}: {message}")

    def _settle(self, attempt: _Attempt, outcome: Outcome, reserved_usd: float) -> Entry | None:
        """Book what the attempt cost; the entry to store where it ends the request, None where that goes on."""
        key = attempt.key
        match outcome:
            case Answer(completion):
                cost = self._cost(attempt.spec, completion.usage, reserved_usd)
                # Settled before stored: if the disk fails now, the money is spent all the same.
                self.budget.settle(reserved_usd, cost or 0.0)
                return answer_entry(key, completion, cost, attempt.circumstances())
            case RowFailure(reason, message):
                self._drop(key, reserved_usd, reason, lost=False)
                return failure_entry(key, reason, message, attempt.circumstances())
            case LaneStop(reason) | Gate(reason):
                self._drop(key, reserved_usd, reason, lost=False)
                return None
            case Retry(reason, message, body=None, maybe_paid=lost):
                self._drop(key, reserved_usd, reason, lost=lost)
            case Retry(reason, message, body=bytes(body)):
                self.budget.settle(reserved_usd, reserved_usd)
                text = body[:_KEPT_BODY_BYTES].decode(errors="replace")
                self._append({"k": key, "t": "X", "reason": reason, "usd": reserved_usd, "body": text})
        if reason == "connect" or not self._is_hopeless(attempt):
            return None
        return failure_entry(key, f"gave_up:{reason}", message, attempt.circumstances())

    def _is_hopeless(self, attempt: _Attempt) -> bool:
        """Whether the tries are used up while others got answers: the trouble is this request, not the server.

        Tries that may have been billed end it whoever else got answers: it must not be bought without limit.
        """
        if attempt.maybe_paid and self.policy.exhausted(attempt.maybe_paid):
            return True
        since = attempt.failing_since
        return (
            since is not None and self.policy.exhausted(attempt.tries) and attempt.queue.last_success > since
        )

    def _note_refusal(self, queue: Queue, lane: Lane, message: str) -> None:
        if lane.name in self._first_refusals:
            self._first_refusals[lane.name] += 1
            if self._first_refusals[lane.name] >= _FIRST_REPLIES:
                said = f"the first {_FIRST_REPLIES} requests were all refused: {message}"
                queue.stop(lane, "bad_requests", said)

    @staticmethod
    def _give_up_if_dead(attempt: _Attempt, what: str) -> None:
        queue, silent_s = attempt.queue, attempt.queue.silent_s
        if silent_s > attempt.spec.config.give_up_after_s:
            for lane in queue.lanes:
                queue.stop(lane, "given_up", f"no success for {silent_s:.0f} s; last: {what}")

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
            for alias, spec in self._specs.items():
                if spec.price is None or spec.price.input or spec.price.output:
                    self.queues[alias].end("budget", str(error))
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

    def _teacher(self, name: str) -> Teacher:
        if name not in self._teachers:
            self._teachers[name] = self._connect(self._hosts[name])
        return self._teachers[name]

    async def close(self) -> None:
        """Release the teachers; nothing may be in flight."""
        for teacher in self._teachers.values():
            await teacher.close()


def _lane(spec: TeacherSpec) -> Lane:
    provider = spec.config.provider
    return Lane(
        spec.alias,
        spec.config.limits,
        counting="uncached" if provider == "anthropic" else "all",
        crowding="queued" if provider in ("vllm", "local") else "refused",
    )
