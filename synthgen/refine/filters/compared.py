"""Answers compared with something: the other samples, a stored score.

In: a frame of the view. Out: verdicts with the reasons

    consistency  inconsistent | too_easy
    score        score_below | unscored

Guarantee: a row that has nothing to be compared with (no other sample) is kept without a score, except by `score`, which
must not let a row pass that nobody scored.
"""

import re
from typing import Annotated, ClassVar

import orjson
import polars as pl
from pydantic import Field

from synthgen.plugins import Plugin
from synthgen.recipe.model import NAME, Strict
from synthgen.refine.filters.fields import field_values
from synthgen.refine.filters.text import completion
from synthgen.refine.needs import NeedsField
from synthgen.refine.verdict import Verdicts

__all__ = [
    "CONSISTENCY",
    "SCORE",
    "ConsistencyParams",
    "ScoreParams",
    "consistency",
    "score",
]

Share = Annotated[float, Field(ge=0, le=1)]


class ConsistencyParams(NeedsField):
    """`group`: the row's field that is equal for the samples of one question, in data that is no run; the samples stand
    beside one another there. None: the samples of a run. `min_share`: least share of a question's samples that end in the same answer (Wang et al. 2022,
    "Self-Consistency", take the majority, hence 0.5). `max_share`: above it the question is too easy to learn
    from; 1 keeps all."""

    needs: ClassVar[str] = "group"

    group: str | None = None
    min_share: Share = 0.5
    max_share: Share = 1.0


def consistency(frame: pl.DataFrame, params: ConsistencyParams) -> Verdicts:
    """A final answer that too few samples of the same question share; the score is that share.

    The final answer is the last `\\boxed{}`, else what stands behind `####`, else the last line; case, spaces, `$`, the
    commas of thousands and a full stop at the end do not count. A question with one sample left has no score.
    """
    final = pl.coalesce(
        completion().str.extract(r"(?s).*\\boxed\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}"),
        completion().str.extract(r"(?s).*####[ \t]*([^\n]+)"),
        completion().str.strip_chars().str.extract(r"([^\n]*)\z"),
    )
    plain = (
        final.str.to_lowercase()
        .str.replace_all(r"[\s$]|\\[,!; ]", "")
        .str.replace_all(r"(\d),(\d{3})", "$1$2")
    )
    answers = frame.select(_groups(frame, params.group), answer=plain.str.strip_suffix("."))
    size, same = pl.len().over("group"), pl.len().over("group", "answer")
    shared = answers.select(
        score=pl.when(pl.col("group").is_not_null() & (size > 1)).then(same / size).cast(pl.Float64)
    )
    low, high = pl.col("score") < params.min_share, pl.col("score") > params.max_share
    out = shared.select(
        reason=pl.when(low).then(pl.lit("inconsistent")).when(high).then(pl.lit("too_easy")).cast(pl.String),
        score="score",
        threshold=pl.when(low).then(pl.lit(params.min_share)).when(high).then(pl.lit(params.max_share)),
    )
    return Verdicts(out["reason"], out["score"], threshold=out["threshold"])


def _groups(frame: pl.DataFrame, field: str | None) -> pl.Series:
    """What tells the questions apart."""
    if field is None:
        return frame["group"]
    values = [None if value is None else orjson.dumps(value).decode() for value in field_values(frame, field)]
    return pl.Series("group", values, pl.String)


class ScoreParams(Strict):
    """`of`: name of a score an earlier step of the chain gave, or that is stored with the rows. `keep`: a comparison."""

    of: Annotated[str, Field(pattern=NAME)]
    keep: Annotated[str, Field(pattern=r"^\s*(?:>=|<=|>|<)\s*-?\d+(?:\.\d+)?\s*$")]


def score(frame: pl.DataFrame, params: ScoreParams) -> Verdicts:
    """Cut by a score that is already there: a changed threshold then scores nothing again.

    The latest score of that name counts. A row without one is `unscored`, never kept.
    """
    sign, number = re.fullmatch(r"\s*([<>]=?)\s*(\S+)\s*", params.keep).groups()  # type: ignore[union-attr]  # as validated
    named = pl.element().filter(pl.element().struct.field("name") == params.of).struct.field("score")
    scored = frame.select(score=pl.col("scores").list.eval(named).list.last())
    value, bound = pl.col("score"), float(number)
    passes = {">=": value >= bound, ">": value > bound, "<=": value <= bound, "<": value < bound}[sign]
    missing = value.is_null() | value.is_nan()
    out = scored.select(
        reason=pl.when(missing)
        .then(pl.lit("unscored"))
        .when(~passes)
        .then(pl.lit("score_below"))
        .cast(pl.String),
        threshold=pl.when(missing | ~passes).then(pl.lit(bound)),
        score="score",
    )
    return Verdicts(out["reason"], out["score"], threshold=out["threshold"])


CONSISTENCY = Plugin("consistency", ConsistencyParams, consistency)
SCORE = Plugin("score", ScoreParams, score)
