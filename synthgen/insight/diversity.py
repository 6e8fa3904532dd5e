"""How varied a set of texts is, without embeddings.

In: texts. Out: plain numbers, with the size they were measured at. Guarantees: the same rows give the same numbers;
nothing is judged: there is no threshold here.
Rejected: distinct-n over all of a set (it falls with size, so that no two sets could be compared; `distinct` is taken
at a fixed number of words).

distinct      different n-grams over n-grams, in `words` words (Li et al. 2016, "A Diversity-Promoting Objective Function")
repeated      share of 4-grams that stand in another row too (Salkar et al. 2022, "Self-Repetition in Abstractive Summarization")
compression   size over compressed size, zlib (Shaib et al. 2024, "Standardizing the Measurement of Text Diversity")
clusters      near duplicates at a Jaccard of 0.5 over 3-word runs, looser than any filter
openings      the first three words of a row: how many different ones, how much the ten most common hold
"""

# ruff: noqa: N803, N806  # arrays carry their axes in their names
import zlib
from collections.abc import Sequence

import numpy as np
import polars as pl

from synthgen.insight.words import Texts, Words, count_words, ngram_hashes
from synthgen.refine.minhash_rule import MinHashRule
from synthgen.refine.near import near_duplicates
from synthgen.refine.shingles import I64
from synthgen.types import JSONValue

__all__ = ["diversity", "lengths"]

WORDS = 50_000
_CLUSTER_ROWS = 5_000
_COMPRESSED_CHARS = 4_000_000
_OPENING_WORDS = 3
_LOOSE = MinHashRule(threshold=0.5, shingle="word:3", num_perm=64)


def diversity(given: Texts) -> dict[str, JSONValue]:
    """The measures of the module doc."""
    words = count_words(given)
    texts = words.texts
    head = _head(words)
    out: dict[str, JSONValue] = {"rows": len(texts), "words": int(head.hash_T.size)}
    for n in (1, 2, 3):
        hash_G, _ = ngram_hashes(head, n)
        out[f"distinct_{n}"] = _share(np.unique(hash_G).size, hash_G.size)
    hash_G, text_G = ngram_hashes(words, 4)
    rows = pl.DataFrame({"gram": hash_G, "text": text_G}).unique().group_by("gram").len("rows")["rows"]
    out["repeated_4grams"] = _share(int(rows.filter(rows > 1).sum()), int(rows.sum()))
    raw = "\n".join(texts)[:_COMPRESSED_CHARS].encode("utf-8", "replace")
    out["compression"] = round(len(raw) / max(len(zlib.compress(raw, 6)), 1), 3)
    out["lengths"] = lengths(words.sizes)
    out["openings"] = _openings(texts)
    out["clusters"] = _clusters(texts)
    return out


def lengths(size_N: I64) -> dict[str, JSONValue]:
    """Quantiles of words a row."""
    if size_N.size == 0:
        return {}
    return {f"p{p}": int(np.percentile(size_N, p, method="lower")) for p in (5, 25, 50, 75, 95)}


def _head(words: Words) -> Words:
    """`WORDS` words out of whole texts that are spread over the set."""
    step = max(words.hash_T.size // WORDS, 1)
    keep = np.flatnonzero(words.text_T % step == 0)[:WORDS]
    return Words(words.texts, words.hash_T[keep], words.text_T[keep], words.numeric_T[keep])


def _openings(texts: Sequence[str]) -> dict[str, JSONValue]:
    rows = pl.Series("text", texts, pl.String)
    opening = rows.str.to_lowercase().str.extract_all(r"[\p{L}\p{N}_']+").list.head(_OPENING_WORDS)
    counted = opening.list.join(" ").value_counts(sort=False).filter(pl.col("text") != "")
    counted = counted.sort(["count", "text"], descending=[True, False])
    total = int(counted["count"].sum())
    share = counted["count"].to_numpy() / max(total, 1)
    common: list[JSONValue] = [
        {"words": text, "rows": count, "share": _share(count, total)}
        for text, count in counted.head(10).iter_rows()
    ]
    return {
        "different": counted.height,
        "effective": round(float(np.exp(-(share * np.log(share)).sum())), 1) if total else 0,
        "top10_share": round(float(share[:10].sum()), 4),
        "common": common,
    }


def _clusters(texts: Sequence[str]) -> dict[str, JSONValue]:
    step = max(-(-len(texts) // _CLUSTER_ROWS), 1)
    rows = pl.Series(texts[::step], dtype=pl.String)
    found = near_duplicates(rows, _LOOSE)
    size = np.sort(np.unique(found.cluster_N, return_counts=True)[1])[::-1]
    several = size[size > 1]
    return {
        "rows": len(rows),
        "jaccard": _LOOSE.threshold,
        "clusters": int(several.size),
        "rows_in_clusters": int(several.sum()),
        "largest": [int(n) for n in several[:10]],
    }


def _share(part: int, of: int) -> float:
    return round(part / of, 4) if of else 0.0
