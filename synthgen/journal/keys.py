"""Millions of keys in sorted tables on disk: memory is 8 bytes for every 128 keys, where a dict takes 180 bytes a key.

In: keys with a number each (their place). Out: the place of a key. `SortedKeys` is one segment's, whole, as it is stored;
`KeyTable` is many segments', for looking up: its entries lie sorted in a file without a name, the first key of every
block of them in memory, so that one read finds a key. A table keeps 96 of a key's 128 bits: that one look-up in ten
million mistakes one of ten million keys for another has a chance of 1e-15.
Rejected: a search per segment (a miss would cost 85 of them at 10 M rows), keys mapped from disk (a file handle each,
and what is touched counts as memory), the table in memory (20 bytes a key, and as many while two become one).
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from synthgen.dataclasses import dataclass
from synthgen.keymap import KeyMap
from synthgen.spool import Spool

__all__ = ["U64", "KeyTable", "SortedKeys", "distinct", "with_segment"]

U64 = npt.NDArray[np.uint64]

_ENTRY = np.dtype([("high", ">u8"), ("middle", ">u4"), ("place", "<u8")])
_KEPT_BYTES = 12
_BLOCK = 128  # entries, 2,560 bytes: reading them takes no longer than reading one
_SLICE = 1 << 14  # entries that are merged at a time: 1.3 MiB; of four times as many, allocators kept some


@dataclass(frozen=True, slots=True)
class SortedKeys:
    """Keys in ascending order, each once: `high`, `low` are their halves, `place` the numbers."""

    high: U64
    low: U64
    place: U64

    @classmethod
    def of(cls, places: Mapping[bytes, int] | KeyMap) -> Self:
        """Sort a map."""
        halves = (
            np.frombuffer(b"".join(key for key, _ in places.items()), dtype=">u8")
            .reshape(-1, 2)
            .astype(np.uint64)
        )
        order = np.lexsort((halves[:, 1], halves[:, 0]))
        place = np.fromiter((place for _, place in places.items()), dtype=np.uint64, count=len(places))
        return cls(halves[order, 0], halves[order, 1], place[order])

    def __len__(self) -> int:
        return len(self.high)

    def items(self) -> Iterator[tuple[bytes, int]]:
        """Key and place, in key order."""
        raw = np.column_stack((self.high, self.low)).astype(">u8").tobytes()
        for number, place in enumerate(self.place.tolist()):
            yield raw[16 * number : 16 * number + 16], place


class KeyTable:
    """Keys of several segments, for ever as they are. A key that stands in several of them has the place of the last.

    Every method raises `StorageError` if the disk refuses.
    """

    def __init__(self, spool: Spool) -> None:
        """An empty one at the end of a spool, which other tables may share."""
        self._spool = spool
        self._start = spool.size_bytes
        self._fences = array("Q")  # the first key of every block
        self._size = 0

    @classmethod
    def of(cls, keys: SortedKeys, segment: int, spool: Spool) -> Self:
        """The keys of one segment; `segment` is added to their places."""
        entries = np.empty(len(keys), _ENTRY)
        entries["high"] = keys.high
        entries["middle"] = keys.low >> np.uint64(32)
        entries["place"] = keys.place | np.uint64(segment)
        table = cls(spool)
        table._append(entries)
        return table

    @classmethod
    def merged(cls, tables: Sequence["KeyTable"], spool: Spool) -> Self:
        """One table of several, the older ones first."""
        table = cls(spool)
        read = [0] * len(tables)
        for cut in _cuts(tables):
            parts = []
            for number, part in enumerate(tables):
                entries = part._below(cut, read[number])
                read[number] += len(entries)
                parts.append(entries)
            entries = np.concatenate(parts, dtype=_ENTRY)  # else in the machine's byte order
            # Stable: of equal keys the one of the last table stays last.
            table._append(entries[entries["high"].astype(np.uint64).argsort(kind="stable")])
        return table

    def _append(self, entries: npt.NDArray[np.void]) -> None:
        """Put entries behind those that are there, which are all smaller."""
        self._spool.append(entries.view(np.uint8).data)
        first = -self._size % _BLOCK  # a block may have been begun
        self._fences.frombytes(entries["high"][first::_BLOCK].astype(np.uint64).tobytes())
        self._size += len(entries)

    def _below(self, cut: int | None, start: int) -> npt.NDArray[np.void]:
        """The entries from number `start` on whose keys begin with less than `cut`; None: all."""
        end = self._size if cut is None else bisect_left(self._fences, cut) * _BLOCK
        entries = np.frombuffer(self._read(start, end), _ENTRY)
        if cut is None:
            return entries
        return entries[: entries["high"].astype(np.uint64).searchsorted(np.uint64(cut))]

    def _read(self, first: int, end: int) -> bytes:
        """Entries by their numbers."""
        size = max(0, min(end, self._size) - first) * _ENTRY.itemsize
        return self._spool.read(size, self._start + first * _ENTRY.itemsize)

    def __len__(self) -> int:
        return self._size

    def find(self, key: bytes) -> int | None:
        """The place of a key, or None."""
        head = int.from_bytes(key[:8])
        # One block, but for keys that begin alike and cross its border.
        first, end = max(bisect_left(self._fences, head) - 1, 0), bisect_right(self._fences, head)
        raw, kept, found = self._read(first * _BLOCK, end * _BLOCK), key[:_KEPT_BYTES], -1
        at = raw.find(kept)
        while at >= 0:
            if at % _ENTRY.itemsize == 0:
                found = at
            at = raw.find(kept, at + 1)
        if found < 0:
            return None
        return int.from_bytes(raw[found + _KEPT_BYTES : found + _ENTRY.itemsize], "little")

    def heads(self) -> U64:
        """The first 64 bits of every key, ascending."""
        heads = np.empty(self._size, np.uint64)
        for start in range(0, self._size, _SLICE):
            entries = np.frombuffer(self._read(start, start + _SLICE), _ENTRY)
            heads[start : start + _SLICE] = entries["high"]
        return heads


def _cuts(tables: Sequence[KeyTable]) -> Iterator[int | None]:
    """Keys that part the entries of all tables together into slices; None at the end."""
    fences = np.sort(np.concatenate([np.frombuffer(table._fences, np.uint64) for table in tables]))
    yield from fences[_SLICE // _BLOCK :: _SLICE // _BLOCK].tolist()
    yield None


def with_segment(
    tables: tuple[KeyTable, ...], keys: SortedKeys, segment: int, folder: Path
) -> tuple[KeyTable, ...]:
    """The tables and one more segment's. Each table is more than twice the next, so they stay few."""
    tables = (*tables, KeyTable.of(keys, segment, Spool(folder)))
    while len(tables) > 1 and len(tables[-2]) <= 2 * len(tables[-1]):
        tables = (*tables[:-2], KeyTable.merged(tables[-2:], Spool(folder)))
    return tables


def distinct(tables: tuple[KeyTable, ...], recent: list[KeyMap]) -> int:
    """How many keys there are, each counted once."""
    heads = [table.heads() for table in tables]
    heads += [
        np.frombuffer(b"".join(key for key, _ in keys.items()), ">u8")[::2].astype(np.uint64)
        for keys in recent
        if keys
    ]
    return int(np.unique(np.concatenate(heads)).size) if heads else 0
