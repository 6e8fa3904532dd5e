"""Expressions that several filters share: what of a completion is prose, and how long it is.

In: polars string expressions. Out: expressions; nothing here looks at a row in Python.
Rejected: prose rules over the raw text. Lists, tables and code break every threshold made for web pages (measured
on 805 good answers: such rules drop 17 to 57 %).
"""

import polars as pl

__all__ = ["completion", "head", "prompt", "prose", "unquoted", "word_count"]

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


def completion() -> pl.Expr:
    """The completion; null counts as empty."""
    return pl.col("completion").fill_null("")


def prompt() -> pl.Expr:
    """The prompt; null counts as empty."""
    return pl.col("prompt").fill_null("")


def prose(text: pl.Expr) -> pl.Expr:
    """`text` without fenced code, tables, formulae and list markers; empty where all of it is one JSON value."""
    stripped = text.str.strip_chars()
    is_json = (stripped.str.starts_with("{") & stripped.str.ends_with("}")) | (
        stripped.str.starts_with("[") & stripped.str.ends_with("]")
    )
    kept = pl.when(is_json).then(pl.lit("")).otherwise(stripped)
    for pattern in (_FENCED, _TABLE_ROW, _FORMULA, _MARKER):
        kept = kept.str.replace_all(pattern, " ")
    return kept


def unquoted(text: pl.Expr) -> pl.Expr:
    """`text` without fenced code and without what somebody else says: quotation marks, quote lines, dialogue."""
    for pattern in (_FENCED, _QUOTE_LINE, _QUOTED):
        text = text.str.replace_all(pattern, " ")
    return text


def head(text: pl.Expr, chars: int) -> pl.Expr:
    """The beginning, in lower case and with typewriter apostrophes, as phrase lists are written."""
    return text.str.strip_chars().str.head(chars).str.to_lowercase().str.replace_all("[’ʼ＇`]", "'")


def word_count(text: pl.Expr) -> pl.Expr:
    """Words; in scripts without spaces a Chinese or Japanese character, or four Thai letters, is a word."""
    return text.str.count_matches(_WORD)
