"""What texts are about, without embeddings: spherical k-means over TF-IDF, each topic named by its words.

In: words. Out: `Topics`, fitted to one set, and the topic of each text of any set. Guarantees: no randomness but a
fixed seed; memory is that of the words and of `FIT` rows. Cost: O(words x topics) to assign, that of `FIT` rows times
`_ROUNDS` to fit.
Rejected: LDA (slower, needs a library) and a hashed projection (its axes have no names).

Axes: N texts, E entries (a text and a term), V terms, K topics.
"""

# ruff: noqa: N803, N806, N815  # arrays carry their axes in their names
import numpy as np
import polars as pl
from numpy.typing import NDArray

from synthgen.dataclasses import dataclass
from synthgen.insight.words import Words
from synthgen.refine.shingles import F64, I64, U64

__all__ = ["OUTSIDE", "Topics", "fit_topics"]

F32 = NDArray[np.float32]
OUTSIDE = -1
FIT = 10_000
_ROUNDS = 12
_MOST_TERMS = 20_000
_MOST_TOPICS = 40
_NAME_WORDS = 5
_NEAR = 0.1  # cosine; a text below it shares hardly a rare word with any topic
_CHUNK = 1 << 17
# English words that ask or join and name nothing; those of other languages go by how common they are.
_FUNCTION_WORDS = frozenset(
    [
        "about",
        "after",
        "also",
        "because",
        "been",
        "before",
        "being",
        "between",
        "could",
        "does",
        "doing",
        "each",
        "even",
        "ever",
        "every",
        "first",
        "from",
        "give",
        "given",
        "have",
        "having",
        "help",
        "here",
        "into",
        "just",
        "know",
        "like",
        "made",
        "make",
        "many",
        "more",
        "most",
        "much",
        "need",
        "never",
        "next",
        "only",
        "other",
        "over",
        "please",
        "same",
        "should",
        "some",
        "such",
        "tell",
        "than",
        "that",
        "their",
        "them",
        "then",
        "there",
        "these",
        "they",
        "thing",
        "things",
        "this",
        "those",
        "through",
        "under",
        "used",
        "using",
        "very",
        "want",
        "well",
        "were",
        "what",
        "when",
        "where",
        "which",
        "while",
        "will",
        "with",
        "without",
        "would",
        "write",
        "your",
        "yours",
    ]
)


@dataclass(frozen=True, slots=True)
class Topics:
    """`term_V`: hashes, ascending; `names`: the words of each topic, most telling first."""

    term_V: U64
    weight_V: F64
    centroid_VK: F32
    names: list[list[str]]

    def of(self, words: Words) -> tuple[I64, F64]:
        """The topic of each text, `OUTSIDE` where none is near, and the cosine to it."""
        return _assign(_entries(words, self.term_V, self.weight_V), self.centroid_VK, len(words.texts))


def fit_topics(words: Words) -> Topics:
    """Topics of a set: about the square root of half its size, at most 40."""
    count = len(words.texts)
    if count > FIT:
        keep_T = (words.text_T * FIT // count) != ((words.text_T - 1) * FIT // count)
        text_T = words.text_T[keep_T] * FIT // count
        hash_T, numeric_T = words.hash_T[keep_T], words.numeric_T[keep_T]
        count = FIT
    else:
        text_T, hash_T, numeric_T = words.text_T, words.hash_T, words.numeric_T
    pairs = pl.DataFrame({"term": hash_T[~numeric_T], "text": text_T[~numeric_T]}).unique()
    counted = pairs.group_by("term").len("texts").sort("term")
    known, frequency = counted["term"].to_numpy(), counted["texts"].to_numpy().astype(np.int64)
    # Function words: in every tenth text, of small sets in every third.
    limit = count * (0.1 if count >= 200 else 0.34)
    usable = np.flatnonzero((frequency >= 2) & (frequency <= max(limit, 2)))
    usable = np.sort(usable[np.argsort(-frequency[usable], kind="stable")[:_MOST_TERMS]])
    spelt = words.names(known[usable])
    telling = [place for place, word in enumerate(spelt) if _tells(word)]
    usable, spelt = usable[telling], [spelt[place] for place in telling]
    term_V, weight_V = known[usable], np.log((1 + count) / frequency[usable])
    sample = Words([""] * count, hash_T, text_T, numeric_T)
    entries = _entries(sample, term_V, weight_V)
    centroid_VK = _k_means(entries, term_V.size, count, _topics_of(count))
    top = np.argsort(-centroid_VK, axis=0, kind="stable")[:_NAME_WORDS].T
    names = [[spelt[v] for v in row if centroid_VK[v, k] > 0] for k, row in enumerate(top.tolist())]
    return Topics(term_V, weight_V, centroid_VK, names)


@dataclass(frozen=True, slots=True)
class _Entries:
    text_E: I64
    term_E: I64
    value_E: F32


def _tells(word: str) -> bool:
    return (len(word) > 3 or not word.isascii()) and word not in _FUNCTION_WORDS


def _topics_of(count: int) -> int:
    return int(min(max(np.sqrt(count / 2), 1), _MOST_TOPICS))


def _entries(words: Words, term_V: U64, weight_V: F64) -> _Entries:
    """Unit vectors of the texts over the terms."""
    if term_V.size == 0 or words.hash_T.size == 0:
        none = np.empty(0, np.int64)
        return _Entries(none, none, np.empty(0, np.float32))
    place_T = np.minimum(np.searchsorted(term_V, words.hash_T), term_V.size - 1)
    known_T = term_V[place_T] == words.hash_T
    key, times = np.unique(words.text_T[known_T] * term_V.size + place_T[known_T], return_counts=True)
    text_E, term_E = np.divmod(key, term_V.size)
    value_E = (1 + np.log(times)) * weight_V[term_E]
    norm_N = np.sqrt(np.bincount(text_E, value_E**2, minlength=len(words.texts)))
    return _Entries(text_E, term_E, (value_E / norm_N[text_E]).astype(np.float32))


def _assign(entries: _Entries, centroid_VK: F32, count: int) -> tuple[I64, F64]:
    topic_N, cosine_N = np.full(count, OUTSIDE), np.zeros(count)
    texts, first = np.unique(entries.text_E, return_index=True)
    ends = np.append(first[1:], entries.text_E.size)
    start = 0
    while start < texts.size:
        stop = max(start + 1, int(np.searchsorted(ends, first[start] + _CHUNK)))
        piece = slice(int(first[start]), int(ends[stop - 1]))
        product = centroid_VK[entries.term_E[piece]] * entries.value_E[piece, None]
        score = np.add.reduceat(product, first[start:stop] - first[start])
        topic_N[texts[start:stop]] = score.argmax(1)
        cosine_N[texts[start:stop]] = score.max(1)
        start = stop
    topic_N[cosine_N < _NEAR] = OUTSIDE
    return topic_N, cosine_N


def _k_means(entries: _Entries, terms: int, count: int, topics: int) -> F32:
    """Centroids; begun as k-means++ does (Arthur & Vassilvitskii 2007), with draws of a fixed seed."""
    draw = np.random.Generator(np.random.PCG64(0))
    start_N1 = np.searchsorted(entries.text_E, np.arange(count + 1))
    live = np.flatnonzero(np.diff(start_N1))
    centroid_VK = np.zeros((terms, topics), np.float32)
    nearest_N = np.zeros(count)
    for k in range(topics if live.size else 0):
        distance = np.clip(1 - nearest_N[live], 1e-9, None)
        row = live[np.searchsorted(np.cumsum(distance), draw.random() * distance.sum())]
        own = slice(int(start_N1[row]), int(start_N1[row + 1]))
        centroid_VK[entries.term_E[own], k] = entries.value_E[own]
        cosine_N = np.bincount(
            entries.text_E, entries.value_E * centroid_VK[entries.term_E, k], minlength=count
        )
        nearest_N = np.maximum(nearest_N, cosine_N)
    for _ in range(_ROUNDS):
        topic_N, _ = _assign(entries, centroid_VK, count)
        inside_E = topic_N[entries.text_E] != OUTSIDE
        place_E = entries.term_E[inside_E] * topics + topic_N[entries.text_E[inside_E]]
        total = np.bincount(place_E, entries.value_E[inside_E], minlength=terms * topics)
        total = total.reshape(terms, topics)
        norm_K = np.sqrt((total**2).sum(0))
        fresh = np.where(norm_K > 0, total / np.maximum(norm_K, 1e-12), centroid_VK).astype(np.float32)
        if np.array_equal(fresh, centroid_VK):
            break
        centroid_VK = fresh
    return centroid_VK
