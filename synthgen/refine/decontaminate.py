"""Which rows repeat an item of a benchmark? Those must not be trained on.

In: a `Reference`, frames of the view. Out: one verdict per row that repeats one of its items, with the words they
share. Guarantees: pure; a row's verdict does not depend on the rows beside it; line breaks, case and punctuation change
nothing.
Rejected: MinHash for near copies (Jaccard sees no item inside a longer text; the containment computed here finds every
pair that Jaccard over the same shingles would, and those).

A row is convicted by, in this order,
`shared_run`   a run of `ngram` words that stands in an item;
`near_copy`    at least `NEAR` of an item's `SHINGLE`-word runs, anywhere in the prompt or anywhere in the answer;
`exact_match`  an item of fewer than `LEAST` words of its own as the whole prompt or answer, or as a line or sentence of its own.

Axes: G n-grams of the batch, K those that the reference has, H one entry for each item that has one, P pairs of a
reference n-gram and an item, N texts.
"""

# ruff: noqa: N806  # arrays carry their axes in their names
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from synthgen.refine.reference import (
    LEAST_PIECE,
    SHINGLE,
    Reference,
    Search,
    shared,
    tokens_of,
    whole_texts,
)
from synthgen.refine.shingles import Ngrams, tokenise, words_of

__all__ = ["FOUND", "repeats_of"]

NEAR = 0.8  # the threshold of near duplicates (`NearConfig`); containment is at least the Jaccard

_PIECES = re.compile(r"[\n.!?。！？]+")
_WORD_CHARS = 30  # a piece longer than so many for each word of the longest short item is none
_SPAN_WORDS = 40

FOUND = pl.Schema(
    {
        "id": pl.String,
        "stage": pl.String,  # decontaminate:<reference>
        "reason": pl.String,  # shared_run | near_copy | exact_match
        "score": pl.Float64,  # words of the run; else the share of the item's shingles in the row, 0..1
        "threshold": pl.Float64,  # what the score had to stay below: the reference's `ngram`, `NEAR`, 1
        "detail": pl.String,  # the item's number and the words that are shared
    }
)


def repeats_of(reference: Reference, view: pl.DataFrame) -> pl.DataFrame:
    """`FOUND` for the rows of the view that repeat an item, in the view's order."""
    ids = view["id"].to_list()
    thresholds = {"shared_run": float(reference.ngram), "near_copy": NEAR, "exact_match": 1.0}
    found: dict[int, tuple[str, float, float, str]] = {}
    for column in ("prompt", "completion"):
        for text, match in _matches(reference, view[column].fill_null("")).items():
            if text not in found or match.score > found[text][1]:
                words = " ".join(match.words[:_SPAN_WORDS]) + (" …" if len(match.words) > _SPAN_WORDS else "")
                detail = f"item {match.item}, {column}, {len(match.words)} words: {words}"
                found[text] = (match.reason, match.score, thresholds[match.reason], detail)
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
    search = Search(tokens)
    start_N = np.searchsorted(tokens.text_T, np.arange(len(texts)))
    maybe = _maybe_exact(reference, search)
    found = {maybe[place]: match for place, match in _exact(reference, [texts[text] for text in maybe])}
    shares, spans = _shares(reference, search.maybe(SHINGLE, reference.maybe_shingle_X))
    for (text, item), share in shares.items():
        if share >= NEAR and (text not in found or share > found[text].score):
            a, b = spans[text, item]
            words = words_of(texts[text])[a - start_N[text] : b - start_N[text]]
            found[text] = _Match("near_copy", share, item, words)
    for text, (place, a, b) in _runs(reference, search.maybe(reference.ngram, reference.maybe_run_X)).items():
        item = int(reference.run_item_R[place])
        words = words_of(texts[text])[a - start_N[text] : b - start_N[text]]
        found[text] = _Match("shared_run", float(len(words)), item, words)
    return found


def _runs(reference: Reference, grams: Ngrams) -> dict[int, tuple[int, int, int]]:
    """Text -> the place of its first shared run in the reference, and the tokens where what is shared begins and ends."""
    shared_K, place_K = shared(grams.hash_G, reference.run_R)
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
    shared_K, low_K = shared(grams.hash_G, reference.shingle_P)
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


def _maybe_exact(reference: Reference, search: Search) -> list[int]:
    """Texts in which a short item may stand: somewhere in them its first words do, one behind the other."""
    hits: set[int] = set()
    for words, (hash_R, maybe_X) in reference.short_begin.items():
        grams = search.maybe(words, maybe_X)
        shared_K, _ = shared(grams.hash_G, hash_R)
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
    found = sorted((place, key) for key, place in whole_texts(tokens, words_N, lengths))
    done: set[int] = set()
    for place, key in found:
        row, whole = owner[place]
        item = reference.short.get(key)
        own = key not in reference.only_whole and key[0] >= LEAST_PIECE
        if item is not None and row not in done and (whole or own):
            done.add(row)
            yield row, _Match("exact_match", 1.0, item, words_of(pieces[place]))
