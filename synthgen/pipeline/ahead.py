"""Asking ahead of rows that wait for a teacher who stands still, so that it holds up no other one.

In: a look at the queues every few seconds, and rows that nobody has admitted. Out: replies in the journal, of every other
teacher, up to the source's end. Nothing else is kept of such a row: it is admitted in its turn, as if it had not been read,
and finds its answers. Guarantees: while every teacher answers, or is only slow, nothing is asked ahead; of a teacher there are
at most two questions for each place of its lanes; whoever stands still, or has no place free for a later step, is left to the row's turn.
Rejected: holding such rows open (3 KiB each for their leaves, 10 KiB for their tasks, so that thousands are the most), and
asking ahead of a slow teacher (the run ends with it anyhow, and under a cap the money would go into halves of records).
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from synthgen.asking import Asker, NotAsked
from synthgen.asking.lanes import Queue
from synthgen.errors import StorageError
from synthgen.journal import Reply
from synthgen.pipeline.intake import Intake
from synthgen.pipeline.tree import Ask, Leaf, Node, Tree, samples

__all__ = ["Ahead", "Standstill"]

# Questions for each place: those that are asked, and those that are next.
_ASKED = 2


class Standstill:
    """Who has said nothing of any request for `still_s`, though somebody waits for that. Call `look` every few seconds."""

    def __init__(
        self, queues: Mapping[str, Queue], still_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._queues, self._still_s, self._clock = queues, still_s, clock
        self._last = {alias: (0, clock()) for alias in queues}

    def look(self) -> frozenset[str]:
        """Their aliases."""
        now = self._clock()
        for alias, queue in self._queues.items():
            said = sum(lane.counts.told for lane in queue.lanes)
            if said != self._last[alias][0] or queue.ended or not queue.busy:
                self._last[alias] = said, now
        return frozenset(alias for alias, (_, at) in self._last.items() if now - at >= self._still_s)


class Ahead:
    """See the module. `admitted`: first questions of rows whose turn has come, but not their place; they go before those
    that are read ahead, in blocks of `size`. `say` is told once of each teacher that others are asked ahead of."""

    def __init__(
        self,
        intake: Intake,
        tree: Tree,
        asker: Asker,
        *,
        admitted: Callable[[], list[list[Ask | Leaf]]],
        size: int,
        still_s: float,
        say: Callable[[str], None],
    ) -> None:
        self._intake, self._tree, self._asker = intake, tree, asker
        self._admitted, self._size, self._still_s, self._say = admitted, size, still_s, say
        self._standstill = Standstill(asker.queues, still_s)
        self._still: frozenset[str] = frozenset()
        self._said: set[str] = set()
        self._first = [alias for alias, _ in tree.steps[0].choices]
        # Of each step and teacher: who waits for a place further on holds none that it waits for.
        self._free = {
            (step.name, alias): _ASKED * sum(lane.concurrency for lane in asker.queues[alias].lanes)
            for step in tree.steps
            for alias, _ in step.choices
        }
        self._moved = asyncio.Event()
        self._at_work = False
        self._group: asyncio.TaskGroup | None = None

    def begin(self, group: asyncio.TaskGroup) -> None:
        """From now on `look` may start tasks in this group."""
        self._group = group

    def look(self) -> None:
        """See who stands still; ask on while somebody does."""
        if self._group is None:
            return
        self._still = self._standstill.look()
        self._moved.set()
        if self._still and not self._at_work and any(map(self._is_idle, self._first)):
            self._at_work = True
            self._tell()
            self._group.create_task(self._go_on(self._group))

    @property
    def still(self) -> tuple[str, ...]:
        """The teachers who stand still, by name."""
        return tuple(sorted(self._still))

    def end(self) -> None:
        """Ask nothing more ahead: every row is admitted, or none is to be."""
        self._group, self._still = None, frozenset()
        self._moved.set()

    def _tell(self) -> None:
        if new := sorted(self._still - self._said):
            self._said |= self._still
            self._say(
                f"{', '.join(new)}: no answer for {self._still_s:g} s; rows that wait for it are left aside, and the other "
                "teachers are asked on"
            )

    def _is_idle(self, alias: str) -> bool:
        return self._may_be_asked(alias) and not self._asker.queues[alias].waiting

    def _may_be_asked(self, alias: str) -> bool:
        return bool(self._still) and alias not in self._still and not self._asker.queues[alias].ended

    async def _go_on(self, group: asyncio.TaskGroup) -> None:
        """Read and ask while somebody stands still."""
        try:
            await self._ask_rows(group, self._admitted())
            while self._still and (block := await self._intake.read_ahead(self._size)) is not None:
                await self._ask_rows(group, block.asks)
        except StorageError:
            self._asker.halt("storage")  # the journal reports it
        finally:
            self._at_work = False

    async def _ask_rows(self, group: asyncio.TaskGroup, rows: Iterable[list[Ask | Leaf]]) -> None:
        for questions in _questions(ask for asks in rows for ask in asks):
            while self._still and not any(map(self._may_be_asked, self._first)):
                await self._movement()
            await self._ask(group, questions)

    async def _ask(self, group: asyncio.TaskGroup, questions: Sequence[Ask]) -> None:
        """Ask samples of one question as soon as there is a place; not at all where their teacher is left aside."""
        alias, place = questions[0].alias, _place(questions)
        while self._may_be_asked(alias) and not self._free[place]:
            await self._movement()
        if self._may_be_asked(alias):
            self._free[place] -= 1
            group.create_task(self._answer(group, questions))

    async def _answer(self, group: asyncio.TaskGroup, questions: Sequence[Ask]) -> None:
        """Ask, and what comes next. The place is kept until that has one: no step runs away from the next."""
        try:
            replies = await self._replies(questions)
            if not any(map(self._may_be_asked, self._next_teachers(questions[0]))):
                return
            for ask, reply in zip(questions, replies, strict=True):
                grown = [] if isinstance(reply, NotAsked) else self._tree.grow(ask, reply)
                for node in grown:
                    if isinstance(node, Node):
                        for further in _questions(self._tree.asks(node)):
                            await self._ask(group, further)
        finally:
            self._free[_place(questions)] += 1
            self._moved.set()

    async def _replies(self, questions: Sequence[Ask]) -> Sequence[Reply | NotAsked]:
        requests, alias, step = [ask.request for ask in questions], questions[0].alias, questions[0].step.name
        if len(requests) > 1:
            return await self._asker.ask_samples(requests, step=step, alias=alias)
        try:
            return [await self._asker.ask(requests[0], step=step, alias=alias)]
        except NotAsked as stop:
            return [stop]

    def _next_teachers(self, ask: Ask) -> list[str]:
        depth = ask.node.depth + 1
        return [alias for step in self._tree.steps[depth : depth + 1] for alias, _ in step.choices]

    async def _movement(self) -> None:
        self._moved.clear()
        await self._moved.wait()


def _place(questions: Sequence[Ask]) -> tuple[str, str]:
    return questions[0].step.name, questions[0].alias


def _questions(asks: Iterable[Ask | Leaf]) -> list[list[Ask]]:
    """Those that are to be asked, samples of one question together."""
    real = [ask for ask in asks if isinstance(ask, Ask)]
    return [[real[place] for place in places] for places in samples(real)]
