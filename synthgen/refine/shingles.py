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
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from synthgen.refine.alphabet import DIGIT, KIND_SHIFT, MARK, SOLO, SPACE, WORD, Alphabet

__all__ = [
    "CHAR_BASE",
    "CHUNK_BASE",
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
    "sign_hashes",
    "tokenise",
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
_ALPHABET = Alphabet()


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
    char_C, size_N, bytes_C = _folded(texts)
    entry_C = _look_up(char_C)
    kind_C = (entry_C >> np.uint32(KIND_SHIFT)).astype(np.uint8) & np.uint8(7)
    first_T, end_T = _spans(kind_C, size_N, characters=characters)
    hash_T = _hashed(bytes_C, *_byte_places(char_C, first_T, end_T))
    digits_C1 = np.zeros(char_C.size + 1, np.int32)
    np.cumsum(entry_C & np.uint32(DIGIT) != 0, dtype=np.int32, out=digits_C1[1:])
    per_text_N = np.diff(np.searchsorted(first_T, np.cumsum([0, *size_N])))
    return Tokens(
        hash_T=hash_T,
        text_T=np.repeat(np.arange(len(texts)), per_text_N),
        numeric_T=digits_C1[end_T] - digits_C1[first_T] == end_T - first_T,
    )


def words_of(text: str) -> list[str]:
    """The folded words of one text, as `tokenise` cuts them."""
    char_C, size_N, _ = _folded([text])
    kind_C = (_look_up(char_C) >> np.uint32(KIND_SHIFT)).astype(np.uint8) & np.uint8(7)
    folded = text.casefold()
    first_T, end_T = _spans(kind_C, size_N, characters=False)
    return [folded[a:b] for a, b in zip(first_T.tolist(), end_T.tolist(), strict=True)]


def ngrams(tokens: Tokens, n: int) -> Ngrams:
    """Every run of `n` tokens inside one text; a text with fewer has none."""
    count = tokens.hash_T.size - n + 1
    if count <= 0:
        return Ngrams(np.empty(0, np.uint64), np.empty(0, np.int64), np.empty(0, np.int64))
    start_G = np.flatnonzero(tokens.text_T[:count] == tokens.text_T[n - 1 :])
    return Ngrams(TokenSums(tokens.hash_T).runs(n)[start_G], tokens.text_T[start_G], start_G)


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
    found = ngrams(tokenise(texts if words else ()), n)
    covered_N = np.zeros(len(texts), np.bool_)
    covered_N[found.text_G] = True
    rest = np.flatnonzero(~covered_N)
    padded = ["".join(texts[i].split()) for i in rest.tolist()]
    padded = [text + "\0" * (n - 1) if text else "" for text in padded]
    letters = ngrams(tokenise(padded, characters=True), n)
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
    sets = [np.unique(found.hash_G[a:b]) for a, b in pairwise(offset_N1.tolist())]
    ends = np.cumsum([0, *(own.size for own in sets)], dtype=np.int64)
    return Shingles(np.concatenate(sets) if sets else np.empty(0, np.uint64), ends)


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


def _folded(texts: Sequence[str]) -> tuple[NDArray[np.uint8] | U32, list[int], bytes]:
    """Case-folded characters of all texts, one array, how many each text has, and the same as UTF-8."""
    joined = "".join(texts)
    if joined.isascii():
        lowered = joined.lower().encode()
        return np.frombuffer(lowered, np.uint8), [len(text) for text in texts], lowered
    folded = [text.casefold() for text in texts]
    joined = "".join(folded)
    char_C = np.frombuffer(joined.encode("utf-32-le", "replace"), np.uint32)
    return char_C, [len(text) for text in folded], joined.encode("utf-8", "replace")


def _byte_places(char_C: NDArray[np.uint8] | U32, first_T: I64, end_T: I64) -> tuple[I64, I64]:
    """The places of these characters as UTF-8: their own, and one to three more for each character above ASCII before."""
    if char_C.dtype == np.uint8:
        return first_T, end_T
    wide_W = np.flatnonzero(char_C >= 0x80)
    wider_W = char_C[wide_W]
    more_W1 = np.zeros(wide_W.size + 1, np.int64)
    np.cumsum(1 + (wider_W >= 0x800) + (wider_W >= 0x10000), out=more_W1[1:])
    return first_T + more_W1[np.searchsorted(wide_W, first_T)], end_T + more_W1[
        np.searchsorted(wide_W, end_T)
    ]


def _hashed(text: bytes, first_T: I64, end_T: I64) -> U64:
    """Tokens as chunks of eight bytes, little-endian and padded with NUL, weighted with the powers of `CHUNK_BASE`."""
    padded = text + bytes(8)
    chunk_C: U64 = np.ndarray((len(text) + 1,), "<u8", padded, strides=(1,))
    keep = np.array([(1 << 8 * n) - 1 for n in range(9)], np.uint64)
    size_T = end_T - first_T
    sum_T = chunk_C[first_T] & keep[np.minimum(size_T, 8)]
    power_K = powers(CHUNK_BASE, int(size_T.max(initial=0)) // 8 + 1)
    longer_T = np.flatnonzero(size_T > 8)
    for k in range(1, power_K.size):
        size_L = size_T[longer_T] - 8 * k
        sum_T[longer_T] += (chunk_C[first_T[longer_T] + 8 * k] & keep[np.minimum(size_L, 8)]) * power_K[k]
        longer_T = longer_T[size_L > 8]
    return mix(sum_T)


def _look_up(char_C: NDArray[np.uint8] | U32) -> U32:
    """The alphabet's entries of folded characters."""
    entry_C = _ALPHABET.entry_X[char_C]
    if unknown := set(char_C[entry_C == 0].tolist()):
        _ALPHABET.learn(unknown)
        entry_C = _ALPHABET.entry_X[char_C]
    return entry_C


def _spans(kind_C: NDArray[np.uint8], size_N: list[int], *, characters: bool) -> tuple[I64, I64]:
    """Where each token begins and ends."""
    if characters:
        first_T = np.flatnonzero(kind_C != SPACE)
        return first_T, first_T + 1
    word_C = (kind_C == WORD) | (kind_C == MARK)
    solo_C = kind_C == SOLO
    begins_C, ends_C = word_C.copy(), word_C.copy()
    begins_C[1:] &= ~word_C[:-1]
    ends_C[:-1] &= ~word_C[1:]
    start_N = np.cumsum([0, *size_N])[1:-1]
    start_N = start_N[(start_N > 0) & (start_N < kind_C.size)]
    begins_C[start_N] |= word_C[start_N]
    ends_C[start_N - 1] |= word_C[start_N - 1]
    first_T, end_T = np.flatnonzero(begins_C | solo_C), np.flatnonzero(ends_C | solo_C) + 1
    if (kind_C == MARK).any():  # marks alone are no word
        marks_C1 = np.cumsum(np.append(0, kind_C == MARK))
        real_T = marks_C1[end_T] - marks_C1[first_T] < end_T - first_T
        first_T, end_T = first_T[real_T], end_T[real_T]
    return first_T, end_T


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
