"""The n-grams of a reference set: what rows are searched for, and how.

In: the texts of a benchmark, or the prompts of the test split. Out: a `Reference`. Guarantees: pure; what more than a few
items share (the set's own template), and what the caller calls common, convicts nobody.
Rejected: one list of n-grams for all sets (a report must say which one leaked).

Axes: G n-grams of the batch, R different n-grams of the reference, P pairs of a reference n-gram and an item, N texts.
"""

# ruff: noqa: N803, N806, N815  # arrays carry their axes in their names
import sys
from collections.abc import Iterator, Mapping, Sequence, Set

import numpy as np
import polars as pl

from synthgen.dataclasses import dataclass
from synthgen.refine.loops import worth_compiling
from synthgen.refine.shingles import I64, U64, Bools, Ngrams, Tokens, TokenSums, ngrams, tokenise

__all__ = [
    "LEAST",
    "LEAST_PIECE",
    "RUN",
    "SHINGLE",
    "Frequencies",
    "Reference",
    "Search",
    "common_limit",
    "index_reference",
    "shared",
    "tokens_of",
    "whole_texts",
]

# Brown et al. 2020, "Language Models are Few-Shot Learners", appendix C: 13 words; n-grams that occur more than ten
# times are taken for common. 8 is the stricter habit of open-r1 and s1.
RUN = 13
_COMMON = 10
# In small sets a template is rarer: a tenth of the items, but never two, which may well repeat each other.
_COMMON_SHARE = 0.1
SHINGLE = 5
LEAST = 8  # words; shorter items have too few shingles
_LEAST_WHOLE = 3  # words of an item that must be the whole text: "yes" is everybody's answer
LEAST_PIECE = 5  # words of an item that may be one sentence of many
_NO_HASHES = np.empty(0, np.uint64)


@dataclass(frozen=True, slots=True)
class Reference:
    """The n-grams of a set. `items`: distinct texts; `unsearchable`: those of one or two words, which nothing matches;
    `common`: shingles taken for template.
    """

    name: str
    ngram: int
    items: int
    unsearchable: int
    common: int
    run_R: U64  # sorted
    run_item_R: I64
    shingle_P: U64  # sorted; one entry per item that has it
    item_P: I64
    maybe_run_X: Bools  # by the low bits of a hash: false where no run has them
    maybe_shingle_X: Bools
    size_of_item: I64  # distinct shingles that are no template
    short: Mapping[tuple[int, int], int]  # words and hash -> item
    only_whole: Set[tuple[int, int]]  # of those: nothing but words that the caller called common
    short_begin: Mapping[int, tuple[U64, Bools]]  # words -> how short items begin: sorted, and by low bits


def index_reference(
    name: str, texts: Sequence[str], *, ngram: int = RUN, common: U64 = _NO_HASHES
) -> Reference:
    """Index the items of a reference set; equal ones count once, under the number of the first.

    Items are numbered from 0 in the order given. `common`: hashes of shingles that are no sign of a leak, sorted, beside
    those that many items share; an item of nothing else is found as a whole text alone.
    """
    first: dict[str, int] = {}
    for number, text in enumerate(texts):
        first.setdefault(" ".join(text.casefold().split()), number)
    first.pop("", None)
    numbers = list(first.values())
    number_of = np.asarray(numbers, np.int64)
    items = [texts[number] for number in numbers]
    tokens = tokenise(items)
    words_N = np.bincount(tokens.text_T, minlength=len(items))
    shingles = ngrams(tokens, SHINGLE)
    hash_R, times_R = np.unique(_pairs(shingles)[0], return_counts=True)
    common_R = hash_R[(times_R > common_limit(len(items))) | np.isin(hash_R, common)]
    template_T = _covered(shingles, common_R, tokens.hash_T.size)
    bare_N = _bare(shingles, common, words_N)
    run_P, run_item_P = _pairs(_outside(ngrams(tokens, ngram), ngram, template_T))
    run_R, first_R = np.unique(run_P, return_index=True)
    shingle_P, item_P = _pairs(_outside(shingles, SHINGLE, template_T))
    size_N = np.bincount(item_P, minlength=len(items))
    size_N[size_N < LEAST - SHINGLE + 1] = 0  # a short text, or little but template
    kept_P = size_N[item_P] > 0
    brief_N = (size_N == 0) & (words_N >= _LEAST_WHOLE)
    short: dict[tuple[int, int], int] = {}
    only_whole: set[tuple[int, int]] = set()
    for key, item in whole_texts(tokens, words_N, sorted(set(words_N[brief_N].tolist()))):
        if brief_N[item]:
            short.setdefault(key, numbers[item])
            if bare_N[item]:
                only_whole.add(key)
    begin_G: dict[int, U64] = {}
    for words in range(_LEAST_WHOLE, SHINGLE + 1):
        # The first run of so many words of the items that are found by it.
        own_N = brief_N & ((words_N == words) if words < SHINGLE else (words_N >= words))
        grams = ngrams(tokens, words)
        first_G = np.diff(grams.text_G, prepend=-1) != 0
        begin_G[words] = np.unique(grams.hash_G[first_G & own_N[grams.text_G]])
    size_of_item = np.zeros(len(texts), np.int64)
    size_of_item[number_of] = size_N
    return Reference(
        name=name,
        ngram=ngram,
        items=len(items),
        unsearchable=int((words_N < _LEAST_WHOLE).sum()),
        common=int(common_R.size),
        run_R=run_R,
        run_item_R=number_of[run_item_P[first_R]],
        shingle_P=shingle_P[kept_P],
        item_P=number_of[item_P[kept_P]],
        maybe_run_X=_maybe(run_R),
        maybe_shingle_X=_maybe(shingle_P[kept_P]),
        size_of_item=size_of_item,
        short=short,
        only_whole=only_whole,
        short_begin={words: (hash_R, _maybe(hash_R)) for words, hash_R in begin_G.items() if hash_R.size},
    )


def common_limit(texts: int) -> int:
    """In how many of so many texts something may stand before it is taken for their template."""
    return min(_COMMON, max(2, int(texts * _COMMON_SHARE)))


class Frequencies:
    """In how many texts each shingle of some items stands; memory is that of the items' own shingles."""

    def __init__(self, items: Sequence[str]) -> None:
        self._hash_R: U64 = np.unique(ngrams(tokenise(items), SHINGLE).hash_G)
        self._maybe_X = _maybe(self._hash_R)
        self._times_R = np.zeros(self._hash_R.size, np.int64)

    def add(self, texts: pl.Series) -> None:
        """Count more texts."""
        grams = Search(tokens_of(texts)).maybe(SHINGLE, self._maybe_X)
        shared_K, place_K = shared(grams.hash_G, self._hash_R)
        pairs = np.unique(np.stack([grams.text_G[shared_K], place_K]), axis=1)
        np.add.at(self._times_R, pairs[1], 1)

    def above(self, limit: int) -> U64:
        """The shingles that stand in more than `limit` texts, sorted."""
        return self._hash_R[self._times_R > limit]


def whole_texts(
    tokens: Tokens, words_N: I64, lengths: Sequence[int]
) -> Iterator[tuple[tuple[int, int], int]]:
    """Words and hash of every text that has so many words, and its number."""
    for words in lengths:
        grams = ngrams(tokens, words)
        whole_G = words_N[grams.text_G] == words
        for value, text in zip(grams.hash_G[whole_G].tolist(), grams.text_G[whole_G].tolist(), strict=True):
            yield (words, value), text


def _covered(shingles: Ngrams, common_R: U64, tokens: int) -> Bools:
    """Which tokens stand in one of these shingles."""
    template_T = np.zeros(tokens, np.bool_)
    start_G = shingles.start_G[np.isin(shingles.hash_G, common_R)]
    for k in range(SHINGLE):
        template_T[start_G + k] = True
    return template_T


def _bare(shingles: Ngrams, common: U64, words_N: I64) -> Bools:
    """Texts that have shingles, all of them in `common`."""
    own_G = ~np.isin(shingles.hash_G, common)
    bare_N: Bools = (words_N >= SHINGLE) & (np.bincount(shingles.text_G[own_G], minlength=words_N.size) == 0)
    return bare_N


def _outside(grams: Ngrams, n: int, template_T: Bools) -> Ngrams:
    """The n-grams with no token of the template in them: with it, one word of an item's own would convict."""
    sum_T1 = np.cumsum(np.append(0, template_T))
    own_G = sum_T1[grams.start_G + n] == sum_T1[grams.start_G]
    return Ngrams(grams.hash_G[own_G], grams.text_G[own_G], grams.start_G[own_G])


def _pairs(grams: Ngrams) -> tuple[U64, I64]:
    """Distinct pairs of n-gram and item, sorted."""
    order = np.lexsort((grams.text_G, grams.hash_G))
    hash_G, text_G = grams.hash_G[order], grams.text_G[order]
    new_G = np.ones(hash_G.size, np.bool_)
    new_G[1:] = (hash_G[1:] != hash_G[:-1]) | (text_G[1:] != text_G[:-1])
    return hash_G[new_G], text_G[new_G]


def _maybe(hash_R: U64) -> Bools:
    """Which low bits occur; sixteen places a hash, so that one in sixteen strangers passes at most."""
    maybe_X = np.zeros(1 << max(int(hash_R.size * 16).bit_length(), 10), np.bool_)
    maybe_X[hash_R & np.uint64(maybe_X.size - 1)] = True
    return maybe_X


def tokens_of(texts: pl.Series, *, kernel: bool | None = None) -> Tokens:
    """`tokenise` of a column; `kernel` None: compiled where numba is loaded already, or worth it."""
    texts = texts.fill_null("")
    if kernel if kernel is not None else worth_compiling(texts):
        from synthgen.refine.reference_kernel import compiled_words

        return compiled_words(texts)
    return tokenise(texts.to_list())


class Search:
    """Tokens, to be searched for n-grams of several lengths. `kernel` None: compiled where numba is loaded."""

    def __init__(self, tokens: Tokens, *, kernel: bool | None = None) -> None:
        self._tokens = tokens
        self._kernel = kernel if kernel is not None else "numba" in sys.modules
        self._sums: TokenSums | None = None
        self._last: tuple[int, U64] | None = None  # one length, which two are asked for one behind the other

    def maybe(self, n: int, maybe_X: Bools) -> Ngrams:
        """The n-grams of which a reference may have some, by the low bits of their hashes."""
        tokens = self._tokens
        if self._kernel:
            from synthgen.refine.reference_kernel import compiled_hits

            return compiled_hits(tokens, n, maybe_X)
        self._sums = self._sums or TokenSums(tokens.hash_T)
        if self._last is None or self._last[0] != n:
            self._last = n, self._sums.runs(n)
        hash_A = self._last[1]  # of all places, also those across two texts
        start_K = np.flatnonzero(maybe_X[hash_A & np.uint64(maybe_X.size - 1)])
        start_K = start_K[tokens.text_T[start_K] == tokens.text_T[start_K + n - 1]]
        return Ngrams(hash_A[start_K], tokens.text_T[start_K], start_K)


def shared(hash_G: U64, hash_R: U64) -> tuple[I64, I64]:
    """Which hashes stand in the sorted `hash_R`, and the first place of each."""
    place_G = np.searchsorted(hash_R, hash_G)
    same_G = np.append(hash_R, 0)[place_G] == hash_G if hash_R.size else np.zeros(hash_G.size, np.bool_)
    same_G &= place_G < hash_R.size
    shared_K = np.flatnonzero(same_G)
    return shared_K, place_G[shared_K]
