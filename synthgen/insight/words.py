"""Texts as arrays of words: what all reports count.

In: texts. Out: `Words`, one array over all of them, cut a piece at a time. Guarantees: the words of near-duplicate
search, so that a number here and a verdict there speak of the same thing; memory is 9 bytes a word.
Rejected: lists of strings (a hundred bytes a word).

Axes: T words, N texts, G n-grams.
"""

# ruff: noqa: N803, N806, N815  # arrays carry their axes in their names
import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import polars as pl

from synthgen.dataclasses import dataclass
from synthgen.refine.shingles import I64, U64, Bools, Tokens, ngrams, tokenise, words_of

__all__ = ["Texts", "Words", "count_words", "ngram_hashes", "pick", "wilson"]

_PIECE_CHARS = 1 << 21
_Z95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Words:
    """`hash_T`; `text_T`: the text each word stands in, ascending; `texts`: as they were given."""

    texts: Sequence[str]
    hash_T: U64
    text_T: I64
    numeric_T: Bools

    @property
    def sizes(self) -> I64:
        """Words of each text."""
        return np.bincount(self.text_T, minlength=len(self.texts))

    def names(self, hash_X: U64) -> list[str]:
        """The words behind hashes that occur here, as they are written first, case-folded."""
        known, first = np.unique(self.hash_T, return_index=True)
        start_N = np.searchsorted(self.text_T, np.arange(len(self.texts)))
        out = []
        for place in first[np.searchsorted(known, hash_X)].tolist():
            text = int(self.text_T[place])
            out.append(words_of(self.texts[text])[place - int(start_N[text])])
        return out


Texts = Sequence[str] | Words


def count_words(texts: Texts) -> Words:
    """Cut all texts into words, once."""
    if isinstance(texts, Words):
        return texts
    size_N = np.cumsum([0, *map(len, texts)])
    cuts = [0, *(np.flatnonzero(np.diff(size_N // _PIECE_CHARS)) + 1).tolist(), len(texts)]
    parts = [(a, tokenise(texts[a:b])) for a, b in pairwise(cuts) if b > a]
    return Words(
        texts,
        np.concatenate([np.empty(0, np.uint64), *(part.hash_T for _, part in parts)]),
        np.concatenate([np.empty(0, np.int64), *(part.text_T + a for a, part in parts)]),
        np.concatenate([np.empty(0, np.bool_), *(part.numeric_T for _, part in parts)]),
    )


def ngram_hashes(words: Words, n: int) -> tuple[U64, I64]:
    """`hash_G` and `text_G` of all runs of `n` words."""
    found = ngrams(Tokens(words.hash_T, words.text_T, words.numeric_T), n)
    return found.hash_G, found.text_G


def pick(texts: pl.Series, most: int) -> list[str]:
    """At most `most` texts, spread evenly over the set; null is empty. The same rows every time."""
    if len(texts) > most:
        texts = texts.gather(np.arange(most) * len(texts) // most)
    return texts.fill_null("").to_list()


def wilson(hits: int, of: int) -> tuple[float, float]:
    """95 % interval of a share, 0..1; of nothing it is all.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    if of == 0:
        return 0.0, 1.0
    share, z2 = hits / of, _Z95 * _Z95
    middle = (share + z2 / (2 * of)) / (1 + z2 / of)
    half = _Z95 * math.sqrt(share * (1 - share) / of + z2 / (4 * of * of)) / (1 + z2 / of)
    return max(middle - half, 0.0), min(middle + half, 1.0)
