"""Near duplicates of a whole set of texts: candidates from bands, exact verification.

In: band keys of every row (`synthgen.refine.minhash`), the order in which rows may survive, and a way to read texts.
Out: verified pairs, which `synthgen.refine.clusters` settles. Guarantees: a pair that leaves here has an exact Jaccard of
at least the threshold; the result depends on texts and order alone, not on pieces, threads or the kernel.
Rejected: dictionaries of buckets (a sort per band needs no object per row), and unverified pairs (on templated rows nearly
all of them are wrong).

    1  equal texts (shingles counted with repeats): the first of them stands for all
    2  per band: sort, equal keys meet; a run of up to `HOT` rows gives all pairs, a longer one a star and a chain
    3  the exact Jaccard of every pair, a block at a time

A pair is one number of two places in the order; the first place is the one that may survive.

Axes: N rows, E pairs, M members of a run or a block.
"""

# ruff: noqa: N803, N806, N815  # arrays carry their axes in their names
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from synthgen.dataclasses import dataclass
from synthgen.refine.clusters import Duplicates, Edges, join_pair, settle, split_pair
from synthgen.refine.minhash import MinHasher
from synthgen.refine.minhash_rule import BandKeys, MinHashRule
from synthgen.refine.shingles import F64, I64, U64

__all__ = ["Candidates", "Jaccards", "Keys", "KeysInMemory", "candidates", "near_duplicates", "places"]

# A longer run of equal keys is a template, or a cluster whose first row finds the others by the star: all pairs of
# it would grow with its square. At 16 a band gives at most 7.5 pairs a row.
HOT = 16
MANY_PAIRS = 1 << 20  # found pairs that wait to be freed of repeats
BLOCK_PAIRS = 1 << 10  # pairs verified at once by a thread: their texts stay in a core's caches


class Keys(Protocol):
    """Band keys of all rows, one band at a time."""

    @property
    def bands(self) -> int:
        """How many bands there are."""

    def band(self, number: int) -> U64:
        """The keys of all rows in one band."""

    def totals(self) -> U64:
        """The sum of each row's shingle hashes; 0 for a row without shingles, which is never a duplicate."""


@dataclass(frozen=True, slots=True)
class KeysInMemory:
    """Keys that were never spilled."""

    keys: BandKeys

    @property
    def bands(self) -> int:
        """How many bands there are."""
        return len(self.keys.key_BN)

    def band(self, number: int) -> U64:
        """The keys of one band."""
        keys_N: U64 = self.keys.key_BN[number]
        return keys_N

    def totals(self) -> U64:
        """The sums of the shingle hashes."""
        return self.keys.total_N


@dataclass(frozen=True, slots=True)
class Candidates:
    """`pair_E`: pairs that share a band, ascending, each once. `copy_N`: the place whose shingles a place repeats
    exactly, or its own."""

    pair_E: U64
    copy_N: I64


def near_duplicates(
    texts: pl.Series,
    rule: MinHashRule,
    order_N: I64 | None = None,
    *,
    threads: int = 1,
    kernel: bool | None = None,
) -> Duplicates:
    """All of it in memory. `order_N` holds the rows in the order in which they may survive; None is their own."""
    hasher = MinHasher(rule, threads=threads, kernel=kernel)
    order_N = np.arange(len(texts)) if order_N is None else order_N
    found = candidates(KeysInMemory(hasher.band_keys(texts)), order_N, threads=threads)
    jaccards = Jaccards(order_N, texts.gather, hasher)
    return settle(
        jaccards.verified(found.pair_E), found.copy_N, order_N, jaccards.of, threshold=rule.threshold
    )


def candidates(keys: Keys, order_N: I64, *, references: int = 0, threads: int = 1) -> Candidates:
    """Pairs of places worth verifying. The first `references` places stay whatever they repeat."""
    if order_N.size >= 1 << 32:
        raise ValueError("more rows than a pair of places can name")
    copy_N, live_M = _copies(keys.totals()[order_N])
    row_M = order_N[live_M]

    def band(number: int) -> U64:
        return _pairs(keys.band(number)[row_M])

    waiting = [np.empty(0, np.uint64)]
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        for found_E in pool.map(band, range(keys.bands)):
            waiting.append(found_E)
            if sum(part_E.size for part_E in waiting[1:]) > max(waiting[0].size, MANY_PAIRS):
                waiting = [_distinct(np.concatenate(waiting))]
    first_E, second_E = (live_M[place_E] for place_E in split_pair(_distinct(np.concatenate(waiting))))
    kept = second_E >= references
    return Candidates(join_pair(first_E[kept], second_E[kept]), copy_N)


class Jaccards:
    """The exact Jaccard of pairs of places: texts are read and cut a block of pairs at a time."""

    def __init__(self, order_N: I64, texts_of: Callable[[I64], pl.Series], hasher: MinHasher) -> None:
        """`texts_of` reads texts by row, rows ascending."""
        self._order_N = order_N
        self._texts_of = texts_of
        self._hasher = hasher

    def of(self, pair_E: U64) -> F64:
        """In the order of the pairs; quickest where those of one first place stand side by side."""
        blocks = [pair_E[start : start + BLOCK_PAIRS] for start in range(0, pair_E.size, BLOCK_PAIRS)]
        return np.concatenate([np.empty(0), *self._hasher.map(self._block, blocks)])

    def _block(self, pair_E: U64) -> F64:
        first_E, second_E = split_pair(pair_E)
        place_M, member_2E = np.unique(np.concatenate([first_E, second_E]), return_inverse=True)
        row_M = self._order_N[place_M]
        by_row = np.argsort(row_M)
        text_M = np.empty_like(by_row)
        text_M[by_row] = np.arange(by_row.size)
        return self._hasher.jaccards(self._texts_of(row_M[by_row]), *np.split(text_M[member_2E], 2))

    def verified(self, pair_E: U64) -> Edges:
        """The pairs that reach the threshold."""
        jaccard_E = self.of(pair_E)
        alike = jaccard_E >= self._hasher.rule.threshold
        return Edges(pair_E[alike], jaccard_E[alike])


def places(pair_E: U64) -> I64:
    """The places that occur in pairs, ascending."""
    first_E, second_E = split_pair(pair_E)
    return np.union1d(first_E, second_E)


def _copies(total_N: U64) -> tuple[I64, I64]:
    """The first place with the same shingles as each place; and the first places, those without shingles left out."""
    copy_N = np.arange(total_N.size)
    live_M = np.flatnonzero(total_N)
    member_M, head_M = _runs(total_N[live_M])
    copy_N[live_M[member_M]] = live_M[member_M[head_M]]
    return copy_N, live_M[copy_N[live_M] == live_M]


def _pairs(key_N: U64) -> U64:
    """Pairs of places with equal keys."""
    member_M, head_M = _runs(key_N)
    size_M = np.bincount(head_M, minlength=head_M.size)[head_M]
    hot_M = size_M > HOT
    starred = np.flatnonzero(hot_M & (head_M != np.arange(head_M.size)))
    pairs = [
        join_pair(member_M[head_M[starred]], member_M[starred]),
        join_pair(member_M[starred - 1], member_M[starred]),
    ]
    member_M, head_M = member_M[~hot_M], head_M[~hot_M]
    for distance in range(1, HOT):
        near = np.flatnonzero(head_M[distance:] == head_M[:-distance])
        if near.size == 0:
            break
        pairs.append(join_pair(member_M[near], member_M[near + distance]))
    return np.concatenate(pairs)


def _runs(key_N: U64) -> tuple[I64, I64]:
    """Members of runs of two or more equal keys, run by run and ascending inside; and where in them each run begins."""
    # The place takes the key's low bits: numpy sorts plain numbers several times as fast as it finds an order.
    low = np.uint64((1 << key_N.size.bit_length()) - 1)
    packed_N = key_N & ~low | np.arange(key_N.size, dtype=np.uint64)
    packed_N.sort()
    met = _met(packed_N[1:] ^ packed_N[:-1] <= low, key_N.size)
    packed_M = packed_N[met]
    member_M = (packed_M & low).astype(np.int64)
    key_M = key_N[member_M]
    begins_M = _begins(packed_M & ~low)
    if not np.array_equal(begins_M, _begins(key_M)):  # equal in the high bits alone: hardly ever
        member_M = member_M[np.lexsort((member_M, key_M))]
        key_M = key_N[member_M]
        member_M = member_M[_met(key_M[1:] == key_M[:-1], key_M.size)]
        begins_M = _begins(key_N[member_M])
    return member_M, np.maximum.accumulate(np.where(begins_M, np.arange(member_M.size), 0))


def _begins(key_M: U64) -> NDArray[np.bool_]:
    """Which places differ from the one before them."""
    begins_M = np.ones(key_M.size, np.bool_)
    begins_M[1:] = key_M[1:] != key_M[:-1]
    return begins_M


def _met(same: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    """Which places of a sorted array equal a neighbour; `same` compares each but the first with the one before it."""
    met = np.zeros(size, np.bool_)
    met[1:] |= same
    met[:-1] |= same
    return met


def _distinct(pair_E: U64) -> U64:
    """Sorted, each once. `np.unique` hashes such numbers from numpy 2.3 on, which takes several times as long."""
    pair_E = np.sort(pair_E)
    return pair_E[np.append(True, pair_E[1:] != pair_E[:-1])] if pair_E.size else pair_E
