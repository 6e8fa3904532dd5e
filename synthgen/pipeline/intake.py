"""Root rows with their first questions, in plan order: for whoever admits them, at once or after they were read ahead.

In: the rows of a source. Out: blocks of them, with their journal keys and first questions. Guarantees: a row is numbered
once, in plan order, whoever reads it; what is read ahead is durable in the journal, and is given out again first, with
the same numbers. Until then it takes no memory: 50 bytes a row, in a file without a name.
"""

import asyncio
from collections.abc import Iterator
from itertools import islice

import orjson

from synthgen.dataclasses import dataclass
from synthgen.journal import Entry, Journal
from synthgen.pipeline.rows import Counter, Numbers, Row, row_entry, row_from_entry
from synthgen.pipeline.tree import Ask, Leaf, Tree
from synthgen.spool import Spool

__all__ = ["Block", "Intake"]

_YIELD_EVERY = 16


@dataclass(frozen=True, slots=True)
class Block:
    """Neighbours in plan order; `keys` are those of their journal entries, `asks` the first questions of each."""

    rows: list[Row]
    keys: list[str]
    asks: list[list[Ask | Leaf]]


class Intake:
    """See the module. `ahead`: how many rows were read ahead and not taken yet. Errors of the disk come out of every method."""

    def __init__(self, rows: Iterator[Row], tree: Tree, journal: Journal) -> None:
        self.ahead = 0
        self._rows, self._tree, self._journal = rows, tree, journal
        self._seen = Counter(journal.index.folder)
        self._reading = asyncio.Lock()  # rows are numbered in plan order
        self._spool = Spool(journal.index.folder)
        self._next = 0  # in it, the first block that was not taken

    async def take(self, size: int) -> Block | None:
        """The next block, of `size` rows or as it was read ahead; None at the end of the source."""
        async with self._reading:
            if self.ahead:
                return await self._take_back()
            return await self._admit(list(islice(self._rows, size)), self._seen)

    async def read_ahead(self, size: int) -> Block | None:
        """The next block that nobody has read; `take` gives it out again. None at the end of the source."""
        async with self._reading:
            numbers = _Noted(self._seen)
            block = await self._admit(list(islice(self._rows, size)), numbers)
            if block is None:
                return None
            if new := self.new_entries(block):
                await self._journal.commit(*new)
            raw = orjson.dumps([block.keys, numbers.given])
            self._spool.append(len(raw).to_bytes(4) + raw)
            self.ahead += len(block.rows)
            return block

    def new_entries(self, block: Block) -> list[Entry]:
        """The journal entries of rows that it does not hold yet."""
        known = self._journal.index.has_row
        return [
            row_entry(row, key) for row, key in zip(block.rows, block.keys, strict=True) if not known(key)
        ]

    def rest(self) -> int:
        """Rows that were never taken; reads the source to its end."""
        return self.ahead + sum(1 for _ in self._rows)

    async def _take_back(self) -> Block:
        start = self._next + 4
        size = int.from_bytes(self._spool.read(4, self._next))
        keys, given = orjson.loads(self._spool.read(size, start))
        self._next = start + size
        self.ahead -= len(keys)
        if not self.ahead:
            self._spool.close()
            self._next = 0
        rows = []
        for number, key in enumerate(keys):
            entry = self._journal.index.row(key)
            assert entry is not None  # durable since it was read
            rows.append(row_from_entry(entry))
            if number % _YIELD_EVERY == 0:
                await asyncio.sleep(0)
        block = await self._admit(rows, _Given(given))
        assert block is not None
        return block

    async def _admit(self, rows: list[Row], numbers: Numbers) -> Block | None:
        asks = []
        for number, row in enumerate(rows):
            asks.append(self._tree.admit(row, numbers))
            if number % _YIELD_EVERY == 0:
                await asyncio.sleep(0)
        return Block(rows, [row.entry_key for row in rows], asks) if rows else None


class _Noted:
    """A counter's numbers as they are given."""

    def __init__(self, counter: Counter) -> None:
        self.given: list[int] = []
        self._counter = counter

    def next(self, key: str) -> int:
        number = self._counter.next(key)
        self.given.append(number)
        return number


class _Given:
    """The same numbers in the same order."""

    def __init__(self, given: list[int]) -> None:
        self._given = iter(given)

    def next(self, key: str) -> int:
        return next(self._given)
