"""MinHash of whole columns of text: band keys, signatures and the exact Jaccard of pairs, a batch at a time.

In: a polars String series. Out: arrays. `hash` chooses what the signature is made of: `sha1` and `xxh32` give
`datasketch.MinHash(num_perm, seed, scheme="affine32")` over the UTF-8 of each shingle, bit for bit; `fast` reads each
character once and multiplies for eight places at once (`shingles.sign_corners`). Exact sets, which decide, are always the
64-bit ones.
Guarantees: one value for one text, whatever stands beside it, how many threads there are, and whether the compiled
kernel (numba, extra `fast`) is installed.
Rejected: one Python object per text, as MinHash libraries have it: nine tenths of their time goes into that.

Axes: S shingles, N texts, P permutations, B bands, E pairs.
"""

# ruff: noqa: N803, N806  # arrays carry their axes in their names
import importlib.util
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Protocol, TypeVar

import numpy as np
import polars as pl

from synthgen.errors import UsageError
from synthgen.refine.minhash_rule import BandKeys, MinHashRule, bands, permutations
from synthgen.refine.shingles import F64, I64, U32

__all__ = ["MinHasher"]

A = TypeVar("A")
T = TypeVar("T")


class Backend(Protocol):
    """The arithmetic: compiled (`minhash_kernel`) or in numpy (`minhash_numpy`)."""

    chunk_bytes: int  # texts of this many bytes at once are handled quickest

    def signatures(self, texts: pl.Series) -> U32:
        """`signature_NP`."""

    def band_keys(self, texts: pl.Series, count: int, rows: int) -> BandKeys:
        """`count` bands of `rows` places of the signature."""

    def jaccards(self, texts: pl.Series, first_E: I64, second_E: I64) -> F64:
        """The exact Jaccard of pairs of texts; quickest where equal `first_E` stand side by side."""


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

        def fill(chunk: tuple[int, pl.Series]) -> None:
            lo, part = chunk
            found = self._backend.band_keys(part, self.bands, self.rows)
            out.key_BN[:, lo : lo + len(part)] = found.key_BN
            out.total_N[lo : lo + len(part)] = found.total_N

        self.map(fill, self._chunks(texts))
        return out

    def signatures(self, texts: pl.Series) -> U32:
        """`signature_NP`; a text without shingles has the maximum in every place."""
        parts = self.map(lambda chunk: self._backend.signatures(chunk[1]), self._chunks(texts))
        return np.concatenate([np.empty((0, self.rule.num_perm), np.uint32), *parts])

    def jaccards(self, texts: pl.Series, first_E: I64, second_E: I64) -> F64:
        """Exact Jaccard of pairs of texts, by their numbers, 0..1, on one thread; 0.0 where one has no shingles.

        Quickest where equal `first_E` stand side by side.
        """
        return self._backend.jaccards(texts, first_E, second_E)

    def map(self, work: Callable[[A], T], arguments: Iterable[A]) -> list[T]:
        """The results in order, worked out on the hasher's threads."""
        if self._threads == 1:
            return [work(argument) for argument in arguments]
        with ThreadPoolExecutor(self._threads) as pool:
            return list(pool.map(work, arguments))

    def _chunks(self, texts: pl.Series) -> Iterator[tuple[int, pl.Series]]:
        """The texts in pieces of about `chunk_bytes`, each with the number of its first."""
        sizes_N = texts.str.len_bytes().fill_null(0).cast(pl.Int64).to_numpy()
        piece_N = np.cumsum(sizes_N) // self._backend.chunk_bytes
        cuts = [0, *(np.flatnonzero(np.diff(piece_N)) + 1).tolist(), len(texts)]
        for lo, hi in pairwise(cuts):
            yield lo, texts.slice(lo, hi - lo)


def _backend(rule: MinHashRule, kernel: bool | None) -> Backend:
    factor_P, summand_P = permutations(rule.num_perm, rule.seed)
    if kernel or (kernel is None and importlib.util.find_spec("numba") is not None):
        try:
            from synthgen.refine.minhash_kernel import KernelBackend
        except ImportError as error:
            raise UsageError("the compiled kernel needs numba: pip install 'synthgen[fast]'") from error
        return KernelBackend(rule, factor_P, summand_P)
    from synthgen.refine.minhash_numpy import NumpyBackend

    return NumpyBackend(rule, factor_P, summand_P)
