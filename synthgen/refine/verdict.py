"""What a filter sees and what it says.

In: a frame with the columns of `VIEW`, one row per candidate, in plan order. Out: one `Verdicts` per filter, aligned
with the frame. A filter is a pure function of frame and parameters; it never drops rows itself.
"""

from dataclasses import dataclass

import polars as pl

__all__ = ["VIEW", "Verdicts"]

VIEW = pl.Schema(
    {
        "id": pl.String,
        "prompt": pl.String,  # what the student will be asked: all non-assistant turns before the last answer
        "completion": pl.String,  # the last assistant turn
        "finish_reason": pl.String,  # stop | length | tool_calls | refusal | content_filter | unknown, or null
        "response_schema": pl.String,  # JSON Schema text the completion must satisfy, or null
    }
)


@dataclass(frozen=True, slots=True)
class Verdicts:
    """`reason`: String, null where the row is kept. `score`: Float64, null where the filter has none.

    `detail`: String or None; a short explanation for people, never needed to decide.
    """

    reason: pl.Series
    score: pl.Series | None = None
    detail: pl.Series | None = None
