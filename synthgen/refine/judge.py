"""Deciding by stored judge scores.

In: a frame of scores, a rule. Out: verdicts. Guarantee: a row without a score is never kept.
"""

import polars as pl

__all__ = ["VERDICTS", "judge_verdicts"]

VERDICTS = pl.Schema({"id": pl.String, "stage": pl.String, "reason": pl.String, "score": pl.Float64})


def judge_verdicts(scores: pl.DataFrame, rule: tuple[str, float]) -> pl.DataFrame:
    """`VERDICTS` for a frame of `id` and a nullable `score`: `judge_below` where the rule fails, `unjudged` where
    there is no score; `stage` is `judge`, null where the row is kept.

    `rule` is a comparison (`>=`, `>`, `<=`, `<`, `==`) and its number.
    """
    sign, bound = rule
    score = pl.col("score").cast(pl.Float64)
    passes = {
        ">=": score >= bound,
        ">": score > bound,
        "<=": score <= bound,
        "<": score < bound,
        "==": score == bound,
    }[sign]
    reason = (
        pl.when(score.is_null() | score.is_nan())
        .then(pl.lit("unjudged"))
        .when(~passes)
        .then(pl.lit("judge_below"))
    )
    judged = scores.select(pl.col("id").cast(pl.String), reason=reason.cast(pl.String), score=score)
    stage = pl.when(pl.col("reason").is_not_null()).then(pl.lit("judge")).cast(pl.String)
    return judged.with_columns(stage=stage).select(VERDICTS.names())
