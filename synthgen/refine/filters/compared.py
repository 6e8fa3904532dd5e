"""Answers compared with something: a document, the other samples, a stored score.

In: a frame of the view. Out: verdicts with the reasons

    grounded     ungrounded
    consistency  inconsistent | too_easy
    score        score_below | unscored

Guarantee: a row that has nothing to be compared with (no document, no other sample) is kept without a score, except
by `score`, which must not let a row pass that nobody scored.
Rejected: word overlap with the document (a good summary shares few words; an invented date is one word).
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
    "GROUNDED",
    "SCORE",
    "ConsistencyParams",
    "GroundedParams",
    "ScoreParams",
    "consistency",
    "grounded",
    "score",
]

Share = Annotated[float, Field(ge=0, le=1)]

_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
# Two capitalised words in a row, or one with a capital inside: names in every language with capitals, German too.
_NAME = re.compile(r"[A-ZÀ-ÞА-Я][\w'’-]+(?: [A-ZÀ-ÞА-Я][\w'’-]+)+|\b\w+[a-z][A-Z]\w*\b")
_LIST_NUMBER = re.compile(r"(?m)^[ \t>]*\(?\d{1,3}[.):][ \t]+")


class GroundedParams(NeedsField):
    """`document`: the row's field with the given text. `min_share`: least share of the answer's numbers and names that
    the document or the prompt holds; 0.8 allows a sum or an ordinal among five facts."""

    needs: ClassVar[str] = "document"

    document: str = "document"
    min_share: Share = 0.8


def grounded(frame: pl.DataFrame, params: GroundedParams) -> Verdicts:
    """Numbers and names in the answer that the document does not have; `detail` lists the first three.

    The cheap half of groundedness: what is false without a wrong number or name is a judge's to find. An answer
    without numbers and names has no score.
    """
    said: list[tuple[str | None, float | None, str | None]] = []
    answers = frame.select("prompt", completion()).iter_rows()
    for document, (prompt, answer) in zip(field_values(frame, params.document), answers, strict=True):
        facts = _facts(answer) if isinstance(document, str) else []
        given = _plain(f"{document}\n{prompt or ''}")
        missing = [fact for fact in facts if not re.search(rf"(?<!\w){re.escape(_plain(fact))}(?!\w)", given)]
        share = 1 - len(missing) / len(facts) if facts else None
        low = share is not None and share < params.min_share
        said.append(("ungrounded" if low else None, share, ", ".join(missing[:3]) if low else None))
    reason, measured, detail = zip(*said, strict=True) if said else ((), (), ())
    bound = [None if why is None else params.min_share for why in reason]
    return Verdicts(
        pl.Series("reason", reason, pl.String),
        pl.Series("score", measured, pl.Float64),
        pl.Series("detail", detail, pl.String),
        pl.Series("threshold", bound, pl.Float64),
    )


def _facts(answer: str) -> list[str]:
    text = _LIST_NUMBER.sub("", answer)
    return list(dict.fromkeys([*_NUMBER.findall(text), *_NAME.findall(text)]))


def _plain(text: str) -> str:
    """Case-folded, with one apostrophe and without the commas of thousands."""
    return re.sub(r"(?<=\d),(?=\d{3}\b)", "", text.casefold().replace("’", "'"))


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
GROUNDED = Plugin("grounded", GroundedParams, grounded)
SCORE = Plugin("score", ScoreParams, score)
