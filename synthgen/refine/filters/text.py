"""Expressions that several filters share: what of a completion is prose, and how long it is.

In: polars string expressions or series. Out: the same; nothing here looks at a row in Python.
Rejected: prose rules over the raw text. Lists, tables and code break every threshold made for web pages (measured
on 805 good answers: such rules drop 17 to 57 %).
"""

from collections.abc import Callable, Sequence

import polars as pl

__all__ = [
    "LOWERED",
    "PROSE",
    "SHARED",
    "completion",
    "head",
    "lowered_of",
    "prompt",
    "prose",
    "prose_of",
    "put",
    "unquoted",
    "without",
    "word_count",
]

# Scripts written without spaces: of these a character is about a word (Chinese, Japanese), or four are.
_DENSE = r"\p{Han}\p{Hiragana}\p{Katakana}"
_RUNNING = r"\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}"
_WORD = rf"[{_DENSE}]|[{_RUNNING}]{{1,4}}|[\w--[{_DENSE}{_RUNNING}]]+"

_FENCED = r"(?ms)^[ \t>]*(?:[-*+]|\d+[.)])?[ \t]*(?:```|~~~).*?(?:^[ \t>]*(?:```|~~~)[`~]*[ \t]*$|\z)"
_TABLE_ROW = r"(?m)^[ \t]*\|.*$"
_FORMULA = r"(?s)\$\$.*?\$\$|\\\[.*?\\\]|\\begin\{[a-z*]+\}.*?\\end\{[a-z*]+\}"
_MARKER = r"(?m)^[ \t>]*(?:[-*+•·–]|\(?\d{1,3}[.)、:]|\(?[a-zA-Z][.)])[ \t]+"
_QUOTED = r'(?s)"[^"]*(?:"|\z)|“[^”]*(?:”|\z)|„[^“”]*(?:[“”]|\z)|«[^»]*(?:»|\z)|「[^」]*(?:」|\z)|『[^』]*(?:』|\z)|`[^`]*(?:`|\z)'
_QUOTE_LINE = r"(?m)^[ \t]*(?:>|[—–] ?).*$"


# Each with the signs that every match of it has.
_NO_PROSE = (
    (_FENCED, "```|~~~"),
    (_TABLE_ROW, r"\|"),
    (_FORMULA, r"\$\$|\\\[|\\begin"),
)
_SPOKEN_OF = (
    (_FENCED, "```|~~~"),
    (_QUOTE_LINE, "[>—–]"),
    (_QUOTED, '["“„«「『`]'),
)
_JSON = r"(?s)\A(?:\{.*\}|\[.*\])\z"
PROSE = "completion_prose"
LOWERED = "completion_lowered"


def completion() -> pl.Expr:
    """The completion; null counts as empty."""
    return pl.col("completion").fill_null("")


def prompt() -> pl.Expr:
    """The prompt; null counts as empty."""
    return pl.col("prompt").fill_null("")


def prose(text: pl.Series) -> pl.Series:
    """`text` without fenced code, tables, formulae and list markers; empty where all of it is one JSON value."""
    kept = text.str.strip_chars()
    is_json = kept.str.contains(_JSON)
    if is_json.any():
        kept = kept.zip_with(~is_json, pl.Series([""]).new_from_index(0, len(text)))
    return without(kept, _NO_PROSE).str.replace_all(_MARKER, " ")


def prose_of(frame: pl.DataFrame) -> pl.Series:
    """The prose of the completions; computed once a chain (`SHARED`), here where the filter runs alone."""
    return frame[PROSE] if PROSE in frame.columns else _completion_prose(frame)


def unquoted(text: pl.Series) -> pl.Series:
    """`text` without fenced code and without what somebody else says: quotation marks, quote lines, dialogue."""
    return without(text, _SPOKEN_OF)


def without(text: pl.Series, cuts: Sequence[tuple[str, str]]) -> pl.Series:
    """`text` without the matches of one pattern after the other, a blank in the place of each.

    With each stands a pattern of its signs: every match has one, and a search for those is nearly free. A series and not
    an expression: what stands in an expression several times is computed as often.
    """
    maybe = text.to_frame("").select(
        pl.col("").str.contains(signs).alias(str(place)) for place, (_, signs) in enumerate(cuts)
    )
    for some, (pattern, _) in zip(maybe, cuts, strict=True):
        if some.any():
            text = put(text, some, text.filter(some).str.replace_all(pattern, " "))
    return text


def put(whole: pl.Series, where: pl.Series, values: pl.Series) -> pl.Series:
    """`whole` with these values in the places that are true."""
    return whole.clone().scatter(where.arg_true(), values)


def head(text: pl.Expr, chars: int) -> pl.Expr:
    """The beginning, in lower case and with typewriter apostrophes, as phrase lists are written."""
    return text.str.strip_chars().str.head(chars).str.to_lowercase().str.replace_all("[’ʼ＇`]", "'")


def word_count(text: pl.Expr) -> pl.Expr:
    """Words; in scripts without spaces a Chinese or Japanese character, or four Thai letters, is a word."""
    return text.str.count_matches(_WORD)


def lowered_of(frame: pl.DataFrame) -> pl.Series:
    """The completions in lower case; computed once a chain (`SHARED`), here where the filter runs alone."""
    return frame[LOWERED] if LOWERED in frame.columns else _completion_lowered(frame)


def _completion_lowered(frame: pl.DataFrame) -> pl.Series:
    return frame.select(completion().str.to_lowercase()).to_series()


def _completion_prose(frame: pl.DataFrame) -> pl.Series:
    return prose(frame.select(completion()).to_series())


# Columns that several filters read (`Plugin.reads`): a chain computes each of them once.
SHARED: dict[str, Callable[[pl.DataFrame], pl.Series]] = {
    PROSE: _completion_prose,
    LOWERED: _completion_lowered,
}
