"""The way of requests through a vendor's batches: collect, reserve, journal, submit, wait, harvest.

In: requests from `Asker.ask`. Out: the journaled entries of their replies. A batch is submitted when its vendor's limit
is reached, or when nothing more can come without answers: everybody who waits for a reply waits here, and the
pipeline is not about to ask (`expecting`). Guarantees: the intent of all requests (the `prepared` entry) is durable before
anything is sent, and the vendor's id before anybody waits for it; replies go through the same wire, the same taxonomy
and the same journal as live ones; what an earlier session left under way is awaited, whatever the recipe's mode is now,
and never bought again meanwhile; spent plus reserved stays within the cap, with the price of the day of submission.

A batch that ends without some of its answers (expired, partly failed) has only those asked again, in the next batch. One
that somebody cancelled stops its teacher for this session. Interrupting leaves batches at their vendors.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from typing import cast

from synthgen.asking.ask import FIRST_REPLIES, KEPT_BODY_BYTES, Asker, NotAsked, TeacherSpec
from synthgen.asking.batch.calls import Calls, Stopped, Unanswered
from synthgen.asking.batch.vendor import Pace, Problem, ResultsGone, State, Ticket
from synthgen.asking.lanes import LaneStopped
from synthgen.asking.outcome import Answer, Gate, LaneStop, Outcome, Retry, RowFailure
from synthgen.asking.prices import cost_usd
from synthgen.journal import (
    Circumstances,
    Entry,
    OpenBatch,
    answer_entry,
    failure_entry,
    lost_entry,
    over_entry,
    prepared_entry,
    submitted_entry,
)
from synthgen.recipe.model import Price
from synthgen.types import Completion, Request, digest

__all__ = ["Batches", "Harvest", "UnderWay"]

# Results committed at once: one disk flush, and 256 answers at most to read again after a crash.
_CHUNK = 256
_FRAME_BYTES = 64  # what stands around the lines of a batch
# The vendor's queue of tokens is full until other batches are done; a smaller batch may fit.
_QUEUE_FULL = "token_limit_exceeded"


@dataclass(frozen=True, slots=True)
class _Missing:
    """A request without an answer. `again`: it may go into another batch, after `wait_s`; `final`: it fails after
    too many."""

    reason: str
    message: str = ""
    again: bool = False
    final: bool = False
    wait_s: float = 0.0


@dataclass(slots=True)
class _Collected:
    key: str
    step: str
    line: bytes
    usd: float


@dataclass(slots=True)
class _Waiter:
    done: asyncio.Future[Entry | _Missing]
    tries: int


@dataclass(slots=True)
class _Desk:
    """One teacher: what is collected for it. `most` shrinks where the vendor's queue is too short for its limit."""

    spec: TeacherSpec
    calls: Calls
    most: int
    collected: dict[str, _Collected] = field(default_factory=dict)
    size_bytes: int = 0


@dataclass(slots=True)
class UnderWay:
    """A batch that is not over, for people too. `seen` is what the vendor last said."""

    batch: OpenBatch
    desk: _Desk
    order: tuple[str, ...] = ()
    seen: State | None = None
    looked_at: bool = False

    @property
    def said(self) -> str:
        """One line for people."""
        if self.seen is None:
            return self.batch.said()
        return self.batch.said(done=self.seen.done, until=self.seen.expires_at)


@dataclass(slots=True)
class Harvest:
    """What came out of a batch. `unknown` results belong to no request of it that was still open."""

    answered: int = 0
    failed: int = 0
    unanswered: int = 0
    unusable: int = 0
    unknown: int = 0
    usd: float = 0.0
    seen: set[str] = field(default_factory=set)
    chunk: list[tuple[Entry, float, float]] = field(default_factory=list)
    refused: dict[str, RowFailure] = field(default_factory=dict)
    missing: dict[str, _Missing] = field(default_factory=dict)
    stop: LaneStop | None = None

    def counts(self) -> dict[str, int]:
        """For the journal."""
        names = ("answered", "failed", "unanswered", "unusable", "unknown")
        return {name: int(getattr(self, name)) for name in names}


class Batches:
    """See the module. Run `run()` beside whatever asks; `wait` False submits and looks once, and waits for nothing."""

    def __init__(
        self,
        asker: Asker,
        specs: Mapping[str, TeacherSpec],
        connect: Callable[[TeacherSpec, Pace], Calls],
        *,
        run: str,
        pace: Pace | None = None,
        wait: bool = True,
    ) -> None:
        self.deferred = 0
        self.under_way: dict[str, UnderWay] = {}
        self.orphans: list[OpenBatch] = []
        self._asker, self._run, self._wait = asker, run, wait
        self._pace = pace or Pace()
        self._specs, self._connect = specs, connect
        self._desks: dict[str, _Desk] = {}
        self._waiting: dict[str, _Waiter] = {}
        self._kept: set[str] = set()  # being submitted or harvested: not sent away by a halt
        self._halted: str | None = None
        self._expecting = 0
        self._movement = asyncio.Event()
        for spec in specs.values():
            if spec.mode == "batch":
                self._desk(spec)
        for batch in asker.journal.index.open_batches.values():
            self._take_up(batch)
        asker.batches = self

    def _desk(self, spec: TeacherSpec) -> _Desk:
        """The desk of a teacher; opening it imports an SDK."""
        if spec.alias not in self._desks:
            calls = self._connect(spec, self._pace)
            self._desks[spec.alias] = _Desk(spec, calls, calls.vendor.most_requests)
        return self._desks[spec.alias]

    def _take_up(self, batch: OpenBatch) -> None:
        """Go on with what an earlier session left: its money stays reserved."""
        for _, usd in batch.requests.values():
            self._asker.budget.hold(usd)
        fitting = [
            spec
            for spec in self._specs.values()
            if (spec.config.provider, spec.endpoint) == (batch.provider, batch.endpoint)
        ]
        fitting.sort(key=lambda spec: spec.alias != batch.teacher)
        if not fitting:
            self.orphans.append(batch)
            return
        self.under_way[batch.name] = UnderWay(batch, self._desk(fitting[0]))

    # Asking

    def takes(self, key: str, spec: TeacherSpec) -> bool:
        """Whether this request goes, or has gone, in a batch."""
        return spec.mode == "batch" or self._is_under_way(key) or self._is_elsewhere(key)

    def _is_under_way(self, key: str) -> bool:
        return any(key in way.batch.requests for way in self.under_way.values())

    def _is_elsewhere(self, key: str) -> bool:
        """Whether it is in a batch that no teacher of this recipe can collect: then it is not bought here either."""
        return any(key in batch.requests for batch in self.orphans)

    async def ask(self, request: Request, key: str, step: str, spec: TeacherSpec) -> Entry | None:
        """The journaled entry of its reply; None if it has to be asked live after all.

        Raises:
            NotAsked: it is pending.
        """
        tries = 0
        while True:
            if self._halted is not None:
                raise NotAsked(self._halted)
            if self._is_elsewhere(key):
                raise NotAsked("batch_elsewhere")
            if not self._is_under_way(key):
                if spec.mode != "batch":
                    return None
                self._collect(request, key, step, spec)
            result = await self._result(key, tries)
            if not isinstance(result, _Missing):
                return result
            if not result.again:
                raise NotAsked(result.reason)
            if result.wait_s:
                await self._asker.lanes[spec.alias].wait_outside(result.wait_s)
            tries += 1
            if self._asker.policy.exhausted(tries):
                if not result.final:
                    raise NotAsked(result.reason)
                at = Circumstances(step, spec.alias, spec.endpoint, tries, time.time(), 0.0)
                entry = failure_entry(key, f"gave_up:{result.reason}", result.message, at)
                await self._asker.commit(entry)
                return entry

    def _collect(self, request: Request, key: str, step: str, spec: TeacherSpec) -> None:
        self._asker.lanes[spec.alias].require_open()
        desk = self._desks[spec.alias]
        line = desk.calls.line(key, request)
        desk.collected[key] = _Collected(key, step, line, spec.worst_usd(request))
        desk.size_bytes += len(line) + 1

    async def _result(self, key: str, tries: int) -> Entry | _Missing:
        waiter = self._waiting[key] = _Waiter(asyncio.get_running_loop().create_future(), tries)
        self.moved()
        try:
            return await waiter.done
        finally:
            del self._waiting[key]
            for desk in self._desks.values():
                if (item := desk.collected.pop(key, None)) is not None:
                    desk.size_bytes -= len(item.line) + 1

    def _resolve(self, key: str, result: Entry | _Missing) -> None:
        waiter = self._waiting.get(key)
        if waiter is not None and not waiter.done.done():
            waiter.done.set_result(result)

    # Running

    @contextmanager
    def expecting(self) -> Iterator[None]:
        """While this is held more requests may come: nothing is submitted but full batches."""
        self._expecting += 1
        try:
            yield
        finally:
            self._expecting -= 1
            self.moved()

    def moved(self) -> None:
        """A request has come or gone."""
        self._movement.set()

    def halt(self, reason: str) -> None:
        """Submit nothing more; requests that wait are pending. What is at a vendor stays there."""
        self._halted = reason
        for key in self._waiting:
            if key not in self._kept:
                self._resolve(key, _Missing(reason))

    async def run(self) -> None:
        """Submit and harvest until cancelled; nothing to do without desks."""
        if not self._desks:
            return
        async with asyncio.TaskGroup() as group:
            for way in list(self.under_way.values()):
                group.create_task(self._follow(way))
            while True:
                self._movement.clear()
                for desk in self._desks.values():
                    while self._is_full(desk) and await self._submit(desk, group):
                        pass
                if not self._quiet():
                    await self._movement.wait()
                    continue
                try:
                    async with asyncio.timeout(self._pace.linger_s):
                        await self._movement.wait()
                except TimeoutError:
                    await self._flush(group)

    def _is_full(self, desk: _Desk) -> bool:
        return len(desk.collected) >= desk.most or desk.size_bytes >= desk.calls.vendor.most_bytes

    def _quiet(self) -> bool:
        """Whether something is to be done, and nothing more can come before it is."""
        if self._expecting or self._asker.open_requests != len(self._waiting):
            return False
        return any(desk.collected for desk in self._desks.values()) or bool(self._to_be_deferred())

    def _to_be_deferred(self) -> list[str]:
        """Requests nobody wants to wait for: their batches are at the vendor, or were looked at and are not over."""
        if self._wait:
            return []
        looked_at = [way for way in self.under_way.values() if way.looked_at]
        return [
            key
            for key, waiter in self._waiting.items()
            if not waiter.done.done() and any(key in way.batch.requests for way in looked_at)
        ]

    async def _flush(self, group: asyncio.TaskGroup) -> None:
        """Submit what is collected, as far as the cap allows now; then send away whom nobody waits for."""
        self._movement.clear()
        submitted = False
        for desk in self._desks.values():
            while desk.collected and await self._submit(desk, group):
                submitted = True
        deferred = self._to_be_deferred()
        self.deferred += len(deferred)
        for key in deferred:
            self._resolve(key, _Missing("batch"))
        if not submitted and not deferred:
            await self._movement.wait()  # only a harvest can make room under the cap

    # Submitting

    async def _submit(self, desk: _Desk, group: asyncio.TaskGroup) -> bool:
        """Submit one batch; False where nothing can be submitted now."""
        asker, lane = self._asker, self._asker.lanes[desk.spec.alias]
        try:
            lane.require_open()
        except LaneStopped as stop:
            self._send_away(desk, stop.reason)
            return False
        taken = self._take(desk)
        if not taken:
            await self._require_money(desk)
            return False
        keys = [item.key for item in taken]
        self._kept.update(keys)
        try:
            ticket = await asyncio.to_thread(self._ticket, desk, taken)
            await asker.commit(prepared_entry(self._prepared(desk, taken, ticket)))
            way = UnderWay(asker.journal.index.open_batches[ticket.name], desk, tuple(keys))
            self.under_way[ticket.name] = way
            lane.counts.sent += len(keys)
            lane.counts.in_flight += len(keys)
            asker.sent += len(keys)
            await self._send(way, ticket, [item.line for item in taken])
        except NotAsked as refused:  # the disk takes nothing more
            for key in keys:
                self._resolve(key, _Missing(refused.reason))
            return False
        finally:
            self._kept.difference_update(keys)
        if ticket.name not in self.under_way:
            return False
        if self._halted is not None:
            self.halt(self._halted)
        elif self._wait and way.batch.id is not None:
            group.create_task(self._follow(way))
        else:
            way.looked_at = True
        return way.batch.id is not None

    def _take(self, desk: _Desk) -> list[_Collected]:
        """As many collected requests as fit into one batch and under the cap; their money is reserved."""
        taken: list[_Collected] = []
        size_bytes = _FRAME_BYTES
        for item in desk.collected.values():
            size_bytes += len(item.line) + 1
            if len(taken) == desk.most or (taken and size_bytes > desk.calls.vendor.most_bytes):
                break
            if not self._asker.budget.try_reserve(item.usd):
                break
            taken.append(item)
        for item in taken:
            del desk.collected[item.key]
            desk.size_bytes -= len(item.line) + 1
        return taken

    async def _require_money(self, desk: _Desk) -> None:
        """Nothing fits under the cap: what is under way may make room; where nothing is, the cap is reached."""
        budget = self._asker.budget
        if budget.reached is None and budget.waits:
            return
        try:
            await self._asker.reserve(next(iter(desk.collected.values())).usd)
        except NotAsked as reached:
            self._send_away(desk, reached.reason)

    def _send_away(self, desk: _Desk, reason: str) -> None:
        for key in desk.collected:
            self._resolve(key, _Missing(reason))
        desk.collected, desk.size_bytes = {}, 0

    def _ticket(self, desk: _Desk, taken: list[_Collected]) -> Ticket:
        """A name no other batch has, also not one of the very same requests."""
        now, content = time.time(), _content(taken)
        name = digest([content, desk.spec.alias, repr(now)])
        return Ticket(name, self._run, content, frozenset(item.key for item in taken), round(now, 3))

    @staticmethod
    def _prepared(desk: _Desk, taken: list[_Collected], ticket: Ticket) -> OpenBatch:
        price = desk.spec.price
        return OpenBatch(
            name=ticket.name,
            teacher=desk.spec.alias,
            provider=desk.spec.config.provider,
            endpoint=desk.spec.endpoint,
            content=ticket.content,
            total=len(taken),
            price=None if price is None else cast(dict[str, float | None], price.model_dump()),
            prepared_at=ticket.prepared_at,
            requests={item.key: (item.step, item.usd) for item in taken},
        )

    async def _send(self, way: UnderWay, ticket: Ticket, lines: list[bytes]) -> None:
        try:
            vendor_id = await way.desk.calls.submit(ticket, lines)
        except Stopped as stop:
            self._asker.lanes[way.desk.spec.alias].stop(stop.reason, str(stop))
            if stop.created:
                for key in list(way.batch.requests):
                    self._resolve(key, _Missing(stop.reason))
            else:
                unsent = _Missing(stop.reason)
                await self._close(way, "never_created", {}, lambda _: unsent)
            return
        await self._asker.commit(submitted_entry(way.batch.name, vendor_id))

    # Waiting and harvesting

    async def _follow(self, way: UnderWay) -> None:
        """Await one batch and harvest it."""
        try:
            if not await self._is_created(way):
                return
            state = await self._state(way)
            if state.over:
                await self.harvest(way, state)
        except Stopped as stop:
            self._asker.lanes[way.desk.spec.alias].stop(stop.reason, str(stop))
            for key in list(way.batch.requests):
                self._resolve(key, _Missing(stop.reason))
        except NotAsked as refused:  # the disk takes nothing more
            for key in list(way.batch.requests):
                self._resolve(key, _Missing(refused.reason))
        finally:
            way.looked_at = True
            self.moved()

    async def _state(self, way: UnderWay) -> State:
        """How far it is: once it is over, or now where nobody wants to wait."""
        assert way.batch.id is not None
        if self._wait:
            return await way.desk.calls.until_over(way.batch.id, partial(setattr, way, "seen"))
        way.seen = await way.desk.calls.look(way.batch.id)
        return way.seen

    async def _is_created(self, way: UnderWay) -> bool:
        """Whether its vendor has it; one whose submission was cut off is looked for."""
        batch = way.batch
        if batch.id is not None:
            return True
        ticket = Ticket(batch.name, self._run, batch.content, frozenset(batch.requests), batch.prepared_at)
        vendor_id = await way.desk.calls.recover(ticket)
        if vendor_id is None:
            await self._close(way, "never_created", {}, lambda _: _Missing("never_created", again=True))
            return False
        await self._asker.commit(submitted_entry(batch.name, vendor_id))
        return True

    async def harvest(self, way: UnderWay, state: State) -> Harvest:
        """Journal every result of a batch that is over, and close it.

        Raises:
            Stopped: its results cannot be read now; what was journaled stays, the batch stays open.
            NotAsked: the disk takes nothing more.
        """
        harvest = Harvest()
        keys = list(way.batch.requests)
        self._kept.update(keys)
        try:
            if state.problem is not None:
                self._sort_refused(way, state, state.problem, harvest)
            else:
                try:
                    await way.desk.calls.patiently(lambda: self._read_results(way, state, harvest))
                except ResultsGone:
                    await self._lose(way, state.status)
                    return harvest
            await self._finish(way, state, harvest)
        finally:
            self._kept.difference_update(keys)
        return harvest

    async def _read_results(self, way: UnderWay, state: State, harvest: Harvest) -> None:
        """Read all results; begun again after a broken connection, it goes on where it was."""
        async with aclosing(way.desk.calls.outcomes(state)) as outcomes:
            async for key, outcome in outcomes:
                if key in harvest.seen:
                    continue
                harvest.seen.add(key)
                if key not in way.batch.requests:
                    harvest.unknown += 1
                    continue
                self._sort(way, key, outcome, harvest)
                if len(harvest.chunk) >= _CHUNK:
                    await self._store(way, harvest)

    def _sort(self, way: UnderWay, key: str, outcome: Outcome | Unanswered, harvest: Harvest) -> None:
        step, reserved_usd = way.batch.requests[key]
        match outcome:
            case Answer(completion):
                cost = _cost(way.batch.price, completion, reserved_usd)
                entry = answer_entry(key, completion, cost, self._circumstances(way, key, step))
                harvest.chunk.append((entry, reserved_usd, cost or 0.0))
                harvest.answered += 1
            case RowFailure():
                harvest.refused[key] = outcome
            case LaneStop():
                harvest.stop = outcome
                harvest.missing[key] = _Missing(outcome.reason, outcome.message)
            case Gate(reason):
                harvest.missing[key] = _Missing(reason, again=True)
            case Retry(reason, message, body=bytes(body)):
                text = body[:KEPT_BODY_BYTES].decode(errors="replace")
                entry = {"k": key, "t": "X", "reason": reason, "usd": reserved_usd, "body": text}
                harvest.chunk.append((entry, reserved_usd, reserved_usd))
                harvest.unusable += 1
                harvest.missing[key] = _Missing(reason, message, again=True, final=True)
            case Retry(reason, message):
                harvest.missing[key] = _Missing(reason, message, again=True, final=True)
            case Unanswered():
                harvest.missing[key] = _Missing(str(outcome), again=outcome != "cancelled")

    def _circumstances(self, way: UnderWay, key: str, step: str) -> Circumstances:
        waiter = self._waiting.get(key)
        sent_at = way.batch.submitted_at or way.batch.prepared_at
        tries = 1 + (waiter.tries if waiter else 0)
        return Circumstances(
            step, way.batch.teacher, way.batch.endpoint, tries, sent_at, time.time() - sent_at
        )

    async def _store(self, way: UnderWay, harvest: Harvest) -> None:
        """Make a chunk durable, then hand it out."""
        chunk, harvest.chunk = harvest.chunk, []
        counts = self._asker.lanes[way.desk.spec.alias].counts
        for entry, reserved_usd, usd in chunk:
            self._asker.budget.settle(reserved_usd, usd)
            harvest.usd += usd
            counts.in_flight -= 1
            counts.answered += entry["t"] == "R"
            usage = cast(dict[str, int] | None, entry.get("usage"))
            counts.output_tokens += usage["output_tokens"] if usage else 0
        if chunk:
            await self._asker.commit(*(entry for entry, _, _ in chunk))
        for entry, _, _ in chunk:
            key = str(entry["k"])
            self._resolve(key, harvest.missing[key] if entry["t"] == "X" else entry)

    async def _finish(self, way: UnderWay, state: State, harvest: Harvest) -> None:
        """What is left of a batch: failures, then what was not answered."""
        lane = self._asker.lanes[way.desk.spec.alias]
        refused = harvest.refused
        if not (harvest.answered or lane.counts.answered) and len(refused) >= FIRST_REPLIES:
            # Nothing was paid and nothing answered: the recipe has a problem, not every row of it.
            message = next(iter(refused.values())).message
            harvest.stop = LaneStop("bad_requests", f"all {len(refused)} requests were refused: {message}")
        else:
            for key, failure in refused.items():
                step, reserved_usd = way.batch.requests[key]
                at = self._circumstances(way, key, step)
                harvest.chunk.append(
                    (failure_entry(key, failure.reason, failure.message, at), reserved_usd, 0.0)
                )
            harvest.failed = len(refused)
        await self._store(way, harvest)
        cancelled = state.status == "cancelled" and bool(way.batch.requests)
        cancelled |= any(missing.reason == "cancelled" for missing in harvest.missing.values())
        if harvest.stop is not None:
            lane.stop(harvest.stop.reason, harvest.stop.message)
        elif cancelled:
            lane.stop("cancelled", f"batch {way.batch.id} was cancelled at its vendor")
        harvest.unanswered = len(way.batch.requests)

        def left(key: str) -> _Missing:
            if harvest.stop is not None:
                return _Missing(harvest.stop.reason)
            if cancelled:
                return _Missing("cancelled")
            return harvest.missing.get(key) or _Missing(state.status, again=True)

        await self._close(way, state.status, harvest.counts(), left)

    def _sort_refused(self, way: UnderWay, state: State, problem: Problem, harvest: Harvest) -> None:
        """The vendor ran nothing of the batch: its queue is full, one line is wrong, or all of it."""
        if problem.code == _QUEUE_FULL:
            way.desk.most = max(1, way.batch.total // 2)
            wait_s = self._pace.longest_poll_s
            harvest.missing = {
                key: _Missing(problem.code, again=True, wait_s=wait_s) for key in way.batch.requests
            }
            return
        outcome = way.desk.calls.read(problem)
        at_fault = way.order[problem.line - 1 : problem.line] if problem.line else ()
        if at_fault and isinstance(outcome, RowFailure):
            harvest.refused[at_fault[0]] = outcome
        elif isinstance(outcome, LaneStop):
            harvest.stop = outcome
        else:
            message = outcome.message if isinstance(outcome, RowFailure) else problem.code
            harvest.stop = LaneStop("batch_failed", message)

    async def _lose(self, way: UnderWay, status: str) -> None:
        """Its results are gone: what has no answer may have been paid, keeps its money, and is asked again."""
        requests = dict(way.batch.requests)
        for _, usd in requests.values():
            self._asker.budget.settle(usd, usd)
        await self._asker.commit(lost_entry(way.batch.name, status))
        self._forget(way, requests, lambda _: _Missing("results_gone", again=True))

    async def _close(
        self, way: UnderWay, status: str, counts: Mapping[str, int], left: Callable[[str], _Missing]
    ) -> None:
        """Journal the end of a batch; what has no entry by now was not answered and cost nothing."""
        requests = dict(way.batch.requests)
        for _, usd in requests.values():
            self._asker.budget.settle(usd, 0.0)
        await self._asker.commit(over_entry(way.batch.name, status, counts))
        self._forget(way, requests, left)

    def _forget(
        self, way: UnderWay, requests: Mapping[str, tuple[str, float]], left: Callable[[str], _Missing]
    ) -> None:
        del self.under_way[way.batch.name]
        self._asker.lanes[way.desk.spec.alias].counts.in_flight -= len(requests)
        for key in requests:
            self._resolve(key, left(key))
        self.moved()

    async def cancel(self, way: UnderWay) -> Harvest:
        """Stop a batch at its vendor, then journal what was answered until then. Without `run()`.

        Raises:
            Stopped: the vendor cannot be asked; the batch stays open.
            NotAsked: the disk takes nothing more.
        """
        try:
            if not await self._is_created(way):
                return Harvest()
            assert way.batch.id is not None
            await way.desk.calls.cancel(way.batch.id)
            return await self.harvest(way, await self._state(way))
        except Stopped as stop:
            if stop.reason != "batch_api" or way.batch.id is None:
                raise
            unanswered = len(way.batch.requests)
            await self._lose(way, "unknown_to_vendor")
            return Harvest(unanswered=unanswered)

    async def give_up_orphans(self) -> None:
        """Count what nobody of this recipe can collect as possibly paid, so that it may be asked again."""
        while self.orphans:
            batch = self.orphans.pop()
            for _, usd in batch.requests.values():
                self._asker.budget.settle(usd, usd)
            await self._asker.commit(lost_entry(batch.name, "orphan"))

    async def close(self) -> None:
        """Release sockets."""
        for desk in self._desks.values():
            await desk.calls.vendor.close()


def _cost(
    price: Mapping[str, float | None] | None, completion: Completion, reserved_usd: float
) -> float | None:
    """At the price the batch was sent under; without reported usage the reservation, the upper bound."""
    if price is None:
        return None
    usage = completion.usage
    return reserved_usd if usage is None else cost_usd(Price.model_validate(price), usage)


def _content(taken: list[_Collected]) -> str:
    """The hash of a batch's lines."""
    whole = blake2b(digest_size=16)
    for item in taken:
        whole.update(item.line + b"\n")
    return whole.hexdigest()
