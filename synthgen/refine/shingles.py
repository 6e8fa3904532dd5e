"""Texts to word tokens, n-gram hashes and MinHash signatures, a whole batch at a time in numpy.

In: a list of texts. Out: flat arrays over the batch: tokens, n-grams, per-text sets of shingle hashes, signatures.
Guarantees: the hashes are fixed arithmetic over Unicode code points, the same on every machine and in every
release of polars and numpy; a text's values do not depend on the texts beside it.
Rejected: one Python call per text or shingle (the measured cost of every MinHash library is exactly that), and
`polars.Expr.hash` (documented as unstable between versions).

A token is a run of letters, digits, marks and underscores after case folding; in scripts written without spaces
between words (Chinese, Japanese kana, Thai, Lao, Khmer, Burmese, Tibetan) each character is a token.

Axes: C characters of the batch, T tokens, G n-grams, S shingles, N texts, P permutations.
"""

# ruff: noqa: N803, N806, N815  # arrays carry their axes in their names
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "I64",
    "U32",
    "U64",
    "Ngrams",
    "Shingles",
    "Tokens",
    "jaccard",
    "ngrams",
    "shingle",
    "sign",
    "tokenise",
]

U32 = NDArray[np.uint32]
U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]
Bools = NDArray[np.bool_]

_BREAK, _WORD, _SOLO = 0, 1, 2
_CODE_POINTS = 0x110000
# CJK radicals to unified ideographs, kana, compatibility and supplementary ideographs; Thai, Lao, Tibetan,
# Burmese, Khmer; half-width kana.
_UNSPACED = (
    (0x0E00, 0x0FFF),
    (0x1000, 0x109F),
    (0x1780, 0x17FF),
    (0x2E80, 0x2FDF),
    (0x3005, 0x3007),
    (0x3040, 0x30FF),
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0xFF66, 0xFF9F),
    (0x20000, 0x323AF),
)
_CHAR_BASE = 0x9E3779B97F4A7C15  # odd, so that powers never vanish mod 2^64; the golden ratio's bits
_TOKEN_BASE = 0xD1342543DE82EF95  # odd; L'Ecuyer & Steele 2021, a 64-bit multiplier with a good spectral test


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
    folded = [text.casefold() for text in texts]
    char_C = np.frombuffer("".join(folded).encode("utf-32-le", "replace"), dtype=np.uint32)
    text_C = np.repeat(np.arange(len(folded)), [len(text) for text in folded])
    kind_C, digit_C = _classify(char_C, characters=characters)
    kept_K = np.flatnonzero(kind_C != _BREAK)
    if kept_K.size == 0:
        return Tokens(np.empty(0, np.uint64), np.empty(0, np.int64), np.empty(0, np.bool_))
    start_K = _starts(kind_C[kept_K], text_C[kept_K], kept_K)
    first_T = np.flatnonzero(start_K)
    place_K = np.arange(kept_K.size) - np.repeat(first_T, np.diff(first_T, append=kept_K.size))
    weighted_K = _mix(char_C[kept_K].astype(np.uint64)) * _powers(_CHAR_BASE, int(place_K.max()) + 1)[place_K]
    return Tokens(
        hash_T=_mix(np.add.reduceat(weighted_K, first_T)),
        text_T=text_C[kept_K][first_T],
        numeric_T=np.logical_and.reduceat(digit_C[kept_K], first_T),
    )


def ngrams(tokens: Tokens, n: int) -> Ngrams:
    """Every run of `n` tokens inside one text; a text with fewer has none."""
    count = tokens.hash_T.size - n + 1
    if count <= 0:
        return Ngrams(np.empty(0, np.uint64), np.empty(0, np.int64), np.empty(0, np.int64))
    start_G = np.flatnonzero(tokens.text_T[:count] == tokens.text_T[n - 1 :])
    power_n = _powers(_TOKEN_BASE, n)
    hash_G = np.zeros(start_G.size, np.uint64)
    for k in range(n):
        hash_G += tokens.hash_T[start_G + k] * power_n[k]
    return Ngrams(_mix(hash_G), tokens.text_T[start_G], start_G)


def shingle(texts: Sequence[str], n: int) -> Shingles:
    """The set of word n-grams of each text, or of character n-grams where it has fewer than `n` words.

    A text shorter than `n` characters is one shingle; a text of white space has none.
    """
    words = ngrams(tokenise(texts), n)
    covered_N = np.zeros(len(texts), np.bool_)
    covered_N[words.text_G] = True
    rest = np.flatnonzero(~covered_N)
    # NUL pads the end, so that every text with a character has a shingle.
    padded = ["".join(texts[i].split()) for i in rest.tolist()]
    padded = [text + "\0" * (n - 1) if text else "" for text in padded]
    letters = ngrams(tokenise(padded, characters=True), n)
    hash_G = np.concatenate([words.hash_G, _mix(letters.hash_G ^ np.uint64(_CHAR_BASE))])
    text_G = np.concatenate([words.text_G, rest[letters.text_G]])
    order = np.lexsort((hash_G, text_G))
    hash_G, text_G = hash_G[order], text_G[order]
    new_G = np.ones(hash_G.size, np.bool_)
    new_G[1:] = (hash_G[1:] != hash_G[:-1]) | (text_G[1:] != text_G[:-1])
    offset_N1 = np.searchsorted(text_G[new_G], np.arange(len(texts) + 1))
    return Shingles(hash_G[new_G], offset_N1.astype(np.int64))


def sign(shingles: Shingles, permutations: tuple[U32, U32]) -> U32:
    """`signature_NP` of datasketch's `affine32` scheme over the upper half of each shingle hash.

    Equal to `datasketch.MinHash` 2.x fed with the same 32-bit hashes (a test compares them). A text without
    shingles keeps the maximum in every place.
    """
    count = shingles.offset_N1.size - 1
    factor_P, summand_P = permutations
    signature_NP = np.full((count, factor_P.size), np.iinfo(np.uint32).max, np.uint32)
    filled = np.flatnonzero(np.diff(shingles.offset_N1))
    if filled.size == 0:
        return signature_NP
    mixed_S = _mix32((shingles.hash_S >> np.uint64(32)).astype(np.uint32))
    first_N = shingles.offset_N1[filled]
    for p in range(factor_P.size):
        signature_NP[filled, p] = np.minimum.reduceat(mixed_S * factor_P[p] + summand_P[p], first_N)
    return signature_NP


def jaccard(a: U64, b: U64) -> float:
    """Size of the intersection over size of the union of two sorted sets; 0.0 if either is empty."""
    if a.size == 0 or b.size == 0:
        return 0.0
    both = np.intersect1d(a, b, assume_unique=True).size
    return float(both) / float(a.size + b.size - both)


def _classify(char_C: U32, *, characters: bool) -> tuple[NDArray[np.uint8], Bools]:
    present = np.zeros(_CODE_POINTS, np.bool_)
    present[char_C] = True
    kind = np.zeros(_CODE_POINTS, np.uint8)
    digit = np.zeros(_CODE_POINTS, np.bool_)
    for code in np.flatnonzero(present).tolist():
        char = chr(code)
        digit[code] = char.isdigit()
        if characters:
            kind[code] = _BREAK if char.isspace() else _SOLO
        elif char.isalnum() or char == "_" or unicodedata.category(char).startswith("M"):
            kind[code] = _SOLO if any(low <= code <= high for low, high in _UNSPACED) else _WORD
    return kind[char_C], digit[char_C]


def _starts(kind_K: NDArray[np.uint8], text_K: I64, place_K: I64) -> Bools:
    start_K = np.ones(kind_K.size, np.bool_)
    start_K[1:] = (
        (kind_K[1:] == _SOLO)
        | (kind_K[:-1] == _SOLO)
        | (text_K[1:] != text_K[:-1])
        | (place_K[1:] != place_K[:-1] + 1)
    )
    return start_K


def _powers(base: int, count: int) -> U64:
    factors = np.full(count, base, np.uint64)
    factors[0] = 1
    return np.cumprod(factors, dtype=np.uint64)


def _mix(hash_X: U64) -> U64:
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
