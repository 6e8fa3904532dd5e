"""Filters on the outer shape of a completion: length, truncation, JSON Schema.

In: a frame of the view. Out: verdicts with the reasons

    length       empty | length_short | length_long
    truncation   truncated | unclosed_fence
    json_schema  not_json | schema | schema_invalid

Rejected: a minimum of sentences or of terminal punctuation (both drop lists, code, tables and short answers).
"""

# ruff: noqa: N806  # arrays carry their axes in their names
import jsonschema_rs
import orjson
import polars as pl
from pydantic import Field, model_validator

from synthgen.plugins import Plugin
from synthgen.recipe.model import Strict
from synthgen.refine.filters.text import completion, put, word_count
from synthgen.refine.verdict import Verdicts, nulls

__all__ = [
    "JSON_SCHEMA",
    "LENGTH",
    "TRUNCATION",
    "JsonSchemaParams",
    "LengthParams",
    "TruncationParams",
    "json_schema",
    "length",
    "truncation",
]

# A fence alone on its line: an info string holds no backtick, so ```inline``` does not count.
_FENCE = "```|~~~"
_FENCE_LINE = r"(?m)^[ \t>]*(?:[-*+]|\d+[.)])?[ \t]*(?:`{3,}[^`\n]*|~{3,}[^~\n]*)$"


_FENCED_JSON = r"(?s)\A\s*```(?:json)?[ \t]*\n(.*?)\n?```\s*\z"


class LengthParams(Strict):
    """Bounds on the completion; None is no bound. White space at the ends does not count.

    The minimum is one character: "Paris" and "42" are good answers where the prompt asks for one word. Web-page
    minima (Gopher's 50 words, Rae et al. 2021, table A1) are not for answers; its maximum of 100 000 words is far above
    any context, so the default cap is 100 000 characters, about 25 000 tokens.
    """

    min_chars: int = Field(default=1, ge=0)
    max_chars: int | None = Field(default=100_000, ge=1)
    min_words: int = Field(default=0, ge=0)
    max_words: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _ordered(self) -> "LengthParams":
        for low, high, unit in (
            (self.min_chars, self.max_chars, "chars"),
            (self.min_words, self.max_words, "words"),
        ):
            if high is not None and high < low:
                raise ValueError(f"max_{unit} = {high} is below min_{unit} = {low}")
        return self


def length(frame: pl.DataFrame, params: LengthParams) -> Verdicts:
    """Too short or too long, in characters or words; a completion of tool calls alone may be empty.

    A Chinese, Japanese or Korean character counts as three for `min_chars`: it carries what two to three
    Latin letters do, and a minimum made for English must not reject it. The score is the number of characters, or of
    words where their bound is broken.
    """
    text = completion().str.strip_chars()
    # What no bound asks for is not counted.
    dense = (
        text.str.count_matches(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}]") if params.min_chars > 1 else 0
    )
    counted = params.min_words > 0 or params.max_words is not None
    measured = frame.select(chars=text.str.len_chars(), words=word_count(text) if counted else 0, dense=dense)
    if _fits(measured, params):
        return Verdicts(nulls(frame.height, pl.String), measured["chars"].cast(pl.Float64))
    measured = measured.with_columns(
        frame["finish_reason"], frame["tool_calls"], weight=pl.col("chars") + 2 * pl.col("dense")
    )
    chars = pl.col("chars")
    called = (pl.col("finish_reason") == "tool_calls").fill_null(False) | pl.col("tool_calls").is_not_null()
    calls_only = (chars == 0) & called
    least = (("chars", params.min_chars, "weight"), ("words", params.min_words, "words"))
    most = (("chars", params.max_chars), ("words", params.max_words))
    bounds = [
        ("length_short", pl.col(unit), low, pl.col(compared) < low) for unit, low, compared in least
    ] + [("length_long", pl.col(unit), high, pl.col(unit) > high) for unit, high in most if high is not None]
    broken = [(reason, unit, bound, hit & ~calls_only) for reason, unit, bound, hit in bounds]
    names = [
        pl.when(hit & (chars == 0)).then(pl.lit("empty")).when(hit).then(pl.lit(reason))
        for reason, _, _, hit in broken
    ]
    out = measured.select(
        reason=pl.coalesce(names),
        score=pl.coalesce([*(pl.when(hit).then(unit) for _, unit, _, hit in broken), chars]).cast(pl.Float64),
        threshold=pl.coalesce([pl.when(hit).then(pl.lit(float(bound))) for _, _, bound, hit in broken]),
    )
    return Verdicts(out["reason"], out["score"], threshold=out["threshold"])


def _fits(measured: pl.DataFrame, params: LengthParams) -> bool:
    """Whether no row breaks a bound, as in nearly every batch."""
    if not measured.height:
        return True
    chars_N, words_N, dense_N = (column.to_numpy() for column in measured)
    return bool(
        (chars_N + 2 * dense_N).min() >= params.min_chars
        and words_N.min() >= params.min_words
        and (params.max_chars is None or chars_N.max() <= params.max_chars)
        and (params.max_words is None or words_N.max() <= params.max_words)
    )


class TruncationParams(Strict):
    """What counts as cut off, besides the teacher saying so (`finish_reason: length`)."""

    fences: bool = True


def truncation(frame: pl.DataFrame, params: TruncationParams) -> Verdicts:
    """The teacher stopped at its token limit, or a code fence is never closed."""
    reason = nulls(frame.height, pl.String)
    fenced = frame.select(completion().str.contains(_FENCE)).to_series()
    if params.fences and fenced.any():
        odd = completion().str.count_matches(_FENCE_LINE) % 2 == 1
        unclosed = frame.filter(fenced).select(pl.when(odd).then(pl.lit("unclosed_fence"))).to_series()
        reason = put(reason, fenced, unclosed)
    cut = frame["finish_reason"] == "length"
    if cut.any():
        reason = put(reason, cut, pl.Series(["truncated"]).new_from_index(0, int(cut.sum())))
    return Verdicts(reason)


class JsonSchemaParams(Strict):
    """No parameters: the schema is a property of the row."""


def json_schema(frame: pl.DataFrame, params: JsonSchemaParams) -> Verdicts:
    """The reply is not JSON, or not what the row's `response_schema` asks for.

    The record may show the reply in any form, so the teacher's own text is read where there is one, else the
    completion; a code fence around a reply that the record does not repeat is allowed. Rows without a schema are kept. A schema that is itself wrong gives `schema_invalid`; references to other
    documents are not fetched. `detail` names the first failing place.
    """
    if frame["response_schema"].null_count() == frame.height:
        return Verdicts(frame["response_schema"].alias("reason"))
    # A record that is the reply teaches its fence too.
    own = pl.when(pl.col("reply") != pl.col("completion")).then(
        pl.col("reply").str.replace(_FENCED_JSON, "${1}")
    )
    rows = frame.select(pl.coalesce(own, "completion"), "response_schema").rows()
    validators: dict[str, jsonschema_rs.Validator | str] = {}
    judged = [_check(text, schema, validators) for text, schema in rows]
    return Verdicts(
        pl.Series("reason", [reason for reason, _ in judged], pl.String),
        detail=pl.Series("detail", [detail for _, detail in judged], pl.String),
    )


def _check(
    text: str | None, schema: str | None, validators: dict[str, jsonschema_rs.Validator | str]
) -> tuple[str | None, str | None]:
    if schema is None:
        return None, None
    if schema not in validators:
        validators[schema] = _compile(schema)
    validator = validators[schema]
    if isinstance(validator, str):
        return "schema_invalid", validator
    try:
        value = orjson.loads(text or "")
    except orjson.JSONDecodeError as error:
        return "not_json", f"line {error.lineno}, column {error.colno}: {error.msg}"
    problem = next(iter(validator.iter_errors(value)), None)
    if problem is None:
        return None, None
    place = "/".join(str(part) for part in problem.instance_path) or "the top"
    return "schema", f"at {place}: {problem.kind.name}"


def _compile(schema: str) -> jsonschema_rs.Validator | str:
    try:
        parsed = orjson.loads(schema)
    except orjson.JSONDecodeError as error:
        return f"the schema is not JSON: {error.msg}"
    if not isinstance(parsed, dict | bool):
        return "the schema is neither an object nor a boolean"
    try:
        return jsonschema_rs.validator_for(parsed, offline=True)
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        return f"the schema is not valid: {str(error).splitlines()[0]}"


LENGTH = Plugin("length", LengthParams, length)
TRUNCATION = Plugin("truncation", TruncationParams, truncation)
JSON_SCHEMA = Plugin("json_schema", JsonSchemaParams, json_schema)
