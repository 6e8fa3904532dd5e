"""Running a filter chain over a frame.

In: a `Chain`, a frame of the view. Out: one line of verdict per row. Guarantees: filters run in the order of the chain,
and each sees only the rows that are still alive; the same chain and frame give the same verdicts.
Rejected: scoring all rows with all filters and deciding afterwards (the later filters are the expensive ones, and
most rejected rows fail a cheap one).
"""

import polars as pl

from synthgen.refine.chain import Chain, ChainStep
from synthgen.refine.filters.text import SHARED
from synthgen.refine.verdict import VIEW, view_of

__all__ = ["RESULT", "run_chain"]

_SCORE = pl.Struct({"name": pl.String, "score": pl.Float64})
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
_REASONS = ("reason", "score", "threshold", "detail")
_REJECTED = pl.Schema({"row": pl.UInt32(), **{name: RESULT[name] for name in ("stage", *_REASONS)}})


def run_chain(chain: Chain, frame: pl.DataFrame) -> pl.DataFrame:
    """The `RESULT` of every row, in the frame's order: the first rejecting step, all scores, all flags.

    The frame has the columns of the view, or some of them: what is not there is null.

    Raises:
        UsageError: a filter cannot do its work here, or a user's function failed on the whole frame.
    """
    alive = view_of(frame).with_row_index("row")
    recalls = [place for place, step in enumerate(chain.steps) if step.filter == "score"]
    rejected = [pl.DataFrame(schema=_REJECTED)]
    scores = [pl.DataFrame(schema={"row": pl.UInt32, "scores": _SCORE})]
    flags = [pl.DataFrame(schema={"row": pl.UInt32, "flags": pl.String})]
    for place, step in enumerate(chain.steps):
        alive = alive.with_columns(
            SHARED[name](alive).alias(name) for name in step.reads if name not in alive.columns
        )
        judged = _apply(step, alive)
        if any(later > place for later in recalls):
            alive = _remember(step, alive, judged)
        scores.append(
            judged.filter(pl.col("score").is_not_null()).select(
                "row", scores=pl.struct(name=pl.lit(step.id), score="score")
            )
        )
        hit = pl.col("reason").is_not_null()
        if step.on_reject == "flag":
            flags.append(judged.filter(hit).select("row", flags=pl.lit(f"{step.id}:") + pl.col("reason")))
            continue
        # A fact has no measure of its own: found once where nothing of the kind is allowed.
        fact = pl.col("score").is_null()
        why = judged.filter(hit).with_columns(
            score=pl.when(fact).then(1.0).otherwise("score"),
            threshold=pl.when(fact).then(0.0).otherwise("threshold"),
        )
        rejected.append(why.select("row", pl.lit(f"filter:{step.id}").alias("stage"), *_REASONS))
        alive = alive.filter(judged["reason"].is_null())
    return _assemble(frame, rejected, scores, flags)


def _apply(step: ChainStep, alive: pl.DataFrame) -> pl.DataFrame:
    verdicts = step.run(alive.drop("row"), step.params)
    nothing = pl.Series([None] * alive.height, dtype=pl.String)

    def column(series: pl.Series | None, dtype: pl.DataType) -> pl.Series:
        return (nothing if series is None else series).cast(dtype)

    return pl.DataFrame(
        {
            "row": alive["row"],
            "reason": verdicts.reason.cast(pl.String),
            "score": column(verdicts.score, pl.Float64()),
            "threshold": column(verdicts.threshold, pl.Float64()),
            "detail": column(verdicts.detail, pl.String()),
        }
    )


def _remember(step: ChainStep, alive: pl.DataFrame, judged: pl.DataFrame) -> pl.DataFrame:
    """The rows with this step's score among their scores, for a later step that cuts by it."""
    new = pl.struct(name=pl.lit(step.id), score=judged["score"])
    listed = (
        pl.when(judged["score"].is_not_null()).then(pl.concat_list(new)).otherwise(pl.lit([], VIEW["scores"]))
    )
    none = pl.lit([], VIEW["scores"])
    return alive.with_columns(scores=pl.concat_list(pl.col("scores").fill_null(none), listed))


def _assemble(
    frame: pl.DataFrame, rejected: list[pl.DataFrame], scores: list[pl.DataFrame], flags: list[pl.DataFrame]
) -> pl.DataFrame:
    out = frame.select(pl.col("id").cast(pl.String)).with_row_index("row")
    # Rows of later steps come later, so lists are in the chain's order.
    lists = [pl.concat(parts).group_by("row", maintain_order=True).agg(pl.all()) for parts in (scores, flags)]
    for part in (pl.concat(rejected), *lists):
        out = out.join(part, on="row", how="left", maintain_order="left")
    empty = [pl.col(name).fill_null(pl.lit([], RESULT[name])) for name in ("scores", "flags")]
    return out.with_columns(empty).select(RESULT.names()).cast(RESULT)
