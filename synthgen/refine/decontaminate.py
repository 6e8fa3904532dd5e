"""Which rows repeat an item of a benchmark? Those must not be trained on.

In: the texts of a reference set, then frames of the view. Out: a `Reference`, and one verdict per row that repeats one
of its items, with the words they share. Guarantees: pure; a row's verdict does not depend on the rows beside it; line
breaks, case and punctuation change nothing; what more than a few items share (the benchmark's own template) convicts
nobody.
Rejected: MinHash for near copies (Jaccard sees no item inside a longer text; the containment computed here finds every
pair that Jaccard over the same shingles would, and those), and one list of n-grams for all benchmarks (a report must
say which one leaked).

A row is convicted by, in this order,
`shared_run`   a run of `ngram` words that stands in an item;
`near_copy`    at least `NEAR` of an item's `SHINGLE`-word runs, anywhere in the prompt or anywhere in the answer;
`exact_match`  an item of fewer than `LEAST` words of its own as the whole prompt or answer, or as a line or sentence of its own.

Axes: G n-grams of the batch, K those that the reference has, H one entry for each item that has one, R n-grams of the
reference, P pairs of a reference n-gram and an item.
"""

# ruff: noqa: N803, N806, N815  # arrays carry their axes in their names
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl

from synthgen.refine.loops import tokens_of
from synthgen.refine.shingles import I64, U64, Bools, Ngrams, Tokens, ngrams, tokenise, words_of

__all__ = ["RUN", "Reference", "index_reference", "repeats_of"]

# Brown et al. 2020, "Language Models are Few-Shot Learners", appendix C: 13 words; n-grams that occur more than ten
# times are taken for common. 8 is the stricter habit of open-r1 and s1.
RUN = 13
_COMMON = 10
# In small sets a template is rarer: a tenth of the items, but never two, which may well repeat each other.
_COMMON_SHARE = 0.1
SHINGLE = 5
NEAR = 0.8  # the threshold of near duplicates (`NearConfig`); containment is at least the Jaccard
LEAST = 8  # words; shorter items have too few shingles
_LEAST_WHOLE = 3  # words of an item that must be the whole text: "yes" is everybody's answer
_LEAST_PIECE = 5  # words of an item that may be one sentence of many
_PIECES = re.compile(r"[\n.!?。！？]+")
_WORD_CHARS = 30  # a piece longer than so many for each word of the longest short item is none
_SPAN_WORDS = 40
_THRESHOLDS = {"shared_run": None, "near_copy": NEAR, "exact_match": 1.0}

FOUND = pl.Schema(
    {
        "id": pl.String,
        "stage": pl.String,  # decontaminate:<reference>
        "reason": pl.String,  # shared_run | near_copy | exact_match
        "score": pl.Float64,  # share of the item's shingles in the row, 0..1
        "threshold": pl.Float64,  # what the score had to stay below; null for a run, whose length convicts
        "detail": pl.String,  # the item's number and the words that are shared
    }
)


@dataclass(frozen=True, slots=True)
class Reference:
    """The n-grams of a benchmark. `items`: distinct texts; `unsearchable`: those of one or two words, which nothing
    matches; `common`: shingles taken for template.
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
    short_begin: Mapping[int, tuple[U64, Bools]]  # words -> how short items begin: sorted, and by low bits


def index_reference(name: str, texts: Sequence[str], *, ngram: int = RUN) -> Reference:
    """Index the items of a reference set; equal ones count once, under the number of the first.

    Items are numbered from 0 in the order given.
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
    limit = min(_COMMON, max(2, int(len(items) * _COMMON_SHARE)))
    shingles = ngrams(tokens, SHINGLE)
    template_T, common = _template(shingles, tokens.hash_T.size, limit)
    run_P, run_item_P = _pairs(_outside(ngrams(tokens, ngram), ngram, template_T))
    run_R, first_R = np.unique(run_P, return_index=True)
    shingle_P, item_P = _pairs(_outside(shingles, SHINGLE, template_T))
    size_N = np.bincount(item_P, minlength=len(items))
    size_N[size_N < LEAST - SHINGLE + 1] = 0  # a short text, or little but template
    kept_P = size_N[item_P] > 0
    brief_N = (size_N == 0) & (words_N >= _LEAST_WHOLE)
    short: dict[tuple[int, int], int] = {}
    for key, item in _whole(tokens, words_N, sorted(set(words_N[brief_N].tolist()))):
        if brief_N[item]:
            short.setdefault(key, numbers[item])
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
        common=common,
        run_R=run_R,
        run_item_R=number_of[run_item_P[first_R]],
        shingle_P=shingle_P[kept_P],
        item_P=number_of[item_P[kept_P]],
        maybe_run_X=_maybe(run_R),
        maybe_shingle_X=_maybe(shingle_P[kept_P]),
        size_of_item=size_of_item,
        short=short,
        short_begin={words: (hash_R, _maybe(hash_R)) for words, hash_R in begin_G.items() if hash_R.size},
    )


def repeats_of(reference: Reference, view: pl.DataFrame) -> pl.DataFrame:
    """`FOUND` for the rows of the view that repeat an item, in the view's order."""
    ids = view["id"].to_list()
    found: dict[int, tuple[str, float, float | None, str]] = {}
    for column in ("prompt", "completion"):
        for text, match in _matches(reference, view[column].fill_null("")).items():
            if text not in found or match.score > found[text][1]:
                words = " ".join(match.words[:_SPAN_WORDS]) + (" …" if len(match.words) > _SPAN_WORDS else "")
                detail = f"item {match.item}, {column}, {len(match.words)} words: {words}"
                found[text] = (match.reason, match.score, _THRESHOLDS[match.reason], detail)
    stage = f"decontaminate:{reference.name}"
    return pl.DataFrame(
        [(ids[text], stage, *found[text]) for text in sorted(found)], schema=FOUND, orient="row"
    )


class _Match(NamedTuple):
    reason: str
    score: float
    item: int
    words: list[str]


def _matches(reference: Reference, texts: pl.Series) -> dict[int, _Match]:
    tokens = tokens_of(texts)
    start_N = np.searchsorted(tokens.text_T, np.arange(len(texts)))
    maybe = _maybe_exact(reference, tokens)
    found = {maybe[place]: match for place, match in _exact(reference, [texts[text] for text in maybe])}
    shares, spans = _shares(reference, ngrams(tokens, SHINGLE))
    for (text, item), share in shares.items():
        if share >= NEAR and (text not in found or share > found[text].score):
            a, b = spans[text, item]
            words = words_of(texts[text])[a - start_N[text] : b - start_N[text]]
            found[text] = _Match("near_copy", share, item, words)
    for text, (place, a, b) in _runs(reference, ngrams(tokens, reference.ngram)).items():
        item = int(reference.run_item_R[place])
        words = words_of(texts[text])[a - start_N[text] : b - start_N[text]]
        found[text] = _Match("shared_run", shares.get((text, item), 0.0), item, words)
    return found


def _runs(reference: Reference, grams: Ngrams) -> dict[int, tuple[int, int, int]]:
    """Text -> the place of its first shared run in the reference, and the tokens where what is shared begins and ends."""
    shared_K, place_K = _shared(grams.hash_G, reference.run_R, reference.maybe_run_X)
    out: dict[int, tuple[int, int, int]] = {}
    for g, first in zip(shared_K.tolist(), place_K.tolist(), strict=True):
        text, start = int(grams.text_G[g]), int(grams.start_G[g])
        place, a, b = out.get(text, (first, start, start + reference.ngram))
        if b == start + reference.ngram - 1:
            b += 1
        out[text] = (place, a, b)
    return out


def _shares(
    reference: Reference, grams: Ngrams
) -> tuple[dict[tuple[int, int], float], dict[tuple[int, int], tuple[int, int]]]:
    """For every text and item that have a shingle in common: the share of the item's, and the tokens they span."""
    shared_K, low_K = _shared(grams.hash_G, reference.shingle_P, reference.maybe_shingle_X)
    times_K = np.searchsorted(reference.shingle_P, grams.hash_G[shared_K], side="right") - low_K
    gram_H = np.repeat(shared_K, times_K)
    within_H = np.arange(gram_H.size) - np.repeat(np.cumsum(times_K) - times_K, times_K)
    place_H = np.repeat(low_K, times_K) + within_H
    hits = (
        pl.DataFrame(
            {
                "text": grams.text_G[gram_H],
                "item": reference.item_P[place_H],
                "shingle": reference.shingle_P[place_H],
                "start": grams.start_G[gram_H],
            }
        )
        .group_by("text", "item", maintain_order=True)
        .agg(pl.col("shingle").n_unique(), first=pl.col("start").min(), last=pl.col("start").max())
    )
    shares: dict[tuple[int, int], float] = {}
    spans: dict[tuple[int, int], tuple[int, int]] = {}
    for text, item, count, first, last in hits.iter_rows():
        shares[text, item] = count / int(reference.size_of_item[item])
        spans[text, item] = (first, last + SHINGLE)
    return shares, spans


def _maybe_exact(reference: Reference, tokens: Tokens) -> list[int]:
    """Texts in which a short item may stand: somewhere in them its first words do, one behind the other."""
    hits: set[int] = set()
    for words, (hash_R, maybe_X) in reference.short_begin.items():
        grams = ngrams(tokens, words)
        shared_K, _ = _shared(grams.hash_G, hash_R, maybe_X)
        hits.update(grams.text_G[shared_K].tolist())
    return sorted(hits)


def _exact(reference: Reference, texts: Sequence[str]) -> Iterator[tuple[int, _Match]]:
    """Texts with an item too short for n-grams: as the whole of them, or as a line or sentence."""
    if not reference.short:
        return
    longest = _WORD_CHARS * max(words for words, _ in reference.short)
    pieces: list[str] = []
    owner: list[tuple[int, bool]] = []
    for number, text in enumerate(texts):
        cut = {*text.splitlines(), *_PIECES.split(text)} - {text}
        for piece, whole in ((text, True), *((piece, False) for piece in sorted(cut))):
            if len(piece) <= longest:
                pieces.append(piece)
                owner.append((number, whole))
    tokens = tokenise(pieces)
    words_N = np.bincount(tokens.text_T, minlength=len(pieces))
    lengths = sorted({words for words, _ in reference.short})
    found = sorted((place, key) for key, place in _whole(tokens, words_N, lengths))
    done: set[int] = set()
    for place, key in found:
        row, whole = owner[place]
        item = reference.short.get(key)
        if item is not None and row not in done and (whole or key[0] >= _LEAST_PIECE):
            done.add(row)
            yield row, _Match("exact_match", 1.0, item, words_of(pieces[place]))


def _whole(tokens: Tokens, words_N: I64, lengths: Sequence[int]) -> Iterator[tuple[tuple[int, int], int]]:
    """Words and hash of every text that has so many words, and its number."""
    for words in lengths:
        grams = ngrams(tokens, words)
        whole_G = words_N[grams.text_G] == words
        for value, text in zip(grams.hash_G[whole_G].tolist(), grams.text_G[whole_G].tolist(), strict=True):
            yield (words, value), text


def _template(shingles: Ngrams, tokens: int, limit: int) -> tuple[Bools, int]:
    """Which tokens stand in a shingle that more than `limit` items have, and how many such shingles there are."""
    hash_P, _ = _pairs(shingles)
    hash_R, times_R = np.unique(hash_P, return_counts=True)
    common_R = hash_R[times_R > limit]
    template_T = np.zeros(tokens, np.bool_)
    start_G = shingles.start_G[np.isin(shingles.hash_G, common_R)]
    for k in range(SHINGLE):
        template_T[start_G + k] = True
    return template_T, int(common_R.size)


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


def _shared(hash_G: U64, hash_R: U64, maybe_X: Bools) -> tuple[I64, I64]:
    """Which hashes stand in the sorted `hash_R`, and the first place of each.

    The bits are asked first, because nearly every search through the table would be vain (a third of the CPU went there).
    """
    maybe_K = np.flatnonzero(maybe_X[hash_G & np.uint64(maybe_X.size - 1)])
    place_K = np.searchsorted(hash_R, hash_G[maybe_K])
    inside_K = place_K < hash_R.size
    maybe_K, place_K = maybe_K[inside_K], place_K[inside_K]
    same_K = hash_R[place_K] == hash_G[maybe_K]
    return maybe_K[same_K], place_K[same_K]
