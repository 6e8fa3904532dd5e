"""`filter --select N`: of the accepted rows, the N that are wanted; the others are rejects.

In: the accepted rows of a `Staging`, all of them there. Out: those left over are withdrawn into `rejected/`, with the
stage `select`, the reason `not_selected` and, by score, the score. Guarantee: planned stays the sum of the outcomes; the choice
depends on rows and order alone.
Rejected: selecting while rows come in (the best N are known when all are there).
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

from synthgen.assets import suggest
from synthgen.dataset import Staging
from synthgen.errors import UsageError
from synthgen.pipeline.verdicts import Counts
from synthgen.pipeline.withdrawing import withdraw
from synthgen.refine.compared import compared_text
from synthgen.refine.select import choose, sample_features

__all__ = ["Select", "parse_select", "select_rows"]

STAGE, REASON = "select", "not_selected"


@dataclass(frozen=True, slots=True)
class Select:
    """`by`: diversity, score or stratify. `name`: the score, or the column of the record whose values share evenly."""

    n: int
    by: str
    name: str = ""


def parse_select(n: int, by: str) -> Select:
    """`diversity`, `score:NAME` or `stratify:COLUMN`.

    Raises:
        UsageError: it is none of them, or `n` is below 1.
    """
    kind, _, name = by.partition(":")
    if n < 1:
        raise UsageError(f"--select {n}: must be 1 or more")
    if kind not in ("diversity", "score", "stratify") or (kind == "diversity") == bool(name):
        raise UsageError(f"--by {by}: write diversity, score:NAME or stratify:COLUMN")
    return Select(n, kind, name)


def select_rows(staging: Staging, select: Select, counts: Counts) -> None:
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
        if select.by != "score":
            text = frame.select(compared_text(frame.schema, ("messages",))).to_series()
            found, size = sample_features(text.to_list())
            hashes.append(found)
            sizes.append(size)
    if not ids:
        return
    rows = pl.DataFrame({"id": pl.concat(ids), "key": pl.concat(keys)})
    if select.by == "score":
        if rows["key"].is_null().all():
            raise UsageError(f"--by score:{select.name}: no accepted row has this score")
        place = rows.with_row_index("place").sort("key", "place", descending=[True, False], nulls_last=True)[
            "place"
        ]
        kept = place.head(select.n).to_numpy()
    else:
        group = rows["key"].fill_null("").rank("dense").cast(pl.Int64).to_numpy() - 1
        kept, _ = choose(np.concatenate(hashes), np.concatenate(sizes), select.n, group)
    chosen = np.zeros(rows.height, np.bool_)
    chosen[kept] = True
    left = rows.filter(pl.Series(~chosen))
    withdraw(
        staging,
        counts,
        left.select(
            "id",
            stage=pl.lit(STAGE),
            reason=pl.lit(REASON),
            score=pl.col("key").cast(pl.Float64) if select.by == "score" else pl.lit(None, pl.Float64),
            threshold=pl.lit(None, pl.Float64),
            detail=pl.lit(None, pl.String),
        ),
    )


def _key(frame: pl.DataFrame, select: Select) -> pl.Series:
    """The score, or the group, of each row."""
    if select.by == "diversity":
        return pl.repeat("", frame.height, dtype=pl.String, eager=True)
    if select.by == "stratify":
        dtype = frame.schema.get(select.name)
        if dtype is None or dtype.is_nested():
            plain = [name for name, kind in frame.schema.items() if not kind.is_nested()]
            raise UsageError(
                f"--by stratify:{select.name}: no such column{suggest(select.name, plain)}; there are: {', '.join(plain)}"
            )
        return frame[select.name].cast(pl.String)
    named = pl.element().struct
    score = (
        pl.col("scores")
        .list.eval(named.field("score").filter(named.field("name") == select.name))
        .list.first()
    )
    return frame.select(score).to_series()
