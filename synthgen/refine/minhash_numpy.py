"""The numpy backend of `synthgen.refine.minhash`: works everywhere, and is what the compiled one must equal."""

# ruff: noqa: N803, N806  # arrays carry their axes in their names
import numpy as np
import polars as pl

from synthgen.refine.minhash_rule import BandKeys, MinHashRule
from synthgen.refine.shingles import (
    F64,
    I64,
    U32,
    Ngrams,
    band_keys,
    jaccard,
    shingle,
    shingle_hashes,
    sign_corners,
    sign_hashes,
)
from synthgen.refine.text_hashes import text_hashes

__all__ = ["NumpyBackend"]


class NumpyBackend:
    """See `synthgen.refine.minhash.Backend`."""

    chunk_bytes = 1 << 17  # the arrays over the characters then stay in a core's cache

    def __init__(self, rule: MinHashRule, factor_P: U32, summand_P: U32) -> None:
        self._rule = rule
        self._permutations = (factor_P, summand_P)

    def signatures(self, texts: pl.Series) -> U32:
        return self._signatures(texts, self._hashes(texts))

    def band_keys(self, texts: pl.Series, count: int, rows: int) -> BandKeys:
        hashes = self._hashes(texts)
        key_BN = band_keys(self._signatures(texts, hashes), count, rows)
        sum_G1 = np.concatenate([np.zeros(1, np.uint64), np.cumsum(hashes.hash_G)])
        offset_N1 = _offsets(hashes, len(texts))
        return BandKeys(key_BN, sum_G1[offset_N1[1:]] - sum_G1[offset_N1[:-1]])

    def jaccards(self, texts: pl.Series, first_E: I64, second_E: I64) -> F64:
        sets = shingle(_listed(texts), self._rule.n, words=self._rule.words)
        pairs = zip(first_E.tolist(), second_E.tolist(), strict=True)
        found = (jaccard(sets.of(a), sets.of(b)) for a, b in pairs)
        return np.fromiter(found, np.float64, first_E.size)

    def _hashes(self, texts: pl.Series) -> Ngrams:
        return shingle_hashes(_listed(texts), self._rule.n, words=self._rule.words)

    def _signatures(self, texts: pl.Series, hashes: Ngrams) -> U32:
        if self._rule.hash == "fast":
            hash_S = (hashes.hash_G >> np.uint64(32)).astype(np.uint32)
            return sign_corners(hash_S, _offsets(hashes, len(texts)), self._permutations)
        sha = self._rule.hash == "sha1"
        hash_S, offset_N1 = text_hashes(_listed(texts), self._rule.n, words=self._rule.words, sha=sha)
        return sign_hashes(hash_S, offset_N1, self._permutations)


def _offsets(hashes: Ngrams, count: int) -> I64:
    return np.searchsorted(hashes.text_G, np.arange(count + 1)).astype(np.int64)


def _listed(texts: pl.Series) -> list[str]:
    listed: list[str] = texts.fill_null("").to_list()
    return listed
