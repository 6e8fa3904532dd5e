"""How far a judge agrees with people: kappa, AUC, rank correlation, thresholds, each with its interval.

In: arrays of scores and labels. Out: numbers with 95 % intervals; None where a number does not exist (one class, no
variance). Guarantees: the same input gives the same numbers (the bootstrap is seeded); no number is made up for a
case in which it is undefined. All labelled records are taken as independent of one another.
Resampling a table of counts is drawing a multinomial, so a bootstrap of kappa or AUC costs its table, not its records.
Rejected: scipy and scikit-learn as dependencies (the tests compare with hand-computed and published values).
"""

import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Literal, cast

import numpy as np
import numpy.typing as npt

from synthgen.dataclasses import dataclass
from synthgen.refine.shares import Estimate, Z, wilson
from synthgen.types import JSONValue

__all__ = [
    "RESAMPLES",
    "Cut",
    "auc",
    "best_cut",
    "cuts",
    "kappa",
    "needed_for",
    "spearman",
    "within_groups",
]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Weights = Literal["none", "linear", "quadratic"]

RESAMPLES = 2000
_SEED = 7
# So many numbers a resampled table holds at most at once: 80 MB.
_AT_ONCE = 10_000_000


def kappa(ours: npt.ArrayLike, theirs: npt.ArrayLike, *, weights: Weights = "none") -> Estimate | None:
    """Cohen's kappa of two ratings of the same things, with a percentile bootstrap interval.

    With weights, categories are ranked by value and a disagreement counts by its (squared) distance in ranks. None
    where either chance agreement is perfect (both always say the same one thing) or there is nothing.

    Source: Cohen 1960 and 1968 (weighted kappa, Psychological Bulletin 70).
    """
    first, second = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if len(first) == 0:
        return None
    levels = np.unique(np.concatenate([first, second]))
    table = np.zeros((len(levels), len(levels)))
    np.add.at(table, (np.searchsorted(levels, first), np.searchsorted(levels, second)), 1)
    ranks = np.arange(len(levels))
    distance = np.abs(ranks[:, None] - ranks[None, :]).astype(np.float64)
    cost = {"none": (distance > 0).astype(np.float64), "linear": distance, "quadratic": distance**2}[weights]
    return _bootstrapped(table, lambda tables: _kappas(tables, cost), len(first))


def _kappas(tables: Floats, cost: Floats) -> Floats:
    """Kappa of each table of counts `tables_RIJ`."""
    total = tables.sum(axis=(1, 2))
    rows, columns = tables.sum(axis=2), tables.sum(axis=1)
    chance = np.einsum("ri,rj->rij", rows, columns) / total[:, None, None]
    expected = (chance * cost).sum(axis=(1, 2))
    observed = (tables * cost).sum(axis=(1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        return cast(Floats, np.where(expected > 0, 1 - observed / expected, np.nan))


def auc(scores: npt.ArrayLike, good: npt.ArrayLike) -> Estimate | None:
    """Chance that a good one has the higher score of two, ties counting half; None with one class alone.

    Source: Hanley and McNeil 1982 (area under the ROC curve as a Mann-Whitney statistic).
    """
    values, labels = np.asarray(scores, np.float64), np.asarray(good, np.bool_)
    levels = np.unique(values)
    table = np.zeros((len(levels), 2))
    np.add.at(table, (np.searchsorted(levels, values), labels.astype(int)), 1)
    return _bootstrapped(table, _aucs, len(values)) if len(values) else None


def _aucs(tables: Floats) -> Floats:
    bad, good = tables[:, :, 0], tables[:, :, 1]
    below = np.cumsum(bad, axis=1) - bad
    won = (good * (below + bad / 2)).sum(axis=1)
    pairs = bad.sum(axis=1) * good.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return cast(Floats, np.where(pairs > 0, won / pairs, np.nan))


def _bootstrapped(table: Floats, statistic: Callable[[Floats], Floats], n: int) -> Estimate | None:
    """The statistic of a table of counts, with the interval of its resamples; those that have none are left out."""
    value = float(statistic(table[None])[0])
    if math.isnan(value):
        return None
    draw = np.random.default_rng(_SEED)
    shares = table.ravel() / n
    found: list[Floats] = []
    left = RESAMPLES
    while left:
        size = max(1, min(left, _AT_ONCE // table.size))
        counts = draw.multinomial(n, shares, size=size).reshape(size, *table.shape)
        found.append(statistic(counts.astype(np.float64)))
        left -= size
    drawn = np.concatenate(found)
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return Estimate(value, float(low), float(high), n)


def spearman(xs: npt.ArrayLike, ys: npt.ArrayLike) -> Estimate | None:
    """Rank correlation, ties by mean rank; the interval is Fisher's z with the variance of Bonett and Wright 2000.

    None with fewer than four, or where either side never changes.
    """
    first, second = np.asarray(xs, np.float64), np.asarray(ys, np.float64)
    return within_groups(first, second, np.zeros(len(first)))


def within_groups(xs: npt.ArrayLike, ys: npt.ArrayLike, groups: npt.ArrayLike) -> Estimate | None:
    """Rank correlation inside groups, pooled over them by Fisher's z: what is left once the group is known.

    Groups of fewer than four, or without variance, tell nothing and are left out; None if none is left.
    """
    first, second, kinds = np.asarray(xs, np.float64), np.asarray(ys, np.float64), np.asarray(groups)
    weight = weighted = 0.0
    used = 0
    for kind in np.unique(kinds):
        rho = _rho(first[kinds == kind], second[kinds == kind])
        size = int((kinds == kind).sum())
        if rho is None or size < 4:
            continue
        # Near 1 the transform is infinite; a sample of this size cannot tell 1 from that.
        bounded = max(-1 + 1e-9, min(1 - 1e-9, rho))
        information = (size - 3) / (1 + bounded**2 / 2)
        weight, weighted, used = (
            weight + information,
            weighted + information * math.atanh(bounded),
            used + size,
        )
    if weight == 0:
        return None
    middle, width = weighted / weight, Z / math.sqrt(weight)
    return Estimate(math.tanh(middle), math.tanh(middle - width), math.tanh(middle + width), used)


def _rho(xs: Floats, ys: Floats) -> float | None:
    if len(xs) < 2 or np.ptp(xs) == 0 or np.ptp(ys) == 0:
        return None
    return float(np.corrcoef(_ranks(xs), _ranks(ys))[0, 1])


def _ranks(values: Floats) -> Floats:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - (counts - 1) / 2
    return mean_rank[place]


@dataclass(frozen=True, slots=True)
class Cut:
    """What a rule `score >= threshold` does to the labelled records.

    `recall` is of all good ones, also those without a score: they would be rejected too. Each count is a cell of the
    confusion: what was kept and dropped, by what people said.
    """

    threshold: float
    kept_good: int
    kept_bad: int
    dropped_good: int
    dropped_bad: int
    precision: Estimate | None
    recall: Estimate | None

    def as_json(self) -> dict[str, JSONValue]:
        """Plain values."""
        return cast(dict[str, JSONValue], asdict(self))


def cuts(
    scores: npt.ArrayLike, good: npt.ArrayLike, at: npt.ArrayLike, *, unscored_good: int = 0
) -> list[Cut]:
    """The cuts at these thresholds."""
    values, labels = np.asarray(scores, np.float64), np.asarray(good, np.bool_)
    return [_cut(values, labels, float(bound), unscored_good) for bound in np.asarray(at, np.float64)]


def _cut(values: Floats, labels: Bools, threshold: float, unscored_good: int) -> Cut:
    kept = values >= threshold
    kept_good, kept_bad = int((kept & labels).sum()), int((kept & ~labels).sum())
    dropped_good, dropped_bad = int((~kept & labels).sum()), int((~kept & ~labels).sum())
    return Cut(
        threshold,
        kept_good,
        kept_bad,
        dropped_good,
        dropped_bad,
        wilson(kept_good, kept_good + kept_bad),
        wilson(kept_good, kept_good + dropped_good + unscored_good),
    )


def best_cut(
    scores: npt.ArrayLike, good: npt.ArrayLike, precision: float, *, unscored_good: int = 0
) -> Cut | None:
    """The cut that keeps most good ones among those of at least this precision on the labels; None: there is none.

    Of equal ones the stricter. The thresholds are the scores that occur, down to four places: so they can be written.
    A score of minus infinity is never kept.
    """
    values = np.asarray(scores, np.float64)
    written = np.floor(values[np.isfinite(values)] * 1e4 + 1e-6) / 1e4
    found = cuts(values, good, np.unique(written), unscored_good=unscored_good)
    able = [cut for cut in found if cut.precision is not None and cut.precision.value >= precision]
    return max(able, key=lambda cut: (cut.kept_good, cut.threshold), default=None)


def needed_for(precision: float, seen: float) -> int | None:
    """How many kept records it takes to show `precision` with Wilson's interval, at the precision `seen` so far.

    None where no number of them would.
    """
    if seen <= precision:
        return None
    low, high = 1, 1
    while (found := wilson(round(seen * high), high)) is not None and found.low < precision:
        high *= 2
        if high > 1 << 24:
            return None
    while low < high:
        middle = (low + high) // 2
        found = wilson(round(seen * middle), middle)
        if found is not None and found.low >= precision:
            high = middle
        else:
            low = middle + 1
    return low
