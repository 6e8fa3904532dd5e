"""Near duplicates of a whole set of texts: candidates from bands, exact verification, one survivor for each.

In: band keys of every row (`synthgen.refine.minhash`), the order in which rows may survive, and a way to read texts.
Out: for each row the row it repeats, or none.
Guarantees: a removed row has an exact Jaccard of at least the threshold to the survivor it names; no two survivors
form a verified pair; so what the bands found is settled as if the rows had come one by one in that order, and the
first of similar ones had been kept. The result depends on texts and order alone: not on pieces, threads or kernel.
Rejected: transitive closure (A~B~C drops C for an A that is not like it; on templated rows it drops nearly all), and
dictionaries of buckets (a sort per band needs no object per row).

    1  equal texts (shingles counted with repeats): the first of them stands for all
    2  per band: sort, equal keys meet; a run of up to `HOT` rows gives all pairs, a longer one a star and a chain
    3  the exact Jaccard of every pair, a block at a time
    4  in the order: who is not removed yet survives, and removes its neighbours

A pair is one number, `first << 32 | second`, of places in the order; the first place is the one that may survive.

Axes: N rows, E pairs, M members of a run.
"""

# ruff: noqa: N803, N806, N815  # arrays carry their axes in their names
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import polars as pl

from synthgen.refine.minhash import F64, BandKeys, MinHasher, MinHashRule
from synthgen.refine.shingles import I64, U64

__all__ = [
    "Candidates",
    "Duplicates",
    "Edges",
    "Keys",
    "KeysInMemory",
    "candidates",
    "near_duplicates",
    "places",
    "settle",
    "verify",
]

# A longer run of equal keys is a template, or a cluster whose first row finds the others by the star: all pairs of
# it would grow with its square. At 16 a band gives at most 7.5 pairs a row.
HOT = 16
BLOCK_PAIRS = 1 << 15  # pairs verified at once: some 60 MB of texts and sets of 1000 characters each
_SECOND = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)


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


@dataclass(frozen=True, slots=True)
class Edges:
    """Verified pairs, ascending, with their exact Jaccard, each at least the threshold."""

    pair_E: U64
    jaccard_E: F64


@dataclass(frozen=True, slots=True)
class Duplicates:
    """`of_N`: the surviving row that each row repeats, -1 where it survives itself. `jaccard_N`: 0 there."""

    of_N: I64
    jaccard_N: F64


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
    keys = KeysInMemory(hasher.band_keys(texts))
    order_N = np.arange(len(texts)) if order_N is None else order_N
    found = candidates(keys, order_N, threads=threads)
    return settle(verify(found.pair_E, order_N, texts.gather, hasher), found.copy_N, order_N)


def candidates(keys: Keys, order_N: I64, *, references: int = 0, threads: int = 1) -> Candidates:
    """Pairs of places worth verifying. The first `references` places stay whatever they repeat."""
    if order_N.size >= 1 << 32:
        raise ValueError("more rows than a pair of places can name")
    copy_N, live_M = _copies(keys.totals()[order_N])
    row_M = order_N[live_M]

    def band(number: int) -> U64:
        return _pairs(keys.band(number)[row_M])

    pair_E = np.empty(0, np.uint64)
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        for found_E in pool.map(band, range(keys.bands)):
            first_E, second_E = live_M[found_E >> _32], live_M[found_E & _SECOND]
            kept = second_E >= references
            pair_E = np.union1d(pair_E, _join(first_E[kept], second_E[kept]))
    return Candidates(pair_E, copy_N)


def verify(pair_E: U64, order_N: I64, texts_of: Callable[[I64], pl.Series], hasher: MinHasher) -> Edges:
    """The pairs whose exact Jaccard reaches the threshold. `texts_of` reads texts by row, rows ascending."""
    kept: list[Edges] = [Edges(np.empty(0, np.uint64), np.empty(0, np.float64))]
    for start in range(0, pair_E.size, BLOCK_PAIRS):
        block_E = pair_E[start : start + BLOCK_PAIRS]
        first_E, second_E = order_N[block_E >> _32], order_N[block_E & _SECOND]
        row_M = np.unique(np.concatenate([first_E, second_E]))
        sets = hasher.sets(texts_of(row_M))
        jaccard_E = hasher.jaccard(sets, np.searchsorted(row_M, first_E), np.searchsorted(row_M, second_E))
        alike = jaccard_E >= hasher.rule.threshold
        kept.append(Edges(block_E[alike], jaccard_E[alike]))
    return Edges(
        np.concatenate([edges.pair_E for edges in kept]), np.concatenate([edges.jaccard_E for edges in kept])
    )


def places(pair_E: U64) -> I64:
    """The places that occur in pairs, ascending."""
    return np.union1d(pair_E >> _32, pair_E & _SECOND).astype(np.int64)


def settle(edges: Edges, copy_N: I64, order_N: I64, *, references: int = 0) -> Duplicates:
    """Who survives, and whom each other row repeats: of the survivors before it the most similar, then the first."""
    first_E, second_E = (edges.pair_E >> _32).astype(np.int64), (edges.pair_E & _SECOND).astype(np.int64)
    removed = bytearray(order_N.size)
    for first, second in zip(first_E.tolist(), second_E.tolist(), strict=True):
        if not removed[first]:
            removed[second] = 1
    stays_E = np.frombuffer(removed, np.uint8)[first_E] == 0
    first_E, second_E, jaccard_E = first_E[stays_E], second_E[stays_E], edges.jaccard_E[stays_E]
    best = np.lexsort((first_E, -jaccard_E, second_E))
    best = best[np.unique(second_E[best], return_index=True)[1]]
    of_N = np.full(order_N.size, -1, np.int64)
    jaccard_N = np.zeros(order_N.size)
    of_N[second_E[best]], jaccard_N[second_E[best]] = first_E[best], jaccard_E[best]
    # A copy goes where the text it stands for went; where that one stays, it is what the copy repeats.
    copies = np.flatnonzero(copy_N != np.arange(copy_N.size))
    copies = copies[copies >= references]
    model = copy_N[copies]
    stays = of_N[model] < 0
    of_N[copies] = np.where(stays, model, of_N[model])
    jaccard_N[copies] = np.where(stays, 1.0, jaccard_N[model])
    return _by_row(of_N, jaccard_N, order_N)


def _by_row(of_N: I64, jaccard_N: F64, order_N: I64) -> Duplicates:
    """From places to rows."""
    out = Duplicates(np.empty_like(of_N), np.empty_like(jaccard_N))
    out.of_N[order_N] = np.where(of_N < 0, -1, order_N[of_N])
    out.jaccard_N[order_N] = jaccard_N
    return out


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
        _join(member_M[head_M[starred]], member_M[starred]),
        _join(member_M[starred - 1], member_M[starred]),
    ]
    member_M, head_M = member_M[~hot_M], head_M[~hot_M]
    for distance in range(1, HOT):
        near = np.flatnonzero(head_M[distance:] == head_M[:-distance])
        if near.size == 0:
            break
        pairs.append(_join(member_M[near], member_M[near + distance]))
    return np.concatenate(pairs)


def _runs(key_N: U64) -> tuple[I64, I64]:
    """Members of runs of two or more equal keys, run by run and ascending inside; and where in them each run begins."""
    order_N = np.argsort(key_N)
    sorted_N = key_N[order_N]
    same = sorted_N[1:] == sorted_N[:-1]
    met = np.zeros(key_N.size, np.bool_)
    met[1:] |= same
    met[:-1] |= same
    member_M, key_M = order_N[met], sorted_N[met]
    member_M = member_M[np.lexsort((member_M, key_M))]  # the sort above is quick because it keeps no order
    begins_M = np.ones(key_M.size, np.bool_)
    begins_M[1:] = key_M[1:] != key_M[:-1]
    head_M = np.maximum.accumulate(np.where(begins_M, np.arange(key_M.size), 0))
    return member_M, head_M


def _join(first_E: I64, second_E: I64) -> U64:
    return first_E.astype(np.uint64) << _32 | second_E.astype(np.uint64)
