"""Which `n` rows of many: the most varied, evenly over groups if wanted.

In: texts, a piece at a time. Out: places in the order chosen, and how new each was. Guarantees: integers alone decide,
so that the same rows give the same choice on every machine and however they are cut into pieces; of equal rows the
first is chosen. Memory: `SAMPLE` hashes a row. Cost: lazy greedy, O(rows log rows) and one look at `SAMPLE` features
each time a row comes to the top; at worst O(rows x n).
Rejected: farthest-first traversal (outliers first), and embeddings (a model to download).

A row is the sample of its words and word pairs with the smallest hashes, weighed by how rare they are; all rows weigh
the same, so that long ones are not preferred. What k chosen rows have already counts 1/(k + 1): a row's gain only
falls, which is what lazy evaluation needs (Minoux 1978, "Accelerated greedy algorithms").

Axes: N rows, F features of all rows.
"""

# ruff: noqa: N803, N806  # arrays carry their axes in their names
import heapq
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from synthgen.refine.shingles import I64, U64, ngrams, tokenise

__all__ = ["SAMPLE", "choose", "in_order", "quotas", "sample_features"]

SAMPLE = 96
_WHOLE = 1 << 20  # the weight of a row
_PIECE = 512
_COMMON_SHARE, _COMMON_ROWS = (
    20,
    10,
)  # a feature of more than a 20th of the rows, and of 10, counts least: without it, copies
# of a template would look like what little is their own


def sample_features(texts: Sequence[str]) -> tuple[U64, I64]:
    """The features of each text, smallest hashes first, and how many each has."""
    parts: list[U64] = [np.empty(0, np.uint64)]
    sizes: list[I64] = [np.empty(0, np.int64)]
    for start in range(0, len(texts), _PIECE):
        piece = texts[start : start + _PIECE]
        tokens = tokenise(piece)
        pairs = ngrams(tokens, 2)
        found = pl.DataFrame(
            {
                "text": np.concatenate([tokens.text_T, pairs.text_G]),
                "hash": np.concatenate([tokens.hash_T, pairs.hash_G]),
            }
        )
        found = found.unique().sort("text", "hash").group_by("text", maintain_order=True).head(SAMPLE)
        parts.append(found["hash"].to_numpy())
        sizes.append(np.bincount(found["text"].to_numpy(), minlength=len(piece)))
    return np.concatenate(parts), np.concatenate(sizes)


def in_order(hash_F: U64, size_N: I64, order_N: npt.NDArray[np.integer]) -> tuple[U64, I64]:
    """The same features with the rows in another order: `order_N` are the places to take them from."""
    start_N = np.cumsum(size_N) - size_N
    taken_N = size_N[order_N]
    shift_N = start_N[order_N] - (np.cumsum(taken_N) - taken_N)
    return hash_F[np.arange(hash_F.size) + np.repeat(shift_N, taken_N)], taken_N


def choose(hash_F: U64, size_N: I64, n: int, group_N: I64 | None = None) -> tuple[I64, I64]:
    """The places of at most `n` rows in the order chosen, and their gain then, 0.._WHOLE.

    With `group_N` (numbers from 0) no group gets more than its share: see `quotas`.
    """
    count = size_N.size
    group_N = np.zeros(count, np.int64) if group_N is None else group_N
    left = quotas(np.bincount(group_N, minlength=1), n)
    start_N1 = np.concatenate([[0], np.cumsum(size_N)])
    row_F = np.repeat(np.arange(count), size_N)
    _, feature_F, rows = np.unique(hash_F, return_inverse=True, return_counts=True)
    # Halvings of the set down to the rows that have it: whole numbers, unlike a logarithm.
    rarity = np.frexp(count // np.maximum(rows, 2))[1].astype(np.int64) + 1
    rarity[rows > max(count // _COMMON_SHARE, _COMMON_ROWS)] = 1
    weight_F = rarity[feature_F]
    total_N = np.bincount(row_F, weight_F, minlength=count).astype(np.int64)
    mass_F = weight_F * _WHOLE // np.maximum(total_N, 1)[row_F]
    chosen_of = np.ones(rows.size, np.int64)  # chosen rows that have a feature, and one
    first = np.bincount(row_F, mass_F, minlength=count).astype(np.int64)
    heap = [(-gain, row) for row, gain in enumerate(first.tolist())]
    heapq.heapify(heap)
    places: list[int] = []
    gains: list[int] = []
    while heap and len(places) < n:
        _, row = heapq.heappop(heap)
        if left[group_N[row]] == 0:
            continue
        own = slice(int(start_N1[row]), int(start_N1[row + 1]))
        features = feature_F[own]
        gain = int((mass_F[own] // chosen_of[features]).sum())
        if heap and (-gain, row) > heap[0]:
            heapq.heappush(heap, (-gain, row))
            continue
        chosen_of[features] += 1
        left[group_N[row]] -= 1
        places.append(row)
        gains.append(gain)
    return np.array(places, np.int64), np.array(gains, np.int64)


def quotas(size_G: I64, n: int) -> I64:
    """How many of each group make `n`: as even as the groups' sizes allow; what is left over goes to the first ones."""
    quota_G = np.zeros_like(size_G)
    while (missing := min(n, int(size_G.sum())) - int(quota_G.sum())) > 0:
        open_G = np.flatnonzero(quota_G < size_G)
        if missing < open_G.size:
            quota_G[open_G[:missing]] += 1
        else:
            quota_G[open_G] = np.minimum(quota_G[open_G] + missing // open_G.size, size_G[open_G])
    return quota_G
