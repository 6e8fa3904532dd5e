"""MinHash of whole columns of text: band keys, signatures and exact shingle sets, a batch at a time.

In: a polars String series. Out: arrays. `hash` chooses what the signature is made of: `sha1` and `xxh32` give
`datasketch.MinHash(num_perm, seed, scheme="affine32")` over the UTF-8 of each shingle, bit for bit; `fast` reads each
character once. Exact sets, which decide, are always the 64-bit ones.
Guarantees: one value for one text, whatever stands beside it, how many threads there are, and whether the compiled
kernel (numba, extra `fast`) is installed.
Rejected: one Python object per text, as MinHash libraries have it: nine tenths of their time goes into that.

Axes: S shingles, N texts, P permutations, B bands, E pairs.
"""

# ruff: noqa: N803, N806, N815  # arrays carry their axes in their names
import importlib.util
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, Protocol, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from synthgen.errors import UsageError
from synthgen.refine.shingles import I64, U32, U64, Shingles

__all__ = ["RECALL", "BandKeys", "HashName", "MinHashRule", "MinHasher", "bands", "join_sets"]

F64 = NDArray[np.float64]
A = TypeVar("A")
B = TypeVar("B")
T = TypeVar("T")

HashName = Literal["fast", "sha1", "xxh32"]
RECALL = 0.95


def bands(threshold: float, num_perm: int) -> tuple[int, int]:
    """(bands, rows per band): the longest bands that still find a pair at the threshold with `RECALL`.

    A pair of Jaccard s shares a band with probability 1 - (1 - s^r)^b (Leskovec, Rajaraman & Ullman, "Mining of
    Massive Datasets", 3.4). At the default 0.8 with 128 permutations this gives 18 bands of 7 rows, recall 0.985
    at the threshold and above 0.999 from 0.85; datasketch's default chooser gives 9 of 13, recall 0.40 there.
    Where even single rows do not reach `RECALL` (thresholds below about 0.03), bands are single rows.
    """
    for rows in range(num_perm, 1, -1):
        count = num_perm // rows
        if 1 - (1 - threshold**rows) ** count >= RECALL:
            return count, rows
    return num_perm, 1


@dataclass(frozen=True, slots=True)
class MinHashRule:
    """What is compared and how; the defaults are those of `NearConfig`.

    `shingle`: `word:N` or `char:N`. Characters leave white space out; below 9 they find much that is not alike, which
    verification drops again at a price.

    Raises:
        UsageError: a value is out of its range.
    """

    threshold: float = 0.8
    shingle: str = "word:5"
    num_perm: int = 128
    seed: int = 1
    hash: HashName = "fast"

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise UsageError(f"threshold {self.threshold} is not above 0 and at most 1")
        if re.fullmatch(r"(word|char):([1-9]|[1-4][0-9]|50)", self.shingle) is None:
            raise UsageError(f"shingle {self.shingle!r}: write word:N or char:N, with N from 1 to 50")
        if not 16 <= self.num_perm <= 1024:
            raise UsageError(f"num_perm {self.num_perm} is not in 16..1024")
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"seed {self.seed} is not in 0..{2**32 - 1}")
        if self.hash not in ("fast", "sha1", "xxh32"):
            raise UsageError(f"hash {self.hash!r} is none of fast, sha1, xxh32")

    @property
    def words(self) -> bool:
        """Shingles are of words, not of characters."""
        return self.shingle.startswith("word:")

    @property
    def n(self) -> int:
        """Tokens per shingle."""
        return int(self.shingle.partition(":")[2])


@dataclass(frozen=True, slots=True)
class BandKeys:
    """`key_BN`: a 64-bit key per band and text, the band's number part of it. `total_N`: the sum of the text's shingle
    hashes mod 2^64, equal where the shingles are; 0 where there are none."""

    key_BN: U64
    total_N: U64


class Backend(Protocol):
    """The arithmetic: compiled (`minhash_kernel`) or in numpy (`minhash_numpy`)."""

    chunk_bytes: int  # texts of this many bytes at once are handled quickest

    def signatures(self, texts: pl.Series) -> U32:
        """`signature_NP`."""

    def band_keys(self, texts: pl.Series, count: int, rows: int) -> BandKeys:
        """`count` bands of `rows` places of the signature."""

    def sets(self, texts: pl.Series) -> Shingles:
        """The shingle sets; the order within a set is free."""

    def common(self, sets: Shingles, first_E: I64, second_E: I64) -> I64:
        """Sizes of intersections; quickest where equal `first_E` stand side by side."""


class MinHasher:
    """Texts to band keys, signatures and exact sets, on some threads; null is an empty text."""

    def __init__(self, rule: MinHashRule, *, threads: int = 1, kernel: bool | None = None) -> None:
        """`kernel`: whether to use the compiled one; None means where numba is installed.

        Raises:
            UsageError: the compiled kernel is demanded and numba is missing.
        """
        self.rule = rule
        self.bands, self.rows = bands(rule.threshold, rule.num_perm)
        self._threads = max(threads, 1)
        self._backend = _backend(rule, kernel)

    def band_keys(self, texts: pl.Series) -> BandKeys:
        """The keys of all texts."""
        out = BandKeys(np.empty((self.bands, len(texts)), np.uint64), np.empty(len(texts), np.uint64))

        def fill(lo: int, part: pl.Series) -> None:
            found = self._backend.band_keys(part, self.bands, self.rows)
            out.key_BN[:, lo : lo + len(part)] = found.key_BN
            out.total_N[lo : lo + len(part)] = found.total_N

        self._map(fill, self._chunks(texts))
        return out

    def signatures(self, texts: pl.Series) -> U32:
        """`signature_NP`; a text without shingles has the maximum in every place."""
        parts = self._map(lambda _, part: self._backend.signatures(part), self._chunks(texts))
        return np.concatenate([np.empty((0, self.rule.num_perm), np.uint32), *parts])

    def sets(self, texts: pl.Series) -> Shingles:
        """The exact shingle sets; the order within a set is free."""
        return join_sets(self._map(lambda _, part: self._backend.sets(part), self._chunks(texts)))

    def jaccard(self, sets: Shingles, first_E: I64, second_E: I64) -> F64:
        """Exact Jaccard of pairs of sets, by their numbers, 0..1; 0.0 where one set is empty."""
        cuts = np.linspace(0, first_E.size, self._threads + 1).astype(np.int64)
        ranges = list(pairwise(cuts.tolist()))
        parts = self._map(lambda a, b: self._backend.common(sets, first_E[a:b], second_E[a:b]), ranges)
        common_E = np.concatenate(parts)
        size_N = np.diff(sets.offset_N1)
        union_E: I64 = size_N[first_E] + size_N[second_E] - common_E
        return common_E / np.maximum(union_E, 1)

    def _chunks(self, texts: pl.Series) -> Iterator[tuple[int, pl.Series]]:
        """The texts in pieces of about `chunk_bytes`, each with the number of its first."""
        sizes_N = texts.str.len_bytes().fill_null(0).cast(pl.Int64).to_numpy()
        piece_N = np.cumsum(sizes_N) // self._backend.chunk_bytes
        cuts = [0, *(np.flatnonzero(np.diff(piece_N)) + 1).tolist(), len(texts)]
        for lo, hi in pairwise(cuts):
            yield lo, texts.slice(lo, hi - lo)

    def _map(self, work: Callable[[A, B], T], arguments: Iterable[tuple[A, B]]) -> list[T]:
        if self._threads == 1:
            return [work(a, b) for a, b in arguments]
        with ThreadPoolExecutor(self._threads) as pool:
            return list(pool.map(lambda pair: work(*pair), arguments))


def _backend(rule: MinHashRule, kernel: bool | None) -> Backend:
    from datasketch import MinHash

    factor_P, summand_P = MinHash(rule.num_perm, rule.seed, scheme="affine32").permutations
    if kernel or (kernel is None and importlib.util.find_spec("numba") is not None):
        try:
            from synthgen.refine.minhash_kernel import KernelBackend
        except ImportError as error:
            raise UsageError("the compiled kernel needs numba: pip install 'synthgen[fast]'") from error
        return KernelBackend(rule, factor_P, summand_P)
    from synthgen.refine.minhash_numpy import NumpyBackend

    return NumpyBackend(rule, factor_P, summand_P)


def join_sets(parts: Sequence[Shingles]) -> Shingles:
    """Sets one behind the other, as one value."""
    ends = np.cumsum([0, *(part.hash_S.size for part in parts)])
    offsets = [part.offset_N1[1:] + end for part, end in zip(parts, ends.tolist(), strict=False)]
    none = np.empty(0, np.uint64)
    return Shingles(
        np.concatenate([none, *(part.hash_S for part in parts)]),
        np.concatenate([np.zeros(1, np.int64), *offsets]),
    )
