"""Filters on the form that was asked for: labels, sections, tool calls, letters instead of symbols.

In: a frame of the view. Out: verdicts with the reasons

    one_of      not_a_label
    sections    missing_section | section_order
    tool_calls  unknown_tool | arguments_not_json | arguments_schema | tools_invalid | no_tool_call
    symbols     symbols

Guarantee: columnar but for tool calls, of which each distinct list of tools is compiled once a frame.
Rejected: repairing (a label in a sentence, a call with a missing brace). What is trained on must be as asked.
"""

# ruff: noqa: N806  # arrays carry their axes in their names
import re
from itertools import pairwise
from typing import Annotated, Literal

import jsonschema_rs
import numpy as np
import orjson
import polars as pl
from pydantic import Field

from synthgen.plugins import Plugin
from synthgen.recipe.model import Strict
from synthgen.refine.filters.text import PROSE, completion, prose_of
from synthgen.refine.shingles import I64
from synthgen.refine.verdict import Verdicts, below, nulls
from synthgen.types import JSONValue

__all__ = [
    "ONE_OF",
    "SECTIONS",
    "SYMBOLS",
    "TOOL_CALLS",
    "OneOfParams",
    "SectionsParams",
    "SymbolsParams",
    "ToolCallsParams",
    "one_of",
    "sections",
    "symbols",
    "tool_calls",
]


# Of every byte, two counts in one number: of ASCII that is no white space (32 bits up), and of its letters and digits.
_WEIGHT = np.array(
    [
        ((not chr(code).isspace() or 0x1C <= code <= 0x1F) << 32) + chr(code).isalnum() if code < 128 else 0
        for code in range(256)
    ],
    np.int64,
)


class OneOfParams(Strict):
    """`labels`: what a classifier may answer. Case and outer white space count only with `exact`."""

    labels: Annotated[list[str], Field(min_length=1)]
    exact: bool = False


def one_of(frame: pl.DataFrame, params: OneOfParams) -> Verdicts:
    """The completion is none of the labels, as a whole."""
    said, labels = completion(), list(params.labels)
    if not params.exact:
        said, labels = said.str.strip_chars().str.to_lowercase(), [label.strip().lower() for label in labels]
    hit = ~said.is_in(pl.Series(labels, dtype=pl.String).implode())
    reason = pl.when(hit).then(pl.lit("not_a_label")).cast(pl.String)
    return Verdicts(frame.select(reason=reason)["reason"])


class SectionsParams(Strict):
    """`required`: headings, each on a line of its own: Markdown (`## Steps`), bold, or with a colon. Case does not count.

    `ordered`: they must come in this order.
    """

    required: Annotated[list[str], Field(min_length=1)]
    ordered: bool = True


def sections(frame: pl.DataFrame, params: SectionsParams) -> Verdicts:
    """A required heading is missing, or they come in another order. `detail` names the first one missing."""
    places = frame.select(
        completion().str.find(_heading(name)).cast(pl.Int64).alias(str(place))
        for place, name in enumerate(params.required)
    )
    names = [str(place) for place in range(len(params.required))]
    missing = pl.coalesce(
        pl.when(pl.col(name).is_null()).then(pl.lit(heading))
        for name, heading in zip(names, params.required, strict=True)
    )
    ordered = pl.all_horizontal(pl.col(first) < pl.col(second) for first, second in pairwise(names))
    unordered = ~ordered if params.ordered and len(names) > 1 else pl.lit(False)
    reason = (
        pl.when(missing.is_not_null())
        .then(pl.lit("missing_section"))
        .when(unordered)
        .then(pl.lit("section_order"))
    )
    out = places.select(reason=reason.cast(pl.String), detail=missing)
    return Verdicts(out["reason"], detail=out["detail"])


def _heading(name: str) -> str:
    return rf"(?im)^[ \t]*(?:#{{1,6}}[ \t]*)?(?:\*\*|__)?{re.escape(name)}[ \t]*:?(?:\*\*|__)?[ \t]*:?[ \t]*#*(?:$|:)"


class SymbolsParams(Strict):
    """`min_share`: least share of letters, marks and digits among the characters of prose that are no white space.

    0.25 is NeMo Curator's bound (`NonAlphaNumericFilter`, 0.25 of characters non-alphanumeric, is for web pages and
    drops dialogue; data-juicer's alpaca recipe has 0.1). `min_chars`: shorter prose is not judged: `:-)` may be an answer.
    """

    min_share: float = Field(default=0.25, ge=0, le=1)
    min_chars: int = Field(default=40, ge=1)


def symbols(frame: pl.DataFrame, params: SymbolsParams) -> Verdicts:
    """Prose of little but punctuation and symbols. Code, tables, formulae and JSON are not looked at."""
    size_N, letters_N = _counted(prose_of(frame))
    share_N = np.divide(letters_N, size_N, out=np.zeros(frame.height), where=size_N > 0)
    enough = pl.Series(size_N >= params.min_chars)
    return below(
        pl.Series(share_N).zip_with(enough, nulls(frame.height, pl.Float64)), params.min_share, "symbols"
    )


def _counted(text: pl.Series) -> tuple[I64, I64]:
    """Characters that are no white space, and letters, marks and digits among them.

    ASCII is looked up byte by byte, all texts at once; the other characters are few in most texts, and counted by
    expressions where there are any.
    """
    listed = text.to_list()
    parts = [part.encode() for part in listed]
    bytes_N = np.fromiter(map(len, parts), np.int64, len(parts))
    byte_C = np.frombuffer(b"".join(parts), np.uint8)
    filled_N = bytes_N > 0
    first_N = np.cumsum(bytes_N) - bytes_N
    sum_N = np.zeros(len(parts), np.int64)
    if byte_C.size:
        sum_N[filled_N] = np.add.reduceat(_WEIGHT[byte_C], first_N[filled_N], dtype=np.int64)
    size_N, letters_N = sum_N >> 32, sum_N & 0xFFFFFFFF
    other_N = bytes_N > np.fromiter(map(len, listed), np.int64, len(parts))
    if other_N.any():
        counts = (
            text.alias("")
            .to_frame()
            .filter(other_N)
            .select(
                size=pl.col("").str.count_matches(r"[^\s\x00-\x7F]"),
                letters=pl.col("").str.count_matches(r"[[\p{L}\p{M}\p{N}]&&[^\x00-\x7F]]"),
            )
        )
        size_N[other_N] += counts["size"].to_numpy()
        letters_N[other_N] += counts["letters"].to_numpy()
    return size_N, letters_N


class ToolCallsParams(Strict):
    """`required`: an answer without a call is rejected where tools are declared."""

    required: bool = False


ToolReason = Literal[
    "unknown_tool", "arguments_not_json", "arguments_schema", "tools_invalid", "no_tool_call"
]
Checks = dict[str, jsonschema_rs.Validator]


def tool_calls(frame: pl.DataFrame, params: ToolCallsParams) -> Verdicts:
    """A call that fits none of the declared tools. `detail` names tool and place, never an argument.

    Rows that declare no tools and call none are kept; a call where none is declared is `unknown_tool`.
    """
    called, declared = frame["tool_calls"], frame["tools"]
    if called.null_count() == frame.height and (not params.required or declared.null_count() == frame.height):
        return Verdicts(called.alias("reason"))
    compiled: dict[str, Checks | None] = {}
    said = [
        _check(tools, calls, compiled, required=params.required)
        for tools, calls in frame.select("tools", "tool_calls").iter_rows()
    ]
    return Verdicts(
        pl.Series("reason", [reason for reason, _ in said], pl.String),
        detail=pl.Series("detail", [detail for _, detail in said], pl.String),
    )


def _check(
    tools: str | None, calls: str | None, compiled: dict[str, Checks | None], *, required: bool
) -> tuple[ToolReason | None, str | None]:
    if calls is None:
        return ("no_tool_call", None) if required and tools is not None else (None, None)
    if tools is not None and tools not in compiled:
        compiled[tools] = _compile(tools)
    checks = compiled[tools] if tools is not None else {}
    made = _loaded(calls)
    if checks is None or not isinstance(made, list):
        return "tools_invalid", None
    for call in made:
        name = call.get("name") if isinstance(call, dict) else None
        if not isinstance(call, dict) or not isinstance(name, str) or name not in checks:
            return "unknown_tool", str(name)[:64]
        arguments = call.get("arguments")
        value = _loaded(arguments) if isinstance(arguments, str) else arguments
        if not isinstance(value, dict):
            return "arguments_not_json", name
        error = next(iter(checks[name].iter_errors(value)), None)
        if error is not None:
            place = "/".join(str(part) for part in error.instance_path) or "the object"
            return "arguments_schema", f"{name}: at {place[:80]}: {error.kind.name}"
    return None, None


def _compile(tools: str) -> Checks | None:
    """Tool name -> validator of its parameters; None where the list is none."""
    listed = _loaded(tools)
    if not isinstance(listed, list):
        return None
    checks: Checks = {}
    for tool in listed:
        function = tool.get("function", tool) if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(name := function.get("name"), str):
            return None
        parameters = function.get("parameters", function.get("input_schema")) or {}
        if not isinstance(parameters, dict):
            return None
        try:
            checks[name] = jsonschema_rs.validator_for(parameters, offline=True)
        except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError):
            return None
    return checks


def _loaded(text: str) -> JSONValue:
    try:
        value: JSONValue = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return value


ONE_OF = Plugin("one_of", OneOfParams, one_of)
SECTIONS = Plugin("sections", SectionsParams, sections)
SYMBOLS = Plugin("symbols", SymbolsParams, symbols, reads=(PROSE,))
TOOL_CALLS = Plugin("tool_calls", ToolCallsParams, tool_calls)
