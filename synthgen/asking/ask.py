"""The one paid path: every request of a run, whatever it is for, passes `Asker.ask`.

In: a `Request`, the step it serves and the teacher's alias. Out: the `Reply` the journal holds for it, asked only if
it is not there. Order of the gates: journal (already bought?) -> queue and lane (may it be sent now?) -> budget (is there
money?) -> intent durable -> send -> reply durable -> return. Guarantees: an answer is in the journal before anyone
sees it; a key is never in flight twice; a row waiting for its retry holds no place in the lane. Samples of one question
go into one request where the teacher can answer so: it has an intent a key, and its bill is shared among the keys.
A request that cannot be sent in this session (lane stopped, budget reached, draining) raises `NotAsked`: its row
stays pending. A request fails for good when the teacher refuses it, or when its tries are used up while others got
answers; a server that answers nobody makes no failures. Policy gate 1 has passed before an `Asker` exists.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from synthgen.asking.budget import Budget
from synthgen.asking.lanes import Lane, LaneStopped, Place, Queue, Turn
from synthgen.asking.outcome import (
    Answer,
    Gate,
    LaneStop,
    NotAsked,
    Outcome,
    RefusedTogether,
    Retry,
    RowFailure,
    Teacher,
)
from synthgen.asking.prices import cost_usd
from synthgen.asking.retry import MAX_WAIT_S, RetryPolicy
from synthgen.asking.samples import Samples
from synthgen.asking.structured import SchemaWatch
from synthgen.errors import BudgetReached, StorageError
from synthgen.journal import Circumstances, Entry, Journal, Reply, answer_entry, failure_entry, read_reply
from synthgen.recipe.model import Price, TeacherConfig
from synthgen.types import JSONValue, Request, TeacherIdentity, Usage

__all__ = ["FIRST_REPLIES", "KEPT_BODY_BYTES", "Asker", "BatchPath", "NotAsked", "TeacherSpec"]

# A lane whose first replies are all "bad request" has a recipe problem, not twenty row problems.
FIRST_REPLIES = 20
KEPT_BODY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class TeacherSpec:
    """A teacher of a recipe, resolved: who it is, what it costs in this mode (None: unknown), how to reach it.

    `pool` holds the same teacher once for each of its hosts where it has several, with an alias of its own; else
    nothing.
    """

    alias: str
    identity: TeacherIdentity
    config: TeacherConfig
    price: Price | None
    endpoint: str
    pool: tuple["TeacherSpec", ...] = ()
    mode: Literal["live", "batch"] = "live"

    @property
    def hosts(self) -> tuple["TeacherSpec", ...]:
        """One spec for each endpoint; what is sent goes to one of them."""
        return self.pool or (self,)

    def worst_usd(self, request: Request) -> float:
        """The most `request` can cost; 0 without a price (then there is no cap to keep)."""
        return self.worst_shares(request, 1)[0]

    def worst_shares(self, request: Request, samples: int) -> list[float]:
        """The most each of `samples` answers to one request can cost; the first carries the input."""
        if self.price is None:
            return [0.0] * samples
        output_tokens = request.sampling.max_tokens or 0
        first = cost_usd(self.price, Usage(request.input_tokens_bound(), output_tokens=output_tokens))
        return [first] + [cost_usd(self.price, Usage(output_tokens=output_tokens))] * (samples - 1)


class BatchPath(Protocol):
    """The way of requests that are not sent one by one (`synthgen.asking.batch`)."""

    def takes(self, key: str, spec: TeacherSpec) -> bool:
        """Whether this request goes, or has gone, in a batch."""
        ...

    async def ask(self, request: Request, key: str, step: str, spec: TeacherSpec) -> Entry | None:
        """The journaled entry of its reply; None if it has to be asked live after all. Raises `NotAsked`."""
        ...

    def holds(self, key: str) -> bool:
        """Whether this request is in a batch that is not over."""
        ...

    def moved(self) -> None:
        """A request has come or gone."""
        ...

    def halt(self, reason: str) -> None:
        """Submit nothing more; requests that wait are pending. What is at a vendor stays there."""
        ...


@dataclass(slots=True)
class _Attempt:
    """One request on its way; several `requests` are samples of one question, sent as one.

    `tries` are sends that count against it, `backoffs` those after which it had to wait: `wait_s`, the last time,
    `with_lane` where nobody named that time: it need not wait longer than the lane does.
    """

    requests: Sequence[Request]
    keys: Sequence[str]
    step: str
    spec: TeacherSpec
    queue: Queue
    lane: Lane | None = None  # that of the last send
    endpoint: str = ""
    turn: Turn = "new"
    tries: int = 0
    backoffs: int = 0
    wait_s: float = 0.0
    waited_s: float = 0.0  # between the last two sends, in the queue included
    with_lane: bool = False
    failing_since: float | None = None
    maybe_paid: int = 0  # tries that may have been billed without bringing an answer
    sent_at: float = 0.0
    latency_s: float = 0.0

    @property
    def request(self) -> Request:
        """What is sent."""
        return self.requests[0]

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
        self.batches: BatchPath | None = None
        self._specs = specs
        self._connect = connect
        self._teachers: dict[str, Teacher] = {}
        # Keys in flight, and what is set when they are over: of most nobody ever waits for that.
        self._open: dict[str, asyncio.Event | None] = {}
        self._halted: str | None = None
        self._first_refusals = dict.fromkeys(self.lanes, 0)  # of lanes that have not answered yet
        self.schemas = SchemaWatch()
        self._samples = Samples(self.ask, self._ask_new, self._is_missing)

    @property
    def halted(self) -> str | None:
        """Why nothing more is sent in this session, or None."""
        return self._halted

    @property
    def open_requests(self) -> int:
        """Requests somebody is waiting for."""
        return len(self._open)

    def exhausted(self, aliases: Iterable[str]) -> bool:
        """Whether nothing more can be sent to these teachers: halted, out of budget, or stopped."""
        return self._halted is not None or all(self.queues[alias].ended for alias in aliases)

    def halt(self, reason: str) -> None:
        """Send nothing more; what is in flight is paid and goes on. Waiting rows become pending at once."""
        if self._halted is None:
            self._halted = reason
            for queue in self.queues.values():
                queue.end(reason, reason)
            self.budget.send_away(reason)
            if self.batches is not None:
                self.batches.halt(reason)

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
            over = self._open[key]
            if over is None:
                over = self._open[key] = asyncio.Event()
            await over.wait()
        return (await self._ask_new([request], [key], step, alias))[0]

    async def ask_samples(
        self, requests: Sequence[Request], *, step: str, alias: str
    ) -> list[Reply | NotAsked]:
        """The replies to samples of one question, with as few requests as the teacher allows.

        The requests differ in `sample` alone, in rising order. `NotAsked` stands in the place of each that `ask` would
        raise it for.
        """
        spec, seeded = self._specs[alias], requests[0].sampling.seed is not None
        most = 1 if spec.mode == "batch" else spec.config.most_samples(seeded=seeded)
        return await self._samples.ask(requests, most, step=step, alias=alias)

    def _is_missing(self, key: str) -> bool:
        elsewhere = self.batches is not None and self.batches.holds(key)
        return key not in self._open and key not in self.journal.index and not elsewhere

    async def _ask_new(
        self, requests: Sequence[Request], keys: Sequence[str], step: str, alias: str
    ) -> list[Reply]:
        """The replies to requests that nobody has asked: all, or as many of the first as the teacher gave."""
        self._open |= dict.fromkeys(keys)
        try:
            spec = self._specs[alias]
            if self.batches is not None and self.batches.takes(keys[0], spec):
                entry = await self.batches.ask(requests[0], keys[0], step, spec)
                if entry is not None:
                    return [read_reply(entry)]
            return await self._ask(_Attempt(requests, keys, step, spec, self.queues[alias]))
        except LaneStopped as stop:
            raise NotAsked(stop.reason) from stop
        finally:
            for key in keys:
                if (over := self._open.pop(key)) is not None:
                    over.set()
            if self.batches is not None:
                self.batches.moved()

    async def _ask(self, attempt: _Attempt) -> list[Reply]:
        while True:
            try:
                reserved, outcome = await self._send(attempt)
            except LaneStopped:
                attempt.queue.require_open()
                continue  # its lane stopped while it waited for money: there are others
            entries = self._settle(attempt, outcome, reserved)
            if entries:
                await self.commit(*entries)
                return [read_reply(entry) for entry in entries]
            await attempt.queue.wait_outside(attempt.wait_s, with_lane=attempt.with_lane)

    async def _send(self, attempt: _Attempt) -> tuple[list[float], Outcome]:
        """One attempt, through lane and budget; what was reserved for each key."""
        request, queue, samples = attempt.request, attempt.queue, len(attempt.keys)
        lane, place = await queue.enter(
            request.input_tokens_bound() // 4,
            samples * (request.sampling.max_tokens or 0),
            step=attempt.step,
            turn=attempt.turn,
            avoid=attempt.lane,
        )
        attempt.lane, attempt.endpoint = lane, self._hosts[lane.name].endpoint
        used: Usage | None = None
        try:
            reserved = attempt.spec.worst_shares(request, samples)
            await self.reserve(sum(reserved), together=samples > 1)
            outcome = await self._send_reserved(attempt, lane, reserved)
            self._learn(attempt, outcome, lane, place)  # before the place is free for the next
            match outcome:
                case Answer():
                    used = outcome.usage
                case Gate() | RowFailure() | LaneStop():
                    used = Usage()
        finally:
            queue.leave(lane, place, used)
        return reserved, outcome

    async def _send_reserved(self, attempt: _Attempt, lane: Lane, reserved: Sequence[float]) -> Outcome:
        """One attempt whose money is reserved: the intents first, then the wire."""
        sent = False
        try:
            lane.require_open()
            shares = zip(attempt.keys, reserved, strict=True)
            await self.commit(*(_entry(key, "I", usd) for key, usd in shares))
            sent = True
            self.sent += 1
            attempt.tries += 1
            attempt.waited_s = time.time() - attempt.sent_at - attempt.latency_s if attempt.sent_at else 0.0
            attempt.sent_at = time.time()
            started = time.perf_counter()
            outcome = await self._answer(attempt, lane)
        except (LaneStopped, NotAsked):
            self.budget.settle(sum(reserved), 0.0)
            raise
        except asyncio.CancelledError:
            # Out of the wire the answer may be on its way; out of the commit the intent is, but nothing else.
            self._drop(attempt.keys, reserved, "cancelled", lost=sent)
            raise
        attempt.latency_s = time.perf_counter() - started
        return outcome

    def _learn(self, attempt: _Attempt, outcome: Outcome, lane: Lane, place: Place) -> None:
        """What an outcome says of the lane, and how long this request has to wait."""
        match outcome:
            case Answer(limits=limits):
                usage = outcome.usage
                lane.saw(place, limits)
                lane.succeeded(place, usage)
                lane.counts.output_tokens += usage.output_tokens if usage else 0
                self._watch_schema(attempt, outcome, lane)
                self._first_refusals.pop(lane.name, None)
            case RowFailure(_, message):
                lane.refused(place)
                if len(attempt.keys) == 1:
                    self._note_refusal(attempt.queue, lane, message)
            case LaneStop(reason, message):
                attempt.wait_s = 0.0  # another lane may take it
                attempt.turn = "gated"
                attempt.queue.stop(lane, reason, message)
            case Gate(reason, wait_s, exhausted, limits):
                attempt.tries -= 1
                attempt.backoffs += 1
                attempt.wait_s = self.policy.backoff_s(attempt.backoffs, wait_s, last_s=attempt.waited_s)
                if attempt.queue.has_other(lane):
                    attempt.wait_s = min(attempt.wait_s, self.policy.backoff_s(attempt.backoffs))
                attempt.with_lane = not wait_s
                attempt.turn = "gated"
                lane.saw(place, limits, refused=True)
                pause_s = min(wait_s, MAX_WAIT_S) if wait_s else None
                lane.was_limited(place, pause_s, exhausted=exhausted, overloaded=reason == "overloaded")
                self._give_up_if_dead(attempt, reason)
                self._give_up_if_far(attempt, lane, place, wait_s)
            case Retry(reason, message, wait_s):
                attempt.turn = "gated" if reason == "connect" else "retry"
                if reason == "connect":
                    attempt.tries -= 1  # nobody was reached: that says nothing about the request
                elif attempt.failing_since is None:
                    attempt.failing_since = lane.clock()
                attempt.maybe_paid += outcome.maybe_paid or outcome.body is not None
                attempt.backoffs += 1
                attempt.wait_s = self.policy.backoff_s(attempt.backoffs, wait_s, last_s=attempt.waited_s)
                attempt.with_lane = False
                lane.failed(place, f"{reason}: {message}")
                self._give_up_if_dead(attempt, f"{reason}: {message}")
                self._give_up_if_far(attempt, lane, place, wait_s)

    def _settle(self, attempt: _Attempt, outcome: Outcome, reserved: Sequence[float]) -> list[Entry]:
        """Book what the attempt cost; the entries to store where it ends, none where it goes on.

        Raises:
            RefusedTogether: several samples in one request were refused.
        """
        keys, reserved_usd = attempt.keys, sum(reserved)
        match outcome:
            case Answer():
                return self._answers(attempt, outcome, reserved)
            case RowFailure(reason, message):
                self._drop(keys, reserved, reason, lost=False)
                if len(keys) > 1:
                    raise RefusedTogether(by_server=True)
                return [failure_entry(keys[0], reason, message, attempt.circumstances())]
            case LaneStop(reason) | Gate(reason):
                self._drop(keys, reserved, reason, lost=False)
                return []
            case Retry(reason, message, body=None, maybe_paid=lost):
                self._drop(keys, reserved, reason, lost=lost)
            case Retry(reason, message, body=bytes(body)):
                self.budget.settle(reserved_usd, reserved_usd)
                text = body[:KEPT_BODY_BYTES].decode(errors="replace")
                self._append({"k": keys[0], "t": "X", "reason": reason, "usd": reserved_usd, "body": text})
                self._close(keys[1:], reason)
        if reason == "connect" or not self._is_hopeless(attempt):
            return []
        why = f"gave_up:{reason}"
        return [failure_entry(key, why, message, attempt.circumstances()) for key in keys]

    def _answers(self, attempt: _Attempt, answer: Answer, reserved: Sequence[float]) -> list[Entry]:
        """The entries of an answer, one a sample; samples it left out cost nothing."""
        keys, completions = attempt.keys, answer.completions[: len(attempt.keys)]
        costs = [
            self._cost(attempt.spec, completion.usage, usd)
            for completion, usd in zip(completions, reserved, strict=False)
        ]
        # Settled before stored: if the disk fails now, the money is spent all the same.
        self.budget.settle(sum(reserved), sum(cost or 0.0 for cost in costs))
        self._close(keys[len(completions) :], "not_given")
        at = attempt.circumstances()
        return [
            answer_entry(key, completion, cost, at)
            for key, completion, cost in zip(keys, completions, costs, strict=False)
        ]

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

    def _watch_schema(self, attempt: _Attempt, answer: Answer, lane: Lane) -> None:
        for completion in answer.completions:
            said = self.schemas.objection(lane.name, attempt.request, completion, host=attempt.endpoint)
            if said is not None:
                attempt.queue.stop(lane, "schema_ignored", said)

    def _note_refusal(self, queue: Queue, lane: Lane, message: str) -> None:
        if lane.name in self._first_refusals:
            self._first_refusals[lane.name] += 1
            if self._first_refusals[lane.name] >= FIRST_REPLIES:
                said = f"the first {FIRST_REPLIES} requests were all refused: {message}"
                queue.stop(lane, "bad_requests", said)

    @staticmethod
    def _give_up_if_dead(attempt: _Attempt, what: str) -> None:
        queue, silent_s = attempt.queue, attempt.queue.silent_s
        if silent_s > attempt.spec.config.give_up_after_s:
            for lane in queue.lanes:
                queue.stop(lane, "given_up", f"no success for {silent_s:.0f} s; last: {what}")

    @staticmethod
    def _give_up_if_far(attempt: _Attempt, lane: Lane, place: Place, wait_s: float | None) -> None:
        """Stop a lane that names a time beyond its patience, once that is not about single requests.

        Some servers refuse a few and answer the rest: it counts where the whole lane waits or nobody else is to be asked.
        """
        patience_s = attempt.spec.config.give_up_after_s
        if wait_s is None or wait_s <= patience_s or lane.last_success > place.sent_at:
            return
        if not lane.probing and (attempt.queue.waiting or lane.counts.in_flight > 1):
            return
        attempt.wait_s = 0.0  # another lane may take it
        attempt.queue.stop(
            lane,
            "given_up",
            f"the server asks to come back {_when(wait_s)}, later than give_up_after_s ({patience_s:.0f} s) allows; "
            "run the same command then, or raise give_up_after_s",
        )

    def _drop(self, keys: Sequence[str], reserved: Sequence[float], reason: str, *, lost: bool) -> None:
        """Close an attempt that brought no answer; a lost one keeps its money."""
        reserved_usd = sum(reserved)
        self.budget.settle(reserved_usd, reserved_usd if lost else 0.0)
        kept = reserved if lost else [0.0] * len(keys)
        closed = zip(keys, kept, strict=True)
        self._append(*(_entry(key, "A", usd, reason=reason, lost=lost) for key, usd in closed))

    def _close(self, keys: Sequence[str], reason: str) -> None:
        """End the intents of samples for which nothing is to be paid."""
        if keys:
            self._append(*(_entry(key, "A", 0.0, reason=reason, lost=False) for key in keys))

    @staticmethod
    def _cost(spec: TeacherSpec, usage: Usage | None, reserved_usd: float) -> float | None:
        """What a reply cost; a priced teacher that reports no usage costs its reservation, the upper bound."""
        if spec.price is None:
            return None
        return reserved_usd if usage is None else cost_usd(spec.price, usage)

    async def reserve(self, usd: float, *, together: bool = False) -> None:
        """Reserve the money of one request; `together`: of several samples, which can be asked singly.

        Raises:
            NotAsked: the cap is reached; then no teacher that costs something is asked any more.
            RefusedTogether: the samples do not fit together.
        """
        try:
            await self.budget.reserve(usd, final=not together)
        except BudgetReached as error:
            if together and self.budget.reached is None:
                raise RefusedTogether(by_server=False) from error
            for alias, spec in self._specs.items():
                if spec.price is None or spec.price.input or spec.price.output:
                    self.queues[alias].end("budget", str(error))
            raise NotAsked("budget") from error

    async def commit(self, *entries: Entry) -> None:
        """Make entries durable; a disk that takes none of them halts the session.

        Raises:
            NotAsked: it took none.
        """
        try:
            await self.journal.commit(*entries)
        except StorageError as error:
            self.halt("storage")
            raise NotAsked("storage") from error

    def _append(self, *entries: Entry) -> None:
        try:
            self.journal.append(*entries)
        except StorageError as error:
            self.halt("storage")
            raise NotAsked("storage") from error

    async def _answer(self, attempt: _Attempt, lane: Lane) -> Outcome:
        teacher, samples = self._teacher(lane.name), len(attempt.keys)
        if samples == 1:
            return await teacher.answer(attempt.request)
        return await teacher.answer(attempt.request, samples)

    def _teacher(self, name: str) -> Teacher:
        if name not in self._teachers:
            self._teachers[name] = self._connect(self._hosts[name])
        return self._teachers[name]

    async def close(self) -> None:
        """Release the teachers; nothing may be in flight."""
        for teacher in self._teachers.values():
            await teacher.close()


def _when(wait_s: float) -> str:
    try:
        return f"at {datetime.fromtimestamp(time.time() + wait_s).astimezone():%Y-%m-%d %H:%M}"
    except (ValueError, OverflowError, OSError):  # beyond the calendar
        return f"in {wait_s:.0f} s"


def _entry(key: str, kind: Literal["I", "A"], usd: float, **more: JSONValue) -> Entry:
    """An intent, or the end of one that brought no answer."""
    return {"k": key, "t": kind, **more, "usd": usd}


def _lane(spec: TeacherSpec) -> Lane:
    provider = spec.config.provider
    return Lane(
        spec.alias,
        spec.config.limits,
        counting="uncached" if provider == "anthropic" else "all",
        crowding="queued" if provider in ("vllm", "local") else "refused",
    )
