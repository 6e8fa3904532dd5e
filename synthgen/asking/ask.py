"""The one paid path: every request of a run, whatever it is for, passes `Asker.ask`.

In: a `Request`, the step it serves and the teacher's alias. Out: the `Reply` the journal holds for it, asked only if
it is not there. Order of the gates: journal (already bought?) -> queue and lane (may it be sent now?) -> budget (is there
money?) -> intent durable -> send -> reply durable -> return. Guarantees: an answer is in the journal before anyone
sees it; a key is never in flight twice; a row waiting for its retry holds no place in the lane. Samples of one question
go into one request where the teacher can answer so: it has an intent a key, and its bill is shared among the keys.
A request that cannot be sent in this session (lane stopped, budget reached, draining) raises `NotAsked`: its row
stays pending. A request fails for good when the teacher refuses it, or when its tries are used up while others got
answers; a server that answers nobody makes no failures; what may have been billed is sent three times at most (see
`unanswered`). Policy gate 1 has passed before an `Asker` exists.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, Protocol

from synthgen.asking.attempt import Attempt
from synthgen.asking.budget import Budget
from synthgen.asking.lanes import Lane, LaneStopped, Queue
from synthgen.asking.lessons import Lessons
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
from synthgen.asking.retry import RetryPolicy
from synthgen.asking.samples import Samples
from synthgen.asking.spec import TeacherSpec
from synthgen.asking.structured import SchemaWatch
from synthgen.errors import BudgetReached, StorageError
from synthgen.journal import Entry, Journal, Reply, entry_of, read_reply, without_logprobs
from synthgen.recipe.model import TeacherConfig
from synthgen.types import Request, Usage

__all__ = ["KEPT_BODY_BYTES", "Asker", "BatchPath", "NotAsked", "TeacherSpec", "crowding_at"]

KEPT_BODY_BYTES = 1 << 20


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
        self._lessons = Lessons(self.lanes, self.policy)
        self._lessons.recall(journal.index.folder, specs)
        self._samples = Samples(self.ask, self._ask_new, self._is_missing)

    @property
    def schemas(self) -> SchemaWatch:
        """What is seen of servers that were sent a schema."""
        return self._lessons.schemas

    @property
    def unanswered(self) -> Mapping[str, str]:
        """Of each teacher in words what stays pending because it was sent often enough."""
        return self._lessons.unanswered.pending

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
        if (spent := self._lessons.unanswered.spent) and not spent.isdisjoint(keys):
            raise NotAsked("unanswered")
        for key in keys:
            self._open[key] = None
        try:
            spec = self._specs[alias]
            if self.batches is not None and self.batches.takes(keys[0], spec):
                entry = await self.batches.ask(requests[0], keys[0], step, spec)
                if entry is not None:
                    return [read_reply(entry)]
            attempt = Attempt(requests, keys, step, spec, self.queues[alias])
            while True:
                try:
                    reserved, outcome = await self._send(attempt)
                except LaneStopped:
                    attempt.queue.require_open()
                    continue  # its lane stopped while it waited for money: there are others
                replies = self._settle(attempt, outcome, reserved)
                if replies:
                    await self.commit(*map(entry_of, replies))
                    return list(map(without_logprobs, replies))
                await attempt.queue.wait_outside(attempt.wait_s, with_lane=attempt.with_lane)
        except LaneStopped as stop:
            raise NotAsked(stop.reason) from stop
        finally:
            for key in keys:
                if (over := self._open.pop(key)) is not None:
                    over.set()
            if self.batches is not None:
                self.batches.moved()

    async def _send(self, attempt: Attempt) -> tuple[list[float], Outcome]:
        """One attempt: lane, money, intents, then the wire. What was reserved for each key, and what came of it."""
        request, queue, keys = attempt.request, attempt.queue, attempt.keys
        shares = attempt.spec.worst_shares(request, len(keys))
        lane, place = await queue.enter(
            request.input_tokens_bound() // 4,
            len(keys) * (request.sampling.max_tokens or 0),
            step=attempt.step,
            turn=attempt.turn,
            avoid=attempt.lane,
        )
        attempt.lane, attempt.endpoint = lane, self._hosts[lane.name].endpoint
        place.patience_s = attempt.spec.config.patience_s(request.sampling.max_tokens)
        reserved: list[float] = []
        sent = False
        used: Usage | None = None
        try:
            if (worst_usd := sum(shares)) > 0:
                await self.reserve(worst_usd, together=len(keys) > 1)
            reserved = shares
            lane.require_open()
            await self.commit(*[_intent(key, usd) for key, usd in zip(keys, shares, strict=True)])
            sent = True
            self.sent += 1
            attempt.tries += 1
            attempt.waited_s = time.time() - attempt.sent_at - attempt.latency_s if attempt.sent_at else 0.0
            attempt.sent_at = time.time()
            started = time.perf_counter()
            teacher = self._teacher(lane.name)
            outcome = await (
                teacher.answer(request) if len(keys) == 1 else teacher.answer(request, len(keys))
            )
            attempt.latency_s = time.perf_counter() - started
            self._lessons.learn(attempt, outcome, lane, place)  # before the place is free for the next
            match outcome:
                case Answer():
                    used = outcome.usage
                case Gate() | RowFailure() | LaneStop():
                    used = Usage()
        except (LaneStopped, NotAsked):
            self.budget.settle(sum(reserved), 0.0)
            raise
        except asyncio.CancelledError:
            # Out of the wire the answer may be on its way; out of the commit the intent is, but nothing else.
            if reserved:
                self._drop(keys, reserved, "cancelled", lost=sent)
            raise
        finally:
            queue.leave(lane, place, used)
        return reserved, outcome

    def _settle(self, attempt: Attempt, outcome: Outcome, reserved: Sequence[float]) -> list[Reply]:
        """Book what the attempt cost; the replies to store where it ends, none where it goes on.

        Raises:
            RefusedTogether: several samples in one request were refused.
            NotAsked: its sends are used up, and it is pending.
        """
        keys = attempt.keys
        match outcome:
            case Answer():
                return self._answers(attempt, outcome, reserved)
            case RowFailure(reason, message):
                self._drop(keys, reserved, reason, lost=False)
                if len(keys) > 1:
                    raise RefusedTogether(by_server=True)
                return [_failed(attempt, keys[0], reason, message)]
            case LaneStop(reason) | Gate(reason):
                self._drop(keys, reserved, reason, lost=False)
                return []
            case Retry(reason, message, body=None, maybe_paid=lost):
                self._drop(keys, reserved, reason, lost=lost)
            case Retry(reason, message, body=bytes(body)):
                reserved_usd = sum(reserved)
                self.budget.settle(reserved_usd, reserved_usd)
                text = body[:KEPT_BODY_BYTES].decode(errors="replace")
                whose: Entry = {"step": attempt.step, "teacher": attempt.spec.alias}
                paid: Entry = {"reason": reason, "usd": reserved_usd, "body": text}
                self._append({"k": keys[0], "t": "X", **whose, **paid})
                self._close(keys[1:], reason)
        if attempt.end == "pending":
            raise NotAsked("unanswered")
        if reason == "connect" or not self._is_hopeless(attempt):
            return []
        return [_failed(attempt, key, f"gave_up:{reason}", message) for key in keys]

    def _answers(self, attempt: Attempt, answer: Answer, reserved: Sequence[float]) -> list[Reply]:
        """The replies in an answer, one a sample; samples it left out cost nothing."""
        at = attempt.circumstances()
        replies = [
            Reply(key, completion, None, None, self._cost(attempt.spec, completion.usage, usd), at)
            for key, completion, usd in zip(attempt.keys, answer.completions, reserved, strict=False)
        ]
        # Settled before stored: if the disk fails now, the money is spent all the same.
        self.budget.settle(sum(reserved), sum([reply.cost_usd or 0.0 for reply in replies]))
        self._close(attempt.keys[len(replies) :], "not_given")
        return replies

    def _is_hopeless(self, attempt: Attempt) -> bool:
        """Whether the tries are used up while others got answers: the trouble is this request, not the server."""
        if attempt.end == "failed":
            return True
        since = attempt.failing_since
        return (
            since is not None and self.policy.exhausted(attempt.tries) and attempt.queue.last_success > since
        )

    def _drop(self, keys: Sequence[str], reserved: Sequence[float], reason: str, *, lost: bool) -> None:
        """Close an attempt that brought no answer; a lost one keeps its money."""
        reserved_usd = sum(reserved)
        self.budget.settle(reserved_usd, reserved_usd if lost else 0.0)
        kept = reserved if lost else [0.0] * len(keys)
        closed = zip(keys, kept, strict=True)
        self._append(*(_unanswered(key, usd, reason, lost=lost) for key, usd in closed))

    def _close(self, keys: Sequence[str], reason: str) -> None:
        """End the intents of samples for which nothing is to be paid."""
        if keys:
            self._append(*(_unanswered(key, 0.0, reason, lost=False) for key in keys))

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

    def _teacher(self, name: str) -> Teacher:
        if name not in self._teachers:
            self._teachers[name] = self._connect(self._hosts[name])
        return self._teachers[name]

    async def close(self) -> None:
        """Release the teachers; nothing may be in flight."""
        for teacher in self._teachers.values():
            await teacher.close()


def _failed(attempt: Attempt, key: str, reason: str, message: str) -> Reply:
    return Reply(key, None, reason, message, 0.0, attempt.circumstances())


def _intent(key: str, usd: float) -> Entry:
    return {"k": key, "t": "I", "usd": usd}


def _unanswered(key: str, usd: float, reason: str, *, lost: bool) -> Entry:
    """The end of an intent that brought no answer."""
    return {"k": key, "t": "A", "reason": reason, "lost": lost, "usd": usd}


def _lane(spec: TeacherSpec) -> Lane:
    config = spec.config
    return Lane(
        spec.alias,
        config.limits,
        counting="uncached" if config.provider == "anthropic" else "all",
        crowding=crowding_at(config),
    )


def crowding_at(config: TeacherConfig) -> Literal["refused", "queued"]:
    """Vendors refuse what is too much; one's own server queues it, whatever dialect it is asked in."""
    own = config.provider in ("vllm", "local") or config.route == "self-hosted"
    return "queued" if own else "refused"
