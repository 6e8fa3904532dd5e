"""The compiled search of `synthgen.refine.decontaminate`: texts in, the few n-grams that a reference may have out.

In: a polars String series without nulls. Out: tokens, and n-grams whose bits are set. Guarantee: equal to the numpy path (a
test compares them). Needs numba.

Axes: C bytes, T tokens, K n-grams that may be shared, X low bits of a hash, N texts.
"""

# ruff: noqa: N803, N806  # arrays carry their axes in their names
import numpy as np
import polars as pl

from synthgen.refine.kernel_bits import U8, compiled
from synthgen.refine.kernel_lanes import EIGHT
from synthgen.refine.kernel_shingles import Tables, cut, hash_tokens, mix, new_scratch
from synthgen.refine.shingles import I64, TOKEN_BASE, U64, Bools, Ngrams, Tokens, powers
from synthgen.refine.text_buffers import Letters, buffers_of

__all__ = ["compiled_hits", "compiled_words"]

_LETTERS = Letters()
_ONE = powers(TOKEN_BASE, 1)  # shingles of one token: every text with a word is cut into words
_INVERSE = np.uint64(pow(TOKEN_BASE, -1, 1 << 64))
_ZERO = np.uint64(0)


def compiled_words(texts: pl.Series) -> Tokens:
    """What `tokenise` says of the texts, but for `numeric_T`, which nobody searches by."""
    buffer_C, offset_N1 = buffers_of(texts)
    # No text has more tokens than characters, but for foldings of one to three; nothing is touched beyond.
    token_T = np.empty(buffer_C.size * 3 // 2 + 4 + EIGHT, np.uint64)
    count_N = np.zeros(len(texts), np.int64)
    _LETTERS.until_known(
        buffer_C,
        lambda: _words(buffer_C, offset_N1, Tables(*_LETTERS.tables, _ONE), token_T, count_N),
    )
    total = int(count_N.sum())
    return Tokens(token_T[:total].copy(), np.repeat(np.arange(len(texts)), count_N), np.zeros(0, np.bool_))


def compiled_hits(tokens: Tokens, n: int, maybe_X: Bools) -> Ngrams:
    """The `ngrams` whose low bits are set in `maybe_X`."""
    start_K = np.empty(tokens.hash_T.size, np.int64)
    hash_K = np.empty(tokens.hash_T.size, np.uint64)
    power_n = powers(TOKEN_BASE, n)
    count = _hits(tokens.hash_T, tokens.text_T, n, power_n[-1], maybe_X, start_K, hash_K)
    return Ngrams(hash_K[:count].copy(), tokens.text_T[start_K[:count]], start_K[:count].copy())


@compiled
def _words(buffer_C: U8, offset_N1: I64, tables: Tables, token_T: U64, count_N: I64) -> bool:
    """False where a character is not in the tables yet."""
    scratch = new_scratch(offset_N1, 1)
    total = 0
    for i in range(offset_N1.size - 1):
        count, are_words = cut(buffer_C, offset_N1[i], offset_N1[i + 1], tables, True, scratch)
        if count < 0:
            return False
        if not are_words:
            count = 0
        count_N[i] = count
        hash_tokens(scratch.text_C, scratch.edge_E, count, token_T[total:])
        total += count
    return True


@compiled
def _hits(
    token_T: U64, text_T: I64, n: int, highest: np.uint64, maybe_X: Bools, start_K: I64, hash_K: U64
) -> int:
    """Fill `start_K` and `hash_K`; returns how many there are."""
    last = np.uint64(maybe_X.size - 1)
    count = size = 0
    h = _ZERO
    for t in range(token_T.size):
        if t > 0 and text_T[t] != text_T[t - 1]:
            h, size = _ZERO, 0
        # Of the run before, the first token goes and the others move down by one power.
        if size == n:
            h -= token_T[t - n]
            size -= 1
        h = h * _INVERSE + token_T[t] * highest
        size += 1
        if size == n:
            mixed = mix(h)
            if maybe_X[mixed & last]:
                start_K[count] = t - n + 1
                hash_K[count] = mixed
                count += 1
    return int(count)
