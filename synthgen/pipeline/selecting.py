"""`refine.select` and `filter --select N`: of the accepted rows, the N that are wanted; the others are rejects.

In: the accepted rows of a `Staging`, all of them there. Out: those left over are withdrawn into `rejected/`, with the
stage `select`, the reason `not_selected` and, by score, the score. Guarantee: planned stays the sum of the outcomes; the choice
depends on the set of rows alone: of equal ones the smallest id is chosen, in whatever order they come.
Rejected: selecting while rows come in (the best N are known when all are there).
"""

import operator
from functools import reduce

import numpy as np
import polars as pl
from pydantic import ValidationError

from synthgen.assets import suggest
from synthgen.dataset import Staging
from synthgen.errors import UsageError
from synthgen.pipeline.verdicts import SELECT, Counts
from synthgen.pipeline.withdrawing import withdraw
from synthgen.recipe.model import SelectConfig
from synthgen.refine.compared import compared_text, stored_score
from synthgen.refine.select import choose, in_order, sample_features

__all__ = ["parse_select", "select_rows"]

REASON = "not_selected"


def parse_select(n: int, by: str) -> SelectConfig:
    """What `--select` and `--by` say.

    Raises:
        UsageError: it is none of them, or `n` is below 1.
    """
    if n < 1:
        raise UsageError(f"--select {n}: must be 1 or more")
    try:
        return SelectConfig(n=n, by=by)
    except ValidationError as error:
        raise UsageError(
            f"--by {by}: write diversity, score:NAME or stratify:COLUMN; score:A*B is the product of two"
        ) from error


def select_rows(staging: Staging, select: SelectConfig, counts: Counts) -> None:
    """Withdraw what is not selected, and count it as rejected.

    Raises:
        UsageError: no row has the score, or there is no such column.
    """
    ids: list[pl.Series] = []
    keys: list[pl.Series] = []
    hashes, sizes = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
    for frame in staging.accepted():
        ids.append(frame["id"])
        keys.append(_key(frame, select))
        if select.kind != "score":
            text = frame.select(compared_text(frame.schema, ("messages",))).to_series()
            found, size = sample_features(text.to_list())
            hashes.append(found)
            sizes.append(size)
    if not ids:
        return
    rows = pl.DataFrame({"id": pl.concat(ids), "key": pl.concat(keys)})
    if select.kind == "score":
        if rows["key"].is_null().all():
            which = "this score" if len(select.scores) == 1 else "all of these scores"
            raise UsageError(f"select by {select.by}: no accepted row has {which}")
        best = rows.with_row_index("place").sort("key", "id", descending=[True, False], nulls_last=True)
        kept = best["place"].head(select.n).to_numpy()
    else:
        group = rows["key"].fill_null("").rank("dense").cast(pl.Int64).to_numpy() - 1
        order = rows["id"].arg_sort().to_numpy()
        found, size = in_order(np.concatenate(hashes), np.concatenate(sizes), order)
        chosen_of_order, _ = choose(found, size, select.n, group[order])
        kept = order[chosen_of_order]
    chosen = np.zeros(rows.height, np.bool_)
    chosen[kept] = True
    left = rows.filter(pl.Series(~chosen))
    withdraw(
        staging,
        counts,
        left.select(
            "id",
            stage=pl.lit(SELECT),
            reason=pl.lit(REASON),
            score=pl.col("key").cast(pl.Float64) if select.kind == "score" else pl.lit(None, pl.Float64),
            threshold=pl.lit(None, pl.Float64),
            detail=pl.lit(None, pl.String),
        ),
    )


def _key(frame: pl.DataFrame, select: SelectConfig) -> pl.Series:
    """The score (of several their product, null where one is missing), or the group, of each row."""
    if select.kind == "diversity":
        return pl.repeat("", frame.height, dtype=pl.String, eager=True)
    if select.kind == "stratify":
        dtype = frame.schema.get(select.name)
        if dtype is None or dtype.is_nested():
            plain = [name for name, kind in frame.schema.items() if not kind.is_nested()]
            raise UsageError(
                f"select by {select.by}: no such column{suggest(select.name, plain)}; there are: {', '.join(plain)}"
            )
        return frame[select.name].cast(pl.String)
    return frame.select(reduce(operator.mul, map(stored_score, select.scores))).to_series()
