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
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from functools import partial
from typing import cast

from synthgen.asking.ask import Asker, NotAsked, TeacherSpec
from synthgen.asking.batch.calls import Calls, Stopped
from synthgen.asking.batch.desk import Collected, Desk, UnderWay, prepared_batch
from synthgen.asking.batch.harvest import Harvest, Missing
from synthgen.asking.batch.vendor import Pace, ResultsGone, State
from synthgen.asking.lanes import Lane, LaneStopped, Queue
from synthgen.asking.outcome import Answer, LaneStop
from synthgen.dataclasses import dataclass
from synthgen.journal import (
    Circumstances,
    Entry,
    OpenBatch,
    failure_entry,
    lost_entry,
    over_entry,
    prepared_entry,
    submitted_entry,
)
from synthgen.types import Request

__all__ = ["Batches"]

# Results committed at once: one disk flush, and 256 answers at most to read again after a crash.
_CHUNK = 256
# The vendor's queue of tokens is full until other batches are done; a smaller batch may fit.
_QUEUE_FULL = "token_limit_exceeded"


@dataclass(slots=True)
class _Waiter:
    request: Request
    done: asyncio.Future[Entry | Missing]
    tries: int


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
        self._queues = {
            name: asker.queues[alias]
            for alias, spec in specs.items()
            for name in (alias, *(host.alias for host in spec.hosts))
        }
        self._desks: dict[str, Desk] = {}
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
        if self._desks or self.orphans:
            asker.batches = self

    def _desk(self, spec: TeacherSpec) -> Desk:
        """The desk of a teacher; opening it imports an SDK."""
        if spec.alias not in self._desks:
            calls = self._connect(spec, self._pace)
            self._desks[spec.alias] = Desk(spec, calls, calls.vendor.most_requests)
        return self._desks[spec.alias]

    def _take_up(self, batch: OpenBatch) -> None:
        """Go on with what an earlier session left: its money stays reserved."""
        for _, usd in batch.requests.values():
            self._asker.budget.hold(usd)
        fitting = [
            host
            for spec in self._specs.values()
            for host in spec.hosts
            if (host.config.provider, host.endpoint) == (batch.provider, batch.endpoint)
        ]
        fitting.sort(key=lambda host: host.alias != batch.teacher)
        if not fitting:
            self.orphans.append(batch)
            self._set_aside(batch)
            return
        way = self.under_way[batch.name] = UnderWay(batch, self._desk(fitting[0]))
        self._lane(way).counts.in_flight += len(batch.requests)

    def _set_aside(self, batch: OpenBatch) -> None:
        """This session does not see its end: nobody is to wait for its money."""
        for _, usd in batch.requests.values():
            self._asker.budget.set_aside(usd)

    def _lane(self, way: UnderWay) -> Lane:
        return self._asker.lanes[way.desk.spec.alias]

    def _stop(self, way: UnderWay, reason: str, message: str) -> None:
        """Its teacher's server answers nothing more in this session."""
        self._queues[way.desk.spec.alias].stop(self._lane(way), reason, message)

    # Asking

    def takes(self, key: str, spec: TeacherSpec) -> bool:
        """Whether this request goes, or has gone, in a batch."""
        return spec.mode == "batch" or self.holds(key)

    def holds(self, key: str) -> bool:
        """Whether this request is in a batch that is not over."""
        return self._is_under_way(key) or self._is_elsewhere(key)

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
        tries = billed = 0
        while True:
            if self._halted is not None:
                raise NotAsked(self._halted)
            if self._is_elsewhere(key):
                raise NotAsked("batch_elsewhere")
            if not self._is_under_way(key):
                if spec.mode != "batch":
                    return None
                self._queues[spec.alias].require_open()
                self._desks[spec.alias].collect(request, key, step)
            result = await self._result(request, key, tries)
            if not isinstance(result, Missing):
                return result
            if not result.again:
                raise NotAsked(result.reason)
            if result.wait_s:
                await self._queues[spec.alias].wait_outside(result.wait_s)
            tries, billed = tries + 1, billed + result.billed
            if self._asker.policy.exhausted(tries) or self._asker.policy.paid_enough(billed):
                if not result.final:
                    raise NotAsked(result.reason)
                self._require_answers(self._queues[spec.alias], tries, result)
                at = Circumstances(step, spec.alias, spec.endpoint, tries, round(time.time(), 3), 0.0)
                entry = failure_entry(key, f"gave_up:{result.reason}", result.message, at)
                await self._asker.commit(entry)
                return entry

    @staticmethod
    def _require_answers(queue: Queue, tries: int, last: Missing) -> None:
        """Stop a teacher that answered nobody: its batches make no failures.

        Raises:
            NotAsked: it did not.
        """
        if any(lane.counts.answered for lane in queue.lanes):
            return
        said = f"nobody got an answer in {tries} batches; the last: {last.reason}: {last.message}"
        queue.stop_all("unanswered", f"{said}; see with `synthgen doctor` how the server answers")
        raise NotAsked("unanswered")

    async def _result(self, request: Request, key: str, tries: int) -> Entry | Missing:
        waiter = self._waiting[key] = _Waiter(request, asyncio.get_running_loop().create_future(), tries)
        self.moved()
        try:
            return await waiter.done
        finally:
            del self._waiting[key]
            for desk in self._desks.values():
                desk.drop(key)

    def _resolve(self, key: str, result: Entry | Missing) -> None:
        waiter = self._waiting.get(key)
        if waiter is not None and not waiter.done.done():
            waiter.done.set_result(result)

    def _send_away(self, keys: Iterable[str], reason: str) -> None:
        for key in tuple(keys):
            self._resolve(key, Missing(reason))

    def _tries(self, key: str) -> int:
        """How often a request was sent, in this session."""
        waiter = self._waiting.get(key)
        return 1 + (waiter.tries if waiter else 0)

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
        self._send_away(self._waiting.keys() - self._kept, reason)

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
                    while desk.is_full and await self._submit(desk, group):
                        pass
                if not self._quiet():
                    await self._movement.wait()
                    continue
                try:
                    async with asyncio.timeout(self._pace.linger_s):
                        await self._movement.wait()
                except TimeoutError:
                    await self._flush(group)

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
        self._send_away(deferred, "batch")
        if not submitted and not deferred:
            await self._movement.wait()  # only a harvest can make room under the cap

    # Submitting

    async def _submit(self, desk: Desk, group: asyncio.TaskGroup) -> bool:
        """Submit one batch; False where nothing can be submitted now."""
        try:
            self._queues[desk.spec.alias].require_open()
        except LaneStopped as stop:
            self._send_away(desk.collected, stop.reason)
            return False
        taken = desk.take(self._asker.budget)
        if not taken:
            await self._require_money(desk)
            return False
        keys = {item.key for item in taken}
        self._kept |= keys
        try:
            way = await self._send(desk, taken)
        except NotAsked as refused:  # the disk takes nothing more
            self._send_away(keys, refused.reason)
            return False
        finally:
            self._kept -= keys
        if self._halted is not None:
            self.halt(self._halted)
        if way is None:
            return False
        way.looked_at = not self._wait
        if self._wait:
            group.create_task(self._follow(way))
        else:
            self._set_aside(way.batch)
        return True

    async def _require_money(self, desk: Desk) -> None:
        """Nothing fits under the cap: what is under way may make room; where nothing is, the cap is reached."""
        budget = self._asker.budget
        if budget.reached is None and budget.waits:
            return
        try:
            await self._asker.reserve(next(iter(desk.collected.values())).usd)
        except NotAsked as reached:
            self._send_away(desk.collected, reached.reason)

    async def _send(self, desk: Desk, taken: list[Collected]) -> UnderWay | None:
        """Bring a batch to its vendor, journaling each step; None where that did not succeed."""
        batch = await asyncio.to_thread(prepared_batch, desk, taken)
        await self._asker.commit(prepared_entry(batch))
        order = tuple(item.key for item in taken)
        way = UnderWay(self._asker.journal.index.open_batches[batch.name], desk, order)
        self.under_way[batch.name] = way
        counts = self._lane(way).counts
        counts.sent += len(taken)
        counts.in_flight += len(taken)
        self._asker.sent += len(taken)
        try:
            vendor_id = await desk.calls.submit(way.ticket(self._run), [item.line for item in taken])
        except Stopped as stop:
            self._stop(way, stop.reason, str(stop))
            if stop.created:
                self._set_aside(way.batch)
                self._send_away(way.batch.requests, stop.reason)
            else:
                unsent = Missing(stop.reason)
                await self._close(way, "never_created", {}, lambda _: unsent)
            return None
        await self._asker.commit(submitted_entry(batch.name, vendor_id))
        return way

    # Waiting and harvesting

    async def _follow(self, way: UnderWay) -> None:
        """Await one batch and harvest it."""
        try:
            if not await self._is_created(way):
                return
            state = await self._state(way)
            if state.over:
                await self.harvest(way, state)
            else:
                self._set_aside(way.batch)
        except Stopped as stop:
            self._set_aside(way.batch)
            self._stop(way, stop.reason, str(stop))
            self._send_away(way.batch.requests, stop.reason)
        except NotAsked as refused:  # the disk takes nothing more
            self._send_away(way.batch.requests, refused.reason)
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
        if way.batch.id is not None:
            return True
        vendor_id = await way.desk.calls.recover(way.ticket(self._run))
        if vendor_id is None:
            await self._close(way, "never_created", {}, lambda _: Missing("never_created", again=True))
            return False
        await self._asker.commit(submitted_entry(way.batch.name, vendor_id))
        return True

    async def harvest(self, way: UnderWay, state: State) -> Harvest:
        """Journal every result of a batch that is over, and close it.

        Raises:
            Stopped: its results cannot be read now; what was journaled stays, the batch stays open.
            NotAsked: the disk takes nothing more.
        """
        harvest = Harvest(way.batch)
        keys = set(way.batch.requests)
        self._kept |= keys
        try:
            if state.problem is None:
                await way.desk.calls.patiently(lambda: self._read_results(way, state, harvest))
            elif state.problem.code == _QUEUE_FULL:
                way.desk.most = max(1, way.batch.total // 2)
                later = Missing(_QUEUE_FULL, again=True, wait_s=self._pace.longest_poll_s)
                harvest.missing = dict.fromkeys(keys, later)
            else:
                harvest.add_refusal(state.problem, way.desk.calls.read(state.problem), way.order)
            await self._finish(way, state, harvest)
        except ResultsGone:
            await self._lose(way, state.status)
        finally:
            self._kept -= keys
        return harvest

    async def _read_results(self, way: UnderWay, state: State, harvest: Harvest) -> None:
        """Read all results; begun again after a broken connection, it goes on where it was."""
        async with aclosing(way.desk.calls.outcomes(state, way.question)) as outcomes:
            async for key, outcome in outcomes:
                harvest.add(key, outcome, self._tries(key))
                if isinstance(outcome, Answer) and key in self._waiting:
                    self._watch_schema(way, self._waiting[key].request, outcome, harvest)
                if len(harvest.ready) >= _CHUNK:
                    await self._store(way, harvest)

    def _watch_schema(self, way: UnderWay, request: Request, answer: Answer, harvest: Harvest) -> None:
        host = way.desk.spec.endpoint
        said = self._asker.schemas.objection(self._lane(way).name, request, answer.completion, host=host)
        if said is not None and harvest.stop is None:
            harvest.stop = LaneStop("schema_ignored", said)

    async def _store(self, way: UnderWay, harvest: Harvest) -> None:
        """Make a chunk durable, then hand it out."""
        chunk, harvest.ready = harvest.ready, []
        counts = self._lane(way).counts
        for settled in chunk:
            self._asker.budget.settle(settled.reserved_usd, settled.usd)
            harvest.usd += settled.usd
            counts.in_flight -= 1
            counts.answered += settled.entry["t"] == "R"
            usage = cast(dict[str, int] | None, settled.entry.get("usage"))
            counts.output_tokens += usage["output_tokens"] if usage else 0
        if chunk:
            await self._asker.commit(*(settled.entry for settled in chunk))
        for settled in chunk:
            key = str(settled.entry["k"])
            self._resolve(key, harvest.missing[key] if settled.entry["t"] == "X" else settled.entry)

    async def _finish(self, way: UnderWay, state: State, harvest: Harvest) -> None:
        """What is left of a batch: failures, then what was not answered."""
        tries = {key: self._tries(key) for key in harvest.refused}
        rate = way.desk.spec.config.stop_at_refusal_rate
        harvest.fail_refused(tries, alive=self._lane(way).counts.answered > 0, rate=rate)
        await self._store(way, harvest)
        harvest.unanswered = len(way.batch.requests)
        if state.status == "cancelled" and harvest.unanswered:
            harvest.note_cancelled()
        if harvest.stop is not None:
            self._stop(way, harvest.stop.reason, harvest.stop.message)
        await self._close(way, state.status, harvest.counts(), lambda key: harvest.left(key, state))

    async def _lose(self, way: UnderWay, status: str) -> None:
        """Its results are gone: what has no answer may have been paid, keeps its money, and is asked again."""
        requests = dict(way.batch.requests)
        for _, usd in requests.values():
            self._asker.budget.settle(usd, usd)
        await self._asker.commit(lost_entry(way.batch.name, status))
        self._forget(way, requests, lambda _: Missing("results_gone", again=True, billed=True))

    async def _close(
        self, way: UnderWay, status: str, counts: Mapping[str, int], left: Callable[[str], Missing]
    ) -> None:
        """Journal the end of a batch; what has no entry by now was not answered and cost nothing."""
        requests = dict(way.batch.requests)
        for _, usd in requests.values():
            self._asker.budget.settle(usd, 0.0)
        await self._asker.commit(over_entry(way.batch.name, status, counts))
        self._forget(way, requests, left)

    def _forget(
        self, way: UnderWay, requests: Mapping[str, tuple[str, float]], left: Callable[[str], Missing]
    ) -> None:
        del self.under_way[way.batch.name]
        self._lane(way).counts.in_flight -= len(requests)
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
                return Harvest(way.batch)
            assert way.batch.id is not None
            await way.desk.calls.cancel(way.batch.id)
            return await self.harvest(way, await self._state(way))
        except Stopped as stop:
            if stop.reason != "batch_api" or way.batch.id is None:
                raise
            unanswered = len(way.batch.requests)
            await self._lose(way, "unknown_to_vendor")
            return Harvest(way.batch, unanswered=unanswered)

    async def give_up_orphans(self) -> None:
        """Count what nobody of this recipe can collect as possibly paid, so that it may be asked again."""
        while self.orphans:
            batch = self.orphans.pop()
            await self._asker.commit(lost_entry(batch.name, "orphan"))

    async def close(self) -> None:
        """Release sockets."""
        for desk in self._desks.values():
            await desk.calls.vendor.close()
