"""What a filter sees and what it says.

In: a frame with the columns of `VIEW`, one row per candidate, in plan order. Out: one `Verdicts` per filter, aligned
with the frame. A filter is a pure function of frame and parameters; it never drops rows itself.
Rejected: one frame a filter family with only the columns it reads (a chain would build several, and a filter of the
user's could not look at what nobody thought of).
"""

import polars as pl

from synthgen.dataclasses import dataclass

__all__ = ["VIEW", "Verdicts", "above", "below", "nulls", "view_of"]

VIEW = pl.Schema(
    {
        "id": pl.String(),
        "prompt": pl.String(),  # what the student will be asked: all non-assistant turns before the last answer
        "completion": pl.String(),  # the last assistant turn; tool calls as JSON, one a line, below its text
        "finish_reason": pl.String(),  # stop | length | tool_calls | refusal | content_filter | unknown, or null
        "response_schema": pl.String(),  # JSON Schema text the reply must satisfy, or null
        "reply": pl.String(),  # what the teacher wrote last, where the record is built from it; else null
        "tools": pl.String(),  # JSON list of the declared tools, OpenAI's form, or null
        "tool_calls": pl.String(),  # JSON list of {id, name, arguments} of the last turn, or null
        "fields": pl.String(),  # JSON object of the row's fields: references, tests, documents; or null
        "group": pl.String(),  # equal for the samples of one question, or null
        "scores": pl.List(
            pl.Struct({"name": pl.String(), "score": pl.Float64()})
        ),  # stored, then of earlier steps
    }
)


@dataclass(frozen=True, slots=True)
class Verdicts:
    """`reason`: String, null where the row is kept. `score`: Float64, null where the filter has none.

    `threshold`: Float64, the bound that `score` broke, null where it broke none. `detail`: String or None; a short
    explanation for people, never needed to decide.
    """

    reason: pl.Series
    score: pl.Series | None = None
    detail: pl.Series | None = None
    threshold: pl.Series | None = None


def view_of(frame: pl.DataFrame) -> pl.DataFrame:
    """The columns of the view; those the frame lacks are null."""
    if frame.schema == VIEW:
        return frame
    columns = [
        pl.col(name).cast(dtype) if name in frame.columns else pl.lit(None, dtype).alias(name)
        for name, dtype in VIEW.items()
    ]
    return frame.select(columns)


def nulls(rows: int, dtype: pl.DataType | type[pl.DataType]) -> pl.Series:
    """So many nulls."""
    return pl.Series([None], dtype=dtype).new_from_index(0, rows)


def above(score: pl.Series, bound: float, reason: str) -> Verdicts:
    """Rejects what scores above the bound."""
    return _judged(score, score > bound, bound, reason)


def below(score: pl.Series, bound: float, reason: str) -> Verdicts:
    """Rejects what scores below the bound; null is no score."""
    return _judged(score, score < bound, bound, reason)


def _judged(score: pl.Series, hit: pl.Series, bound: float, reason: str) -> Verdicts:
    if not hit.any():  # as in nearly every batch
        return Verdicts(nulls(len(score), pl.String), score)
    out = (
        hit.alias("hit")
        .to_frame()
        .select(reason=pl.when("hit").then(pl.lit(reason)), threshold=pl.when("hit").then(pl.lit(bound)))
    )
    return Verdicts(out["reason"], score, threshold=out["threshold"])
