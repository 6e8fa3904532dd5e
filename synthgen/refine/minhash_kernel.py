"""The compiled backend of `synthgen.refine.minhash`: polars' buffers in, the kernel's arrays out. Needs numba."""

# ruff: noqa: N803, N806  # arrays carry their axes in their names
from collections.abc import Callable
from functools import cache

import numpy as np
import polars as pl

from synthgen.refine.alphabet import Alphabet
from synthgen.refine.kernel import band_keys, count_common, shingle_sets, signatures
from synthgen.refine.kernel_bits import U8
from synthgen.refine.kernel_hashes import text_signatures
from synthgen.refine.kernel_shingles import Tables, unknown_points
from synthgen.refine.minhash_rule import BandKeys, MinHashRule
from synthgen.refine.shingles import I64, TOKEN_BASE, U32, U64, Shingles, powers

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

    def sets(self, texts: pl.Series) -> Shingles:
        buffer_C, offset_N1 = self._buffers(texts)
        # No text has more shingles than characters, but for foldings of one to three; nothing is touched beyond.
        hash_S = np.empty(buffer_C.size * 3 // 2 + len(texts), np.uint64)
        set_offset_N1 = np.empty(len(texts) + 1, np.int64)
        self._learning(
            buffer_C,
            lambda: shingle_sets(
                buffer_C, offset_N1, self._tables(), self._rule.words, hash_S, set_offset_N1
            ),
        )
        return Shingles(hash_S[: set_offset_N1[-1]], set_offset_N1)

    def common(self, sets: Shingles, first_E: I64, second_E: I64) -> I64:
        common_E = np.empty(first_E.size, np.int64)
        count_common(sets.hash_S, sets.offset_N1, first_E, second_E, common_E)
        return common_E

    def _signatures(self, texts: pl.Series) -> tuple[U32, U64]:
        """Signatures, and the sums of the `fast` hashes whatever the signatures are made of."""
        buffer_C, offset_N1 = self._buffers(texts)
        factor_P, summand_P = self._permutations
        signature_NP = np.empty((len(texts), factor_P.size), np.uint32)
        total_N = np.empty(len(texts), np.uint64)
        fast = self._rule.hash == "fast"
        signed = slice(None) if fast else slice(0)  # without permutations only the sums are computed
        self._learning(
            buffer_C,
            lambda: signatures(
                buffer_C,
                offset_N1,
                self._tables(),
                self._rule.words,
                factor_P[signed],
                summand_P[signed],
                signature_NP,
                total_N,
            ),
        )
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

    def _learning(self, buffer_C: U8, work: Callable[[], bool]) -> None:
        """Work that stops at a character nobody met before is done again when all of the buffer's are known."""
        while not work():
            found = np.empty(256, np.int64)
            while count := unknown_points(buffer_C, self._alphabet.entry_X, found):
                self._alphabet.learn(found[:count].tolist())

    def _buffers(self, texts: pl.Series) -> tuple[U8, I64]:
        """The bytes of all texts, and where each begins."""
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
    for points in _USUAL:  # a batch is done again for each new character: not for dashes, quotes and accents
        alphabet.learn(points)
    return alphabet
