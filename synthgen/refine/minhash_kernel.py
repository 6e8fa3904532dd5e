"""The compiled backend of `synthgen.refine.minhash`: polars' buffers in, the kernel's arrays out. Needs numba."""

# ruff: noqa: N803, N806  # arrays carry their axes in their names
from functools import cache

import numpy as np
import polars as pl

from synthgen.refine.alphabet import Alphabet
from synthgen.refine.kernel import band_keys, signatures
from synthgen.refine.kernel_bits import U8
from synthgen.refine.kernel_hashes import text_signatures
from synthgen.refine.kernel_pairs import jaccards
from synthgen.refine.kernel_shingles import Tables, unknown_points
from synthgen.refine.minhash_rule import BandKeys, MinHashRule
from synthgen.refine.shingles import F64, I64, TOKEN_BASE, U32, U64, powers

__all__ = ["KernelBackend"]

_USUAL = (range(128, 0x600), range(0x2000, 0x2800))  # Latin, Greek, Cyrillic, Hebrew; punctuation, symbols


class KernelBackend:
    """See `synthgen.refine.minhash.Backend`."""

    chunk_bytes = 1 << 21

    def __init__(self, rule: MinHashRule, factor_P: U32, summand_P: U32) -> None:
        self._rule = rule
        self._permutations = (factor_P, summand_P)
        self._alphabet = _alphabet()
        self._power_T = powers(TOKEN_BASE, rule.n)

    def signatures(self, texts: pl.Series) -> U32:
        return self._signatures(texts)[0]

    def band_keys(self, texts: pl.Series, count: int, rows: int) -> BandKeys:
        signature_NP, total_N = self._signatures(texts)
        key_BN = np.empty((count, len(texts)), np.uint64)
        band_keys(signature_NP, rows, key_BN)
        return BandKeys(key_BN, total_N)

    def jaccards(self, texts: pl.Series, first_E: I64, second_E: I64) -> F64:
        buffer_C, offset_N1 = self._buffers(texts)
        jaccard_E = np.empty(first_E.size)
        done = 0
        while True:
            done = jaccards(
                buffer_C, offset_N1, done, self._tables(), self._rule.words, first_E, second_E, jaccard_E
            )
            if done == first_E.size:
                return jaccard_E
            for i in (first_E[done], second_E[done]):
                self._learn(buffer_C[offset_N1[i] : offset_N1[i + 1]])

    def _signatures(self, texts: pl.Series) -> tuple[U32, U64]:
        """Signatures, and the sums of the `fast` hashes whatever the signatures are made of."""
        buffer_C, offset_N1 = self._buffers(texts)
        factor_P, summand_P = self._permutations
        signature_NP = np.empty((len(texts), factor_P.size), np.uint32)
        total_N = np.empty(len(texts), np.uint64)
        fast = self._rule.hash == "fast"
        signed = slice(None) if fast else slice(0)  # without permutations only the sums are computed
        done = 0
        while True:
            done = signatures(
                buffer_C,
                offset_N1,
                done,
                self._tables(),
                self._rule.words,
                factor_P[signed],
                summand_P[signed],
                signature_NP,
                total_N,
            )
            if done == len(texts):
                break
            self._learn(buffer_C[offset_N1[done] : offset_N1[done + 1]])
        if not fast:
            text_signatures(
                buffer_C,
                offset_N1,
                self._tables(),
                self._rule.words,
                self._rule.hash == "sha1",
                factor_P,
                summand_P,
                signature_NP,
            )
        return signature_NP, total_N

    def _tables(self) -> Tables:
        return Tables(self._alphabet.entry_X, self._alphabet.expansion_X3, self._power_T)

    def _learn(self, buffer_C: U8) -> None:
        """Characters nobody met before; the work that stopped at their text then goes on with it."""
        found = np.empty(256, np.int64)
        while count := unknown_points(buffer_C, self._alphabet.entry_X, found):
            self._alphabet.learn(found[:count].tolist())

    def _buffers(self, texts: pl.Series) -> tuple[U8, I64]:
        """The bytes of all texts, and where each begins."""
        if texts.null_count():
            texts = texts.fill_null("")
        size_N = texts.str.len_bytes()
        offset_N1 = np.zeros(len(texts) + 1, np.int64)
        np.cumsum(size_N.to_numpy(), out=offset_N1[1:])
        filled = texts.filter(size_N > 0) if len(texts) and size_N.min() == 0 else texts
        # Binary to lists of bytes to one column: polars' way to the bytes that needs no Python object per text.
        buffer_C = filled.cast(pl.Binary).cast(pl.List(pl.UInt8)).explode().to_numpy().view()
        buffer_C.flags.writeable = False  # one type for the kernel, wherever the bytes come from
        return buffer_C, offset_N1


@cache
def _alphabet() -> Alphabet:
    """One for all, since what a character is never changes."""
    alphabet = Alphabet()
    for (
        points
    ) in _USUAL:  # the loops stop at each text with a new character: not for dashes, quotes and accents
        alphabet.learn(points)
    return alphabet
