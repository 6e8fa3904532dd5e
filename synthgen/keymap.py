"""A number for each of millions of 16-byte keys, where a dict takes 180 bytes a key: 20 to 30, or 2 to 3 with a spool.

In: keys that are digests (so that they spread evenly) and numbers below 2^32, or as many bytes as asked for. Out: the
number of a key. Looking up or adding one takes about a microsecond up to tens of millions, and nothing is ever moved at
once: no pause while it grows.

A key's first 12 bits choose its shard, a list of entries. With a spool, a shard that holds `_PAGE` entries puts them
there as one page and keeps a mark of each, one more byte of the key. 256 such marks cost a key that is not there one read
in vain, two microseconds; marks beyond them (from a million keys on) have two bytes and cost next to none.
Rejected: sorted arrays (`journal/keys.py`: they are looked up much more often than they change, these change with every
key), an open-addressed table (doubling it stops everything for a second at ten million keys), SQLite and a paged hash
file (three to eight times the time a key; they write every page again and again).
"""

from array import array
from collections.abc import Iterator

from synthgen.spool import Spool

__all__ = ["KeyMap"]

_SHARDS = 4096
_PAGE = 16  # entries: the shards then hold 65,536 at the most
_NARROW = 256  # entries of a shard that are marked with one byte; an even number, whole pages


class KeyMap:
    """Keys cannot be removed; the number of one can be set again.

    `kept_bytes`: so much of a key is looked at. With 10, the chance that two of ten million keys are taken for one is 4e-11.
    `spool`: what is to lie on disk; its errors come out of every method.
    """

    def __init__(self, *, number_bytes: int = 4, kept_bytes: int = 16, spool: Spool | None = None) -> None:
        self._number_bytes = number_bytes
        self._kept = kept_bytes
        self._rest = kept_bytes - 1  # the first byte is told by the shard
        self._entry = self._rest + number_bytes
        self._full = _PAGE * self._entry  # in memory, where there is a spool
        self._spool = spool
        self._recent: list[bytearray | None] = [None] * _SHARDS  # entries in memory
        self._marks: list[bytearray | None] = [None] * _SHARDS  # of entries on disk, in their order
        self._pages: list[array[int] | None] = [None] * _SHARDS  # where those are

    def __len__(self) -> int:
        stored = _PAGE * sum(len(pages) for pages in self._pages if pages)
        return stored + sum(len(recent) for recent in self._recent if recent) // self._entry

    def get(self, key: bytes) -> int | None:
        """The number of a key, None where it was never set."""
        shard, rest = (key[0] << 8 | key[1]) >> 4, key[1 : self._kept]
        recent = self._recent[shard]
        if recent is None:
            return None
        at = recent.find(rest)
        if at >= 0 and at % self._entry:
            at = self._find(recent, rest)
        if at >= 0:
            return int.from_bytes(recent[at + self._rest : at + self._entry])
        if self._marks[shard] is None:
            return None
        found = self._find_stored(shard, rest)
        return None if found is None else found[1]

    def set(self, key: bytes, number: int) -> int | None:
        """Give a key a number; returns the one it had.

        Raises:
            OverflowError: the number is negative, or too large.
        """
        shard, rest = (key[0] << 8 | key[1]) >> 4, key[1 : self._kept]
        raw = number.to_bytes(self._number_bytes)
        recent = self._recent[shard]
        if recent is None:
            self._recent[shard] = bytearray(rest + raw)
            return None
        at = recent.find(rest)
        if at >= 0 and at % self._entry:
            at = self._find(recent, rest)
        if at >= 0:
            before = int.from_bytes(recent[at + self._rest : at + self._entry])
            recent[at + self._rest : at + self._entry] = raw
            return before
        if self._spool is not None:
            if self._marks[shard] is not None and (found := self._find_stored(shard, rest)) is not None:
                self._spool.write(raw, found[0] + self._rest)
                return found[1]
            if len(recent) == self._full:
                self._store(shard, recent, self._spool)
        recent += rest + raw
        return None

    def items(self) -> Iterator[tuple[bytes, int]]:
        """Every key, as far as it is kept, and its number, in no order."""
        for shard, recent in enumerate(self._recent):
            head = bytes([shard >> 4])
            for raw in (*self._read_pages(shard), recent or b""):
                for at in range(0, len(raw), self._entry):
                    entry = raw[at : at + self._entry]
                    yield head + entry[: self._rest], int.from_bytes(entry[self._rest :])

    def _find(self, entries: bytes | bytearray, rest: bytes) -> int:
        """Where the entry with this rest of a key starts, -1 for nowhere; what crosses entries is none."""
        at = entries.find(rest)
        while at >= 0 and at % self._entry:
            at = entries.find(rest, at + 1)
        return at

    # On disk

    def _store(self, shard: int, recent: bytearray, spool: Spool) -> None:
        """Move the entries of a shard to disk."""
        page = spool.append(recent) // len(recent)
        marks, pages = self._marks[shard], self._pages[shard]
        if marks is None or pages is None:
            marks, pages = self._marks[shard], self._pages[shard] = bytearray(), array("I")
        if len(marks) < _NARROW:
            marks += recent[1 :: self._entry]
        else:
            for at in range(0, len(recent), self._entry):
                marks += recent[at + 1 : at + 3]
        pages.append(page)
        recent.clear()

    def _find_stored(self, shard: int, rest: bytes) -> tuple[int, int] | None:
        """Where in the spool the entry with this rest of a key starts, and its number."""
        marks, pages = self._marks[shard], self._pages[shard]
        if marks is None or pages is None or self._spool is None:
            return None
        for number in _alike(marks, rest):
            page, place = divmod(number, _PAGE)
            start = (pages[page] * _PAGE + place) * self._entry
            entry = self._spool.read(self._entry, start)
            if entry.startswith(rest):
                return start, int.from_bytes(entry[self._rest :])
        return None

    def _read_pages(self, shard: int) -> Iterator[bytes]:
        size = _PAGE * self._entry
        for page in self._pages[shard] or ():
            assert self._spool is not None  # that is where pages are
            yield self._spool.read(size, page * size)


def _alike(marks: bytearray, rest: bytes) -> Iterator[int]:
    """Numbers of the entries on disk that have the mark of this rest of a key."""
    narrow, wide = rest[1], rest[1:3]
    at = marks.find(narrow, 0, _NARROW)
    while at >= 0:
        yield at
        at = marks.find(narrow, at + 1, _NARROW)
    at = marks.find(wide, _NARROW)
    while at >= 0:
        if at % 2 == 0:  # else the halves of two marks
            yield (at + _NARROW) // 2
        at = marks.find(wide, at + 1)
