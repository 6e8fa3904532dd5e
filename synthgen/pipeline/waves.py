"""Asking, wave by wave: rows are read lazily, grown through their steps, and handed on when their wave is closed.

In: root rows in plan order (`intake`). Out: closed waves in that order. Guarantees: at most `AHEAD` waves are open, or as many
as keep every place of the lanes in use or fill a batch; where several teachers share the first step, up to
`AHEAD_OF_TEACHER` rows, so that one that stands still holds up no other; with a target only as many rows are admitted as
the acceptance rate so far calls for; a row's reply leads to its next step as soon as it is there; a row that cannot be
asked now is simply left pending.
"""

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import field
from typing import TypeAlias

from synthgen.asking import Asker, NotAsked
from synthgen.asking.batch import Batches
from synthgen.dataclasses import dataclass
from synthgen.errors import StorageError
from synthgen.journal import Journal, Reply
from synthgen.pipeline.intake import Block, Intake
from synthgen.pipeline.progress import Progress
from synthgen.pipeline.tree import Ask, Leaf, Node, Tree, samples
from synthgen.pipeline.verdicts import Target
from synthgen.pipeline.windows import Windows

__all__ = ["Wave", "Waves"]

AHEAD = 8
# Rows that may be open while one teacher of several stands still; answered ones wait in memory for those before them
# (3 KiB each where answers are short: 50 MiB in all).
AHEAD_OF_TEACHER = 16_384
# Of the rows for each place in the lanes: those that are asked, or about to be, and those whose wave may still be open.
_ASKED, _OPEN = 2, 4
_AT_LEAST = 64
# Tasks of a run that are no rows; with them there are at most two for each place.
_OWN_TASKS = 8


@dataclass(slots=True)
class Wave:
    """A contiguous block of rows; `closed` is set when no row of it has anything left to ask.

    `leaves` are its candidates in plan order, one list a row.
    """

    number: int
    leaves: list[list[Leaf]]
    unfinished: int
    closed: asyncio.Event = field(default_factory=asyncio.Event)


_Row: TypeAlias = tuple[list[Ask | Leaf], Wave, int]


class Waves:
    """Feeds rows to the asker. Take `next_closed()` while `feed()` runs; call `settled` for every wave."""

    def __init__(
        self,
        intake: Intake,
        tree: Tree,
        asker: Asker,
        journal: Journal,
        progress: Progress,
        target: Target,
        *,
        size: int,
        leaves_per_row: int,
        note_order: Callable[[bytes], None],
        note_reply: Callable[[Ask, Sequence[Node | Leaf]], None],
        batches: Batches,
        batch_rows: int = 0,
    ) -> None:
        """`note_order` is given the 16-byte journal keys of admitted rows, in plan order; `note_reply` what each grew into.

        `batch_rows` above 0: teachers are asked in batches, which so many open rows should fill.
        """
        self.exhausted = self.cut_short = False
        self._unread = 0
        self._stopped = False
        self._intake = intake
        self._tree = tree
        self._note_order = note_order
        self._note_reply = note_reply
        self._asker = asker
        self._journal = journal
        self._progress = progress
        self._target = target
        self._size = size
        self._batches = batches
        # A row whose first question cannot be sent goes nowhere; later steps may have teachers of their own.
        self._asked_first = [alias for alias, _ in tree.steps[0].choices]
        places = sum(lane.concurrency for lane in asker.lanes.values())
        apart = AHEAD_OF_TEACHER if len(self._asked_first) > 1 else 0
        self._ahead = max(AHEAD, math.ceil(max(batch_rows, apart, _AT_LEAST + _OPEN * places) / size))
        # With a target: how many may be open beside the wave that is being settled.
        self._ahead_of_target = self._ahead if batch_rows else 1
        # Rows that wait for a batch, also one of an earlier session, must not keep out the others.
        in_batches = self._ahead * size if batch_rows or batches.under_way else 0
        own = {
            alias: sum(lane.concurrency for lane in asker.queues[alias].lanes) for alias in self._asked_first
        }
        later = (places - sum(own.values())) // len(own)  # of the other steps and the judges
        windows = {
            alias: max(_AT_LEAST, _ASKED * (own[alias] + later) - _OWN_TASKS, in_batches) for alias in own
        }
        self._windows: Windows[_Row] = Windows(windows, self._begin)
        self._free: list[asyncio.Future[tuple[str, _Row] | None]] = []  # tasks without a row
        self._fed = False
        self._group: asyncio.TaskGroup | None = None
        self._block: Block | None = None  # being admitted
        self._place = 0  # of the next row in it
        self._queue: asyncio.Queue[Wave | None] = asyncio.Queue()
        self._started_rows = 0
        self._settled_rows = 0
        self._started = 0
        self._settled = 0
        self._per_row = float(leaves_per_row)
        self._moved = asyncio.Event()

    async def feed(self, group: asyncio.TaskGroup) -> None:
        """Admit rows until the source ends or the target is met.

        Once nothing more can be asked, only on through rows of an earlier session: their answers are here. After a signal
        not even those: `cut_short` says that there were more.
        """
        self._group = group
        try:
            while await self._may_start():
                if self._asker.halted and self._intake.ahead:
                    return  # their answers are kept, and walking through a million rows takes minutes
                with self._batches.expecting():
                    block = await self._intake.take(self._next_size())
                    if block is None:
                        self.exhausted = True
                        return
                    if self._asker.exhausted(self._asked_first):
                        known = any(map(self._journal.index.has_row, block.keys))
                        self.cut_short = known and self._asker.halted == "interrupted"
                        if self.cut_short or not known:
                            self._unread = len(block.rows)
                            return
                    await self._start(block)
        except StorageError:
            # The journal refuses rows; it reports that itself. What is in flight is paid: it must not be cancelled.
            self._asker.halt("storage")
        finally:
            self._end_work()
            self._queue.put_nowait(None)

    def stop(self) -> None:
        """Admit nothing more, whatever was planned."""
        self._stopped = True
        self._moved.set()

    async def next_closed(self) -> Wave | None:
        """The next wave in plan order, once it is closed; None after the last."""
        wave = await self._queue.get()
        if wave is not None:
            await wave.closed.wait()
        return wave

    def settled(self, wave: Wave) -> None:
        """The verdicts of a wave are final (and counted in the target)."""
        self._settled += 1
        self._settled_rows += len(wave.leaves)
        if self._target.wanted is not None:
            # A wave without any acceptance halves the expectation instead of zeroing it.
            self._per_row = max(self._target.accepted / self._settled_rows, self._per_row / 2, 1e-3)
        self._moved.set()

    @property
    def open_waves(self) -> int:
        """Waves whose verdicts are not final."""
        return self._started - self._settled

    @property
    def held_back(self) -> int:
        """Admitted rows that wait for others of their teacher to end."""
        return self._windows.held

    def not_begun(self) -> list[list[Ask | Leaf]]:
        """The first questions of admitted rows that wait for others to end."""
        coming = self._block.asks[self._place :] if self._block else []
        return [first for first, _, _ in self._windows.waiting()] + coming

    @property
    def settled_rows(self) -> int:
        """Rows whose verdicts are final."""
        return self._settled_rows

    def rest(self) -> int:
        """Rows of the source that were never admitted; reads it to its end."""
        return self._unread + self._intake.rest()

    async def _may_start(self) -> bool:
        while True:
            if self._target.met or self._stopped:
                return False
            if self._target.wanted is not None and self._batches.deferred:
                return False  # what is needed further shows in the answers that nobody waits for now
            if self.open_waves == 0 or (self.open_waves < self._ahead and self._wants_more(self.open_waves)):
                return True
            self._moved.clear()
            await self._moved.wait()

    def _wants_more(self, open_waves: int) -> bool:
        if self._target.wanted is None:
            return True
        expected = (self._started_rows - self._settled_rows) * self._per_row
        return open_waves <= self._ahead_of_target and expected < self._target.wanted - self._target.accepted

    def _next_size(self) -> int:
        if self._target.wanted is None:
            return self._size
        expected = (self._started_rows - self._settled_rows) * self._per_row
        missing = self._target.wanted - self._target.accepted - expected
        return max(1, min(self._size, math.ceil(missing / self._per_row)))

    async def _start(self, block: Block) -> None:
        if new := self._intake.new_entries(block):
            self._journal.append(*new)
        self._note_order(bytes.fromhex("".join(block.keys)))
        rows = len(block.rows)
        wave = Wave(self._started, [[] for _ in block.rows], rows)
        self._started += 1
        self._started_rows += rows
        self._progress.rows_admitted += rows
        self._queue.put_nowait(wave)
        self._block = block
        for place, first in enumerate(block.asks):
            self._place = place
            await self._windows.room()
            # One that is not asked ends at once, whoever's place it has.
            alias = next((ask.alias for ask in first if isinstance(ask, Ask)), self._asked_first[0])
            self._windows.admit(alias, (first, wave, place))
        self._block = None

    def _begin(self, alias: str, row: _Row) -> None:
        """Give the row to a task that is free, or to a new one."""
        while self._free:
            free = self._free.pop()
            if not free.done():  # else the run is being cancelled
                free.set_result((alias, row))
                return
        assert self._group is not None  # rows come from `feed`
        self._group.create_task(self._work(alias, row))

    async def _work(self, alias: str, row: _Row) -> None:
        """One row after another: a task for each costs two microseconds more."""
        while True:
            first, wave, place = row
            try:
                leaves = self._leaves_of(first[0]) if len(first) == 1 else self._leaves(first)
                wave.leaves[place] = await leaves
            except BaseException:
                self._windows.close()
                raise
            finally:
                self._progress.rows_done += 1
                wave.unfinished -= 1
                if wave.unfinished == 0:
                    wave.closed.set()
                    self._moved.set()
            free: asyncio.Future[tuple[str, _Row] | None] = asyncio.get_running_loop().create_future()
            self._free.append(free)
            self._windows.ended(alias)  # which may give it one that was held back
            if self._fed and not free.done():
                self._free.pop()
                return
            if (given := await free) is None:
                return
            alias, row = given

    def _end_work(self) -> None:
        """No further row comes but those that are held back."""
        self._fed = True
        for free in self._free:
            if not free.done():
                free.set_result(None)
        self._free.clear()

    async def _leaves(self, asks: Sequence[Ask | Leaf]) -> list[Leaf]:
        """Everything behind these questions, in plan order; what cannot be asked now is pending."""
        if len(asks) == 1:
            return await self._leaves_of(asks[0])
        branches: list[list[Leaf]] = [[] for _ in asks]

        async def grow(places: list[int]) -> None:
            grown = await self._leaves_of_samples([asks[place] for place in places])
            for place, leaves in zip(places, grown, strict=True):
                branches[place] = leaves

        await asyncio.gather(*map(grow, samples(asks)))
        return [leaf for branch in branches for leaf in branch]

    async def _leaves_of_samples(self, asks: list[Ask | Leaf]) -> list[list[Leaf]]:
        """What is behind each of these samples of one question."""
        samples = [ask for ask in asks if isinstance(ask, Ask)]
        if len(samples) < 2:
            return [await self._leaves_of(ask) for ask in asks]
        replies = await self._asker.ask_samples(
            [ask.request for ask in samples], step=samples[0].step.name, alias=samples[0].alias
        )
        return await asyncio.gather(*map(self._leaves_after, samples, replies))

    async def _leaves_of(self, ask: Ask | Leaf) -> list[Leaf]:
        if isinstance(ask, Leaf):
            return [ask]
        try:
            reply = await self._asker.ask(ask.request, step=ask.step.name, alias=ask.alias)
        except NotAsked:
            return [self._tree.pending(ask)]
        leaves, further = self._grown(ask, reply)
        return await self._leaves(further) if further else leaves

    async def _leaves_after(self, ask: Ask, reply: Reply | NotAsked) -> list[Leaf]:
        if isinstance(reply, NotAsked):
            return [self._tree.pending(ask)]
        leaves, further = self._grown(ask, reply)
        return await self._leaves(further) if further else leaves

    def _grown(self, ask: Ask, reply: Reply) -> tuple[list[Leaf], list[Ask | Leaf]]:
        """What a reply leads to: leaves alone, or (with these in their places) what is to be asked further."""
        grown = self._tree.grow(ask, reply)
        self._note_reply(ask, grown)
        leaves = [item for item in grown if isinstance(item, Leaf)]
        if len(leaves) == len(grown):  # nearly always: nothing is left to ask
            return leaves, []
        asks = [[item] if isinstance(item, Leaf) else self._tree.asks(item) for item in grown]
        return leaves, [ask for asked in asks for ask in asked]
