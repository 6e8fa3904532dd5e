"""Texts to word tokens, n-gram hashes and MinHash signatures, a whole batch at a time in numpy.

In: a list of texts. Out: flat arrays over the batch: tokens, n-grams, per-text sets of shingle hashes, signatures.
Guarantees: the hashes are fixed arithmetic over Unicode code points, the same on every machine and in every
release of polars and numpy; a text's values do not depend on the texts beside it.
Rejected: one Python call per text or shingle (the measured cost of every MinHash library is exactly that), and
`polars.Expr.hash` (documented as unstable between versions).

A token is a run of letters, digits, underscores and the marks on them, after case folding; in scripts written without spaces
between words (Chinese, Japanese kana, Thai, Lao, Khmer, Burmese, Tibetan) each character is a token.

Axes: C characters of the batch, T tokens, G n-grams, S shingles, N texts, P permutations.
"""

# ruff: noqa: N803, N806, N815  # arrays carry their axes in their names
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from synthgen.dataclasses import dataclass
from synthgen.refine.cut import Cut, cut_texts, numeric_tokens

__all__ = [
    "CHAR_BASE",
    "CHUNK_BASE",
    "CORNER_BITS",
    "CORNER_LANES",
    "F64",
    "I64",
    "TOKEN_BASE",
    "U32",
    "U64",
    "Bools",
    "Ngrams",
    "Shingles",
    "TokenSums",
    "Tokens",
    "band_keys",
    "jaccard",
    "mix",
    "ngrams",
    "powers",
    "shingle",
    "shingle_hashes",
    "sign_corners",
    "sign_hashes",
    "tokenise",
    "tokens_in",
    "words_of",
]

F64 = NDArray[np.float64]
U32 = NDArray[np.uint32]
U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]
Bools = NDArray[np.bool_]

CHAR_BASE = 0x9E3779B97F4A7C15  # the golden ratio's bits
CHUNK_BASE = (
    0xA0761D6478BD642F  # odd, so that no two words of up to eight bytes collide; a constant of wyhash
)
TOKEN_BASE = 0xD1342543DE82EF95  # odd; L'Ecuyer & Steele 2021, a 64-bit multiplier with a good spectral test
_TOKEN_INVERSE = pow(TOKEN_BASE, -1, 1 << 64)
CORNER_BITS = 3
CORNER_LANES = 16  # permutations a group is made of: the lanes of a vector


@dataclass(frozen=True, slots=True)
class Tokens:
    """`hash_T`; `text_T`: index of the text each token stands in, ascending; `numeric_T`: digits only."""

    hash_T: U64
    text_T: I64
    numeric_T: Bools


@dataclass(frozen=True, slots=True)
class Ngrams:
    """`hash_G`; `text_G`: index of the text, ascending; `start_G`: index of the first token."""

    hash_G: U64
    text_G: I64
    start_G: I64


@dataclass(frozen=True, slots=True)
class Shingles:
    """The shingle set of every text: `hash_S[offset_N1[i]:offset_N1[i + 1]]`, sorted, without repeats."""

    hash_S: U64
    offset_N1: I64

    def of(self, text: int) -> U64:
        """The set of one text, a view."""
        return self.hash_S[self.offset_N1[text] : self.offset_N1[text + 1]]


def tokenise(texts: Sequence[str], *, characters: bool = False) -> Tokens:
    """All tokens of all texts, in order. With `characters`, every character but white space is a token."""
    return tokens_in(cut_texts(texts, characters=characters))


def tokens_in(cut: Cut) -> Tokens:
    """The tokens of texts that are cut already."""
    return Tokens(_hashed(cut), cut.text_T, numeric_tokens(cut))


def words_of(text: str) -> list[str]:
    """The folded words of one text, as `tokenise` cuts them."""
    cut = cut_texts([text])
    return [cut.folded[a:b].decode() for a, b in zip(cut.first_T.tolist(), cut.end_T.tolist(), strict=True)]


def ngrams(tokens: Tokens, n: int) -> Ngrams:
    """Every run of `n` tokens inside one text; a text with fewer has none."""
    return _runs(tokens.hash_T, tokens.text_T, n)


def _runs(hash_T: U64, text_T: I64, n: int) -> Ngrams:
    count = hash_T.size - n + 1
    if count <= 0:
        return Ngrams(np.empty(0, np.uint64), np.empty(0, np.int64), np.empty(0, np.int64))
    start_G = np.flatnonzero(text_T[:count] == text_T[n - 1 :])
    sum_T = hash_T[:count].copy()
    for k, power in enumerate(powers(TOKEN_BASE, n)[1:], 1):
        sum_T += hash_T[k : k + count] * power
    return Ngrams(mix(sum_T[start_G]), text_T[start_G], start_G)


def _ngrams_of(texts: Sequence[str], n: int, *, characters: bool = False) -> Ngrams:
    cut = cut_texts(texts, characters=characters)
    return _runs(_hashed(cut), cut.text_T, n)


class TokenSums:
    """Hashes of every run of tokens, of any length."""

    def __init__(self, hash_T: U64) -> None:
        # A run is the difference of two sums over all tokens, divided by the power its first token has there.
        self._sum_T1 = np.zeros(hash_T.size + 1, np.uint64)
        np.cumsum(hash_T * powers(TOKEN_BASE, hash_T.size), out=self._sum_T1[1:])
        self._inverse_T = powers(_TOKEN_INVERSE, hash_T.size)

    def runs(self, n: int) -> U64:
        """Of the run of `n` tokens from each place that has so many behind it, also where a text ends within."""
        count = max(self._inverse_T.size - n + 1, 0)
        return mix((self._sum_T1[n:] - self._sum_T1[:count]) * self._inverse_T[:count])


def shingle_hashes(texts: Sequence[str], n: int, *, words: bool = True) -> Ngrams:
    """The shingles of each text, repeats included: runs of `n` words, or of `n` characters that are no white space.

    A text with fewer than `n` words has character shingles in their place; NUL pads its end, so that every text with
    a character has a shingle. Those of words and those of characters never meet.
    """
    found = _ngrams_of(texts if words else (), n)
    rest = np.flatnonzero(np.diff(np.searchsorted(found.text_G, np.arange(len(texts) + 1))) == 0)
    padded = ["".join(texts[i].split()) for i in rest.tolist()]
    padded = [text + "\0" * (n - 1) if text else "" for text in padded]
    letters = _ngrams_of(padded, n, characters=True)
    if letters.hash_G.size == 0:
        return found
    hash_G = np.concatenate([found.hash_G, mix(letters.hash_G ^ np.uint64(CHAR_BASE))])
    text_G = np.concatenate([found.text_G, rest[letters.text_G]])
    order = np.argsort(text_G, kind="stable")
    start_G = np.concatenate([found.start_G, letters.start_G])
    return Ngrams(hash_G[order], text_G[order], start_G[order])


def shingle(texts: Sequence[str], n: int, *, words: bool = True) -> Shingles:
    """The set of each text's `shingle_hashes`; a text of white space has none."""
    found = shingle_hashes(texts, n, words=words)
    offset_N1 = np.searchsorted(found.text_G, np.arange(len(texts) + 1))
    hash_G = found.hash_G
    for a, b in pairwise(offset_N1.tolist()):
        hash_G[a:b].sort()
    fresh_G1 = np.ones(hash_G.size + 1, np.bool_)  # one more, for the end of the last text
    fresh_G1[1:-1] = hash_G[1:] != hash_G[:-1]
    fresh_G1[offset_N1] = True
    before_G1 = np.cumsum(fresh_G1) - 1
    return Shingles(hash_G[fresh_G1[:-1]], before_G1[offset_N1])


def sign_hashes(hash_S: U32, offset_N1: I64, permutations: tuple[U32, U32]) -> U32:
    """`signature_NP` of datasketch's `affine32` scheme over 32-bit hashes, those of text i at `offset_N1[i]`.

    Equal to `datasketch.MinHash` 2.x fed with the same hashes (a test compares them). A text without shingles keeps
    the maximum in every place.
    """
    factor_P, summand_P = permutations
    signature_NP = np.full((offset_N1.size - 1, factor_P.size), np.iinfo(np.uint32).max, np.uint32)
    filled = np.flatnonzero(np.diff(offset_N1))
    if filled.size == 0:
        return signature_NP
    mixed_S = _mix32(hash_S)
    first_N = offset_N1[filled]
    permuted_S = np.empty_like(mixed_S)
    for p in range(factor_P.size):
        np.multiply(mixed_S, factor_P[p], out=permuted_S)
        np.add(permuted_S, summand_P[p], out=permuted_S)
        signature_NP[filled, p] = np.minimum.reduceat(permuted_S, first_N)
    return signature_NP


def sign_corners(hash_S: U32, offset_N1: I64, permutations: tuple[U32, U32]) -> U32:
    """`signature_NP` of the `fast` scheme over well mixed 32-bit hashes: sixteen permutations, each seen from eight corners.

    Places go in groups of 128. A group has `CORNER_LANES` permutations; its place `corner * CORNER_LANES + lane` holds the
    smallest hash after the lane's permutation and an exclusive or with the corner. Corners differ in the three highest
    bits: c << 29 for c below 4, and their complements, where the smallest is the complement of the greatest.

    An exclusive or is a permutation as well, so each place agrees between two sets with probability J, as if its
    permutation were its own. Two corners look at different eighths of the hashes while each of those holds some:
    their places are drawn without replacement (Li, Owen & Zhang 2012, "One permutation hashing", has lower variance
    for it); where an eighth is empty the nearest one stands in. Places of one band are of different permutations.
    """
    factor_P, summand_P = permutations
    group = CORNER_LANES << CORNER_BITS
    places = -(-factor_P.size // group) * group
    signature_NP = np.full((offset_N1.size - 1, places), np.iinfo(np.uint32).max, np.uint32)
    filled = np.flatnonzero(np.diff(offset_N1))
    if filled.size == 0:
        return signature_NP[:, : factor_P.size]
    first_N = offset_N1[filled]
    half = 1 << CORNER_BITS - 1
    for lane in range(places >> CORNER_BITS):
        permuted_S = hash_S * factor_P[lane] + summand_P[lane]
        place = lane // CORNER_LANES * group + lane % CORNER_LANES
        for corner in range(half):
            seen_S = permuted_S ^ np.uint32(corner << 32 - CORNER_BITS)
            near, far = place + corner * CORNER_LANES, place + (corner + half) * CORNER_LANES
            signature_NP[filled, near] = np.minimum.reduceat(seen_S, first_N)
            signature_NP[filled, far] = ~np.maximum.reduceat(seen_S, first_N)
    return signature_NP[:, : factor_P.size]


def band_keys(signature_NP: U32, count: int, rows: int) -> U64:
    """`key_BN`: one 64-bit key per band and text; the band's number is part of the key."""
    key_BN = np.repeat(np.arange(count, dtype=np.uint64)[:, None], signature_NP.shape[0], axis=1)
    for r in range(rows):
        key_BN = (key_BN ^ signature_NP.T[r : count * rows : rows]) * np.uint64(CHAR_BASE)
        key_BN ^= key_BN >> np.uint64(29)
    return key_BN


def jaccard(a: U64, b: U64) -> float:
    """Size of the intersection over size of the union of two sorted sets; 0.0 if either is empty."""
    if a.size == 0 or b.size == 0:
        return 0.0
    both = np.intersect1d(a, b, assume_unique=True).size
    return float(both) / float(a.size + b.size - both)


def _hashed(cut: Cut) -> U64:
    """Tokens as chunks of eight bytes, little-endian and padded with NUL, weighted with the powers of `CHUNK_BASE`."""
    chunk_C: U64 = np.ndarray((len(cut.folded) - 7,), "<u8", cut.folded, strides=(1,))
    keep = np.array([(1 << 8 * n) - 1 for n in range(9)], np.uint64)
    size_T = cut.end_T - cut.first_T
    sum_T = chunk_C[cut.first_T]
    sum_T &= keep.take(size_T, mode="clip")
    power_K = powers(CHUNK_BASE, int(size_T.max(initial=0)) // 8 + 1)
    longer_T = np.flatnonzero(size_T > 8)
    first_L, size_L = cut.first_T[longer_T], size_T[longer_T]
    for k in range(1, power_K.size):
        first_L, size_L = first_L + 8, size_L - 8
        sum_T[longer_T] += (chunk_C[first_L] & keep.take(size_L, mode="clip")) * power_K[k]
        still_L = np.flatnonzero(size_L > 8)
        longer_T, first_L, size_L = longer_T[still_L], first_L[still_L], size_L[still_L]
    return mix(sum_T)


def powers(base: int, count: int) -> U64:
    factors = np.full(count, base, np.uint64)
    factors[:1] = 1
    return np.cumprod(factors, dtype=np.uint64)


def mix(hash_X: U64) -> U64:
    """MurmurHash3's 64-bit finaliser (Appleby, public domain): every input bit reaches every output bit."""
    hash_X = hash_X ^ (hash_X >> np.uint64(33))
    hash_X = hash_X * np.uint64(0xFF51AFD7ED558CCD)
    hash_X = hash_X ^ (hash_X >> np.uint64(33))
    hash_X = hash_X * np.uint64(0xC4CEB9FE1A85EC53)
    return hash_X ^ (hash_X >> np.uint64(33))


def _mix32(hash_X: U32) -> U32:
    """MurmurHash3's 32-bit finaliser, the pre-mix of datasketch's `affine32`."""
    hash_X = hash_X ^ (hash_X >> np.uint32(16))
    hash_X = hash_X * np.uint32(0x85EBCA6B)
    hash_X = hash_X ^ (hash_X >> np.uint32(13))
    hash_X = hash_X * np.uint32(0xC2B2AE35)
    return hash_X ^ (hash_X >> np.uint32(16))
