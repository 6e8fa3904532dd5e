"""Running a filter chain over a frame.

In: a `Chain`, a frame of the view. Out: one line of verdict per row. Guarantees: filters run in the order of the chain,
and each sees only the rows that are still alive; the same chain and frame give the same verdicts.
Rejected: scoring all rows with all filters and deciding afterwards (the later filters are the expensive ones, and
most rejected rows fail a cheap one).
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

from synthgen.refine.chain import Chain, ChainStep
from synthgen.refine.filters.text import SHARED
from synthgen.refine.verdict import VIEW, Verdicts, view_of

__all__ = ["RESULT", "run_chain"]

RESULT = pl.Schema(
    {
        "id": pl.String(),
        "stage": pl.String(),  # filter:<step id> of the first step that rejects, null where the row is kept
        "reason": pl.String(),
        "score": pl.Float64(),  # that step's score; 1 where it states a fact and measures nothing
        "threshold": pl.Float64(),  # the bound the score broke; 0 for a fact
        "detail": pl.String(),
        "scores": pl.List(
            pl.Struct({"name": pl.String(), "score": pl.Float64})
        ),  # of every step that saw the row
        "flags": pl.List(pl.String),  # <step id>:<reason> of the steps that only flag
    }
)
_REASONS = ("stage", "reason", "score", "threshold", "detail")
_REJECTED = pl.Schema({"row": pl.UInt32(), **{name: RESULT[name] for name in _REASONS}})
_SCORED = pl.Schema({"row": pl.UInt32(), "name": pl.String(), "score": pl.Float64()})
_FLAGGED = pl.Schema({"row": pl.UInt32(), "flags": pl.String()})


def run_chain(chain: Chain, frame: pl.DataFrame) -> pl.DataFrame:
    """The `RESULT` of every row, in the frame's order: the first rejecting step, all scores, all flags.

    The frame has the columns of the view, or some of them: what is not there is null.

    Raises:
        UsageError: a filter cannot do its work here, or a user's function failed on the whole frame.
    """
    alive = view_of(frame)
    rows = pl.Series(np.arange(frame.height, dtype=np.uint32))  # of the frame, those that are alive
    recalls = [place for place, step in enumerate(chain.steps) if step.filter == "score"]
    rejected, scores, flags = ([pl.DataFrame(schema=schema)] for schema in (_REJECTED, _SCORED, _FLAGGED))
    for place, step in enumerate(chain.steps):
        missing = [name for name in step.reads if name not in alive.columns]
        if missing:
            alive = alive.with_columns(SHARED[name](alive).alias(name) for name in missing)
        said = _Said.of(step.run(alive, step.params), rows)
        if any(later > place for later in recalls):
            alive = _remember(step, alive, said.score)
        if said.score.null_count() < len(said.score):
            scores.append(said.scores(step.id))
        # Most steps reject nobody: whatever is asked of a frame costs more than looking.
        if said.reason.null_count() == len(said.reason):
            continue
        if step.on_reject == "flag":
            flags.append(said.flags(step.id))
            continue
        rejected.append(said.rejected(step.id))
        kept = said.reason.is_null()
        alive, rows = alive.filter(kept), rows.filter(kept)
    return _assemble(frame, pl.concat(rejected), pl.concat(scores), pl.concat(flags))


@dataclass(frozen=True, slots=True)
class _Said:
    """What one step said of the rows it saw."""

    rows: pl.Series
    reason: pl.Series
    score: pl.Series
    threshold: pl.Series
    detail: pl.Series

    @staticmethod
    def of(verdicts: Verdicts, rows: pl.Series) -> "_Said":
        def column(series: pl.Series | None, dtype: pl.DataType) -> pl.Series:
            if series is None:
                return pl.Series([None], dtype=dtype).new_from_index(0, len(rows))
            return series if series.dtype == dtype else series.cast(dtype)

        return _Said(
            rows,
            column(verdicts.reason, pl.String()),
            column(verdicts.score, pl.Float64()),
            column(verdicts.threshold, pl.Float64()),
            column(verdicts.detail, pl.String()),
        )

    def scores(self, step: str) -> pl.DataFrame:
        there = self.score.is_not_null()
        score = self.score.filter(there)
        name = pl.Series([step], dtype=pl.String).new_from_index(0, len(score))
        return pl.DataFrame({"row": self.rows.filter(there), "name": name, "score": score})

    def flags(self, step: str) -> pl.DataFrame:
        hit = self.reason.is_not_null()
        reasons = self.reason.filter(hit)
        return pl.DataFrame({"row": self.rows.filter(hit), "flags": f"{step}:" + reasons})

    def rejected(self, step: str) -> pl.DataFrame:
        hit = self.reason.is_not_null()
        columns = {"row": self.rows, "reason": self.reason, "score": self.score, "threshold": self.threshold,
                   "detail": self.detail}  # fmt: skip
        # A fact has no measure of its own: found once where nothing of the kind is allowed.
        fact = pl.col("score").is_null()
        return (
            pl.DataFrame({name: column.filter(hit) for name, column in columns.items()})
            .select(
                "row",
                "reason",
                stage=pl.lit(f"filter:{step}"),
                score=pl.when(fact).then(1.0).otherwise("score"),
                threshold=pl.when(fact).then(0.0).otherwise("threshold"),
                detail="detail",
            )
            .select(_REJECTED.names())
        )


def _remember(step: ChainStep, alive: pl.DataFrame, score: pl.Series) -> pl.DataFrame:
    """The rows with this step's score among their scores, for a later step that cuts by it."""
    new = pl.struct(name=pl.lit(step.id), score=score)
    listed = pl.when(score.is_not_null()).then(pl.concat_list(new)).otherwise(pl.lit([], VIEW["scores"]))
    none = pl.lit([], VIEW["scores"])
    return alive.with_columns(scores=pl.concat_list(pl.col("scores").fill_null(none), listed))


def _assemble(
    frame: pl.DataFrame, rejected: pl.DataFrame, scores: pl.DataFrame, flags: pl.DataFrame
) -> pl.DataFrame:
    # Rows of later steps come later, so lists are in the chain's order.
    listed = scores.lazy().select("row", scores=pl.struct("name", "score"))
    parts = (
        (rejected, rejected.lazy(), _REASONS),
        (scores, listed.group_by("row", maintain_order=True).agg(pl.all()), ("scores",)),
        (flags, flags.lazy().group_by("row", maintain_order=True).agg(pl.all()), ("flags",)),
    )
    out = frame.lazy().select(pl.col("id").cast(pl.String)).with_row_index("row")
    for found, part, names in parts:
        if found.height:
            out = out.join(part, on="row", how="left", maintain_order="left")
        else:
            out = out.with_columns(pl.lit(None, RESULT[name]).alias(name) for name in names)
    empty = [pl.col(name).fill_null(pl.lit([], RESULT[name])) for name in ("scores", "flags")]
    return out.with_columns(empty).select(RESULT.names()).collect().cast(RESULT)
