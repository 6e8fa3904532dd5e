"""What real requests ask for and a set does not have: topics, wording, lengths, languages; and rows to make up for it.

In: the set's prompts and the requests. Out: `Coverage`: numbers, and the places of the requests that are worth a seed.
Guarantees: topics are those of the requests, so that nothing of theirs is hidden by ours; a topic is called lacking
only where intervals bear it; requests are picked in a fixed order.
Rejected: nearest neighbours by embedding (a model to download), and one number for all of it (nobody could act on it).

A request is covered by the share of its word pairs and words that our prompts have too, rare ones counting more.
"""

# ruff: noqa: N803, N806  # arrays carry their axes in their names
from collections.abc import Sequence

import numpy as np
import polars as pl

from synthgen.dataclasses import dataclass
from synthgen.insight.diversity import lengths
from synthgen.insight.languages import languages, spoken
from synthgen.insight.topics import OUTSIDE, fit_topics
from synthgen.insight.words import Texts, Words, count_words, ngram_hashes, wilson
from synthgen.refine.shingles import F64, I64
from synthgen.types import JSONValue

__all__ = ["Coverage", "Seed", "cover"]

# A topic lacks rows where its share is below this part of the requests' share, and the two intervals do not meet.
LACKING = 0.5
# A request is a rare case where less than this of it is covered.
_COVERED = 0.25


@dataclass(frozen=True, slots=True)
class Seed:
    """A request to write rows for. `place`: which one; `why`: `lacking_topic` or `rare_case`; `covered`: 0..1."""

    place: int
    why: str
    topic: str
    covered: float


@dataclass(frozen=True, slots=True)
class Coverage:
    """`report` is plain JSON; `seeds` are in the order in which they help most."""

    report: dict[str, JSONValue]
    seeds: list[Seed]


def cover(
    ours: Texts, requests: Sequence[str], *, seeds: int = 100, our_language: Sequence[str] | None = None
) -> Coverage:
    """Compare the prompts of a set with real requests; `our_language` of each, where it is known already."""
    our_words, their_words = count_words(ours), count_words(requests)
    topics = fit_topics(their_words)
    names = [", ".join(words) for words in topics.names]
    their_topic_N, cosine_N = topics.of(their_words)
    our_topic_N, _ = topics.of(our_words)
    table = _topics(their_topic_N, our_topic_N, names)
    covered_N = _covered(our_words, their_words)
    lacking = [k for k, row in enumerate(table) if row["lacking"]]
    picked = _seeds(lacking, names, their_topic_N, cosine_N, covered_N, seeds)
    our_language = spoken(our_words.texts) if our_language is None else our_language
    # Of requests that share all their words no topic is made; they are all outside.
    asked = [row for row in table if row["requests"]]
    ordered: list[JSONValue] = [
        *sorted(asked, key=lambda row: (-_number(row["requests"]), str(row["topic"])))
    ]
    report: dict[str, JSONValue] = {
        "requests": len(requests),
        "rows": len(our_words.texts),
        "ngrams_seen": {str(n): _seen(our_words, their_words, n) for n in (1, 2, 3)},
        "covered": _quantiles(covered_N),
        "topics": ordered,
        "in_no_topic": {
            "requests": int((their_topic_N == OUTSIDE).sum()),
            "rows": int((our_topic_N == OUTSIDE).sum()),
        },
        "lengths": {"requests": lengths(their_words.sizes), "rows": lengths(our_words.sizes)},
        "languages": _languages(spoken(requests), our_language),
        "rare_cases": int((covered_N < _COVERED).sum()),
    }
    return Coverage(report, picked)


def _topics(theirs_N: I64, ours_N: I64, names: Sequence[str]) -> list[dict[str, JSONValue]]:
    out: list[dict[str, JSONValue]] = []
    for k, name in enumerate(names):  # one without a word has no request either
        theirs, ours = int((theirs_N == k).sum()), int((ours_N == k).sum())
        low, _ = wilson(theirs, theirs_N.size)
        _, high = wilson(ours, ours_N.size)
        part = ours * theirs_N.size / max(theirs * ours_N.size, 1)
        out.append(
            {
                "topic": name,
                "requests": theirs,
                "rows": ours,
                "requests_share": round(theirs / max(theirs_N.size, 1), 4),
                "rows_share": round(ours / max(ours_N.size, 1), 4),
                "lacking": theirs > 0 and high < low and part < LACKING,
            }
        )
    return out


def _grams(words: Words) -> pl.DataFrame:
    """Words and word pairs of each text, each once."""
    parts = [ngram_hashes(words, n) for n in (1, 2)]
    frames = [
        pl.DataFrame({"gram": hash_G ^ np.uint64(n), "text": text_G})
        for n, (hash_G, text_G) in enumerate(parts)
    ]
    return pl.concat(frames).unique()


def _covered(ours: Words, theirs: Words) -> F64:
    """How much of each request our prompts have, 0..1; a request without words is covered."""
    grams = _grams(theirs)
    known = _grams(ours).select("gram").unique().with_columns(known=pl.lit(1.0))
    weighed = grams.with_columns(weight=(len(theirs.texts) / pl.len().over("gram")).log() + 1)
    share = (
        weighed.join(known, on="gram", how="left")
        .group_by("text")
        .agg(share=(pl.col("weight") * pl.col("known").fill_null(0.0)).sum() / pl.col("weight").sum())
    )
    covered_N = np.ones(len(theirs.texts))
    covered_N[share["text"].to_numpy()] = share["share"].to_numpy().round(6)
    return covered_N


def _seen(ours: Words, theirs: Words, n: int) -> float:
    hash_G = np.unique(ngram_hashes(theirs, n)[0])
    seen = np.isin(hash_G, ngram_hashes(ours, n)[0]).sum()
    return round(int(seen) / hash_G.size, 4) if hash_G.size else 0.0


def _quantiles(covered_N: F64) -> dict[str, JSONValue]:
    if covered_N.size == 0:
        return {}
    return {f"p{p}": round(float(np.percentile(covered_N, p)), 3) for p in (5, 25, 50, 75, 95)}


def _languages(theirs: Sequence[str], ours: Sequence[str]) -> list[JSONValue]:
    their_count, our_count = languages(theirs), languages(ours)
    return [
        {"language": name, "requests": their_count.get(name, 0), "rows": our_count.get(name, 0)}
        for name in dict.fromkeys([*their_count, *our_count])
    ]


def _seeds(
    lacking: Sequence[int], names: Sequence[str], topic_N: I64, cosine_N: F64, covered_N: F64, most: int
) -> list[Seed]:
    """Half for lacking topics, in turn and the most typical first; the rest for what is least covered anywhere."""
    queues = []
    for k in lacking:
        inside = np.flatnonzero(topic_N == k)
        queues.append(inside[np.lexsort((inside, -cosine_N[inside].round(6)))].tolist())
    picked: dict[int, Seed] = {}
    while any(queues) and len(picked) < (most + 1) // 2:
        for k, queue in zip(lacking, queues, strict=True):
            if queue and len(picked) < (most + 1) // 2:
                place = queue.pop(0)
                picked[place] = Seed(place, "lacking_topic", names[k], float(covered_N[place]))
    for place in np.lexsort((np.arange(covered_N.size), covered_N)).tolist():
        if len(picked) >= most or covered_N[place] >= _COVERED:
            break
        topic = "" if topic_N[place] == OUTSIDE else names[int(topic_N[place])]
        picked.setdefault(place, Seed(place, "rare_case", topic, float(covered_N[place])))
    return list(picked.values())


def _number(value: JSONValue) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
