"""Millions of keys in sorted arrays: 20 bytes each, where a Python dict takes about 180.

In: keys with a number each (their place). Out: the place of a key. `SortedKeys` is one segment's, whole, as it is stored;
`KeyTable` is many segments', for looking up. A table keeps 96 of a key's 128 bits: that one look-up in ten million
mistakes one of ten million keys for another has a chance of 1e-15.
Rejected: a search per segment (a miss would cost 85 of them at 10 M rows), keys mapped from disk (a file handle each).
"""

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from synthgen.keymap import KeyMap

__all__ = ["U64", "KeyTable", "SortedKeys"]

U64 = npt.NDArray[np.uint64]
U32 = npt.NDArray[np.uint32]

_HEAD = struct.Struct(">QI")


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
    """Keys of several segments. A key that stands in several of them has the place of the last."""

    def __init__(self, high: U64, middle: U32, place: U64) -> None:
        self._high, self._middle, self._place = high, middle, place

    @classmethod
    def empty(cls, size: int) -> Self:
        """Room for `size` keys; `fill` it, then `sort` it."""
        return cls(np.empty(size, np.uint64), np.empty(size, np.uint32), np.empty(size, np.uint64))

    def fill(self, start: int, keys: SortedKeys, segment: int) -> int:
        """Put in the keys of a segment from `start` on; returns where the next go. Older segments come first."""
        end = start + len(keys)
        self._high[start:end] = keys.high
        self._middle[start:end] = keys.low >> np.uint64(32)
        self._place[start:end] = keys.place | np.uint64(segment)
        return end

    def sort(self) -> None:
        """Make ready for looking up. Stable: of equal keys the one filled in last stays last."""
        order = self._high.argsort(kind="stable")
        self._high = self._high[order]
        self._middle = self._middle[order]
        self._place = self._place[order]

    @classmethod
    def merged(cls, tables: Iterable["KeyTable"]) -> Self:
        """One table of several, the older ones first."""
        parts = list(tables)
        table = cls(
            np.concatenate([part._high for part in parts]),
            np.concatenate([part._middle for part in parts]),
            np.concatenate([part._place for part in parts]),
        )
        table.sort()
        return table

    def __len__(self) -> int:
        return len(self._high)

    def find(self, key: bytes) -> int | None:
        """The place of a key, or None."""
        high, middle = _HEAD.unpack_from(key)
        at = int(self._high.searchsorted(np.uint64(high), "right")) - 1
        while at >= 0 and self._high[at] == high:
            if self._middle[at] == middle:
                return int(self._place[at])
            at -= 1
        return None

    def heads(self) -> U64:
        """The first 64 bits of every key, ascending."""
        return self._high
