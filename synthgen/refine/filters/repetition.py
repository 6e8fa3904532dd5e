"""Completions that loop: the same words, lines or characters over and over.

In: a frame of the view. Out: verdicts with the reasons `repeated_ngrams`, `repeated_phrase`, `repeated_lines`,
`repeated_chars`; the score is the share that broke its bound, else the largest found, 0..1; of `repeated_chars` it is
the length of the run.
Guarantee: code, tables, formulae, JSON and list markers are not looked at, numbers alone are no repetition.
Rejected: the web thresholds of Gopher (Rae et al. 2021, table A1: duplicate 5- to 10-grams 0.15 to 0.10, lines 0.30, top
n-grams 0.20 to 0.16). A song with a chorus or a list of one pattern breaks them; a model in a loop is far above.
"""

# ruff: noqa: N806  # arrays carry their axes in their names
from typing import Annotated

import numpy as np
import polars as pl
from pydantic import Field

from synthgen.plugins import Plugin
from synthgen.recipe.model import Strict
from synthgen.refine.filters.text import completion, prose
from synthgen.refine.shingles import I64, Tokens, ngrams, tokenise
from synthgen.refine.verdict import Verdicts

__all__ = ["REPETITION", "RepetitionParams", "repetition"]

Shares = np.ndarray[tuple[int], np.dtype[np.float64]]
Share = Annotated[float, Field(ge=0, le=1)]

_LONG, _SHORT = 8, 4  # words per n-gram
# Lines shorter than this, in UTF-8 bytes, repeat in every poem, dialogue and data listing.
_LINE_BYTES = 15
_LINES = 4
# Runs made of these are rulers, blanks to fill in, or numbers (a 64-bit pattern has 64 digits of two kinds).
_RULER = r"^[-=_*#~.+|<>^/\\─━═│┃▁▂▃▄▅▆▇█░▒▓\d,;:'`…·]+$"


class RepetitionParams(Strict):
    """Largest shares that are kept, measured on prose.

    `max_dup_ngram`: share of 8-word runs that stood in the text before. `max_top_ngram`: share of the text the
    most frequent 4-word run covers. Both from `min_words` words on. `max_dup_lines`: share of the characters in
    lines and sentences (of 15 bytes or more) that stood there before, from 4 repeats on. `max_char_run`:
    longest run without a space that is made of at most three different characters.

    The values stand between the bundled examples (`tests/data/filters/repetition.jsonl`): a chorus sung three times
    and a counting song reach 0.33, looping models start at 0.76.
    """

    max_dup_ngram: Share = 0.5
    max_top_ngram: Share = 0.4
    max_dup_lines: Share = 0.5
    max_char_run: int = Field(default=60, ge=5)
    min_words: int = Field(default=24, ge=8)


def repetition(frame: pl.DataFrame, params: RepetitionParams) -> Verdicts:
    """Loops of words, lines or characters in the prose of the completion."""
    text = frame.select(prose=prose(completion()))["prose"]
    tokens = tokenise(text.to_list())
    enough = np.bincount(tokens.text_T, minlength=len(text)) >= params.min_words
    repeated, top = _ngram_shares(tokens, len(text))
    shares = pl.DataFrame(
        {
            "dup_ngram": np.where(enough, repeated, 0.0),
            "top_ngram": np.where(enough, top, 0.0),
            "dup_lines": _line_share(text),
        }
    )
    runs = _char_runs(text, params.max_char_run)
    shares = shares.with_columns(char_run=runs)
    bounds = (
        ("repeated_chars", "char_run", params.max_char_run),
        ("repeated_lines", "dup_lines", params.max_dup_lines),
        ("repeated_ngrams", "dup_ngram", params.max_dup_ngram),
        ("repeated_phrase", "top_ngram", params.max_top_ngram),
    )
    broken = [(reason, pl.col(name), float(bound), pl.col(name) > bound) for reason, name, bound in bounds]
    largest = pl.max_horizontal("dup_ngram", "top_ngram", "dup_lines")
    out = shares.select(
        reason=pl.coalesce([pl.when(hit).then(pl.lit(reason)) for reason, _, _, hit in broken]),
        score=pl.coalesce(
            [*(pl.when(hit).then(measure.cast(pl.Float64)) for _, measure, _, hit in broken), largest]
        ),
        threshold=pl.coalesce([pl.when(hit).then(pl.lit(bound)) for _, _, bound, hit in broken]),
    )
    return Verdicts(out["reason"], out["score"], threshold=out["threshold"])


def _ngram_shares(tokens: Tokens, count: int) -> tuple[Shares, Shares]:
    """Per text: share of repeated long n-grams, and share of the text covered by its top short one."""
    words_N = np.maximum(np.bincount(tokens.text_T, minlength=count), 1)
    text_R, size_R = _runs(tokens, _LONG)
    all_N = np.bincount(text_R, weights=size_R, minlength=count)
    repeated_N = (all_N - np.bincount(text_R, minlength=count)) / np.maximum(all_N, 1)
    text_R, size_R = _runs(tokens, _SHORT)
    top_N = np.zeros(count, np.int64)
    np.maximum.at(top_N, text_R, size_R)
    top_N[top_N == 1] = 0
    return repeated_N, np.minimum(top_N * _SHORT / words_N, 1.0)


def _runs(tokens: Tokens, n: int) -> tuple[I64, I64]:
    """`text_R`, `size_R` of every different n-gram that is not mostly numbers: its text, and how often it stands there.

    Sorted by text and 40 bits of the hash in one number: of a text of 10 000 words two n-grams share them once in 20 000.
    """
    grams = ngrams(tokens, n)
    if grams.start_G.size == 0:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    numbers_T1 = np.concatenate([[0], np.cumsum(tokens.numeric_T)])
    worded_G = (numbers_T1[grams.start_G + n] - numbers_T1[grams.start_G]) * 2 <= n
    text_G = grams.text_G[worded_G].astype(np.uint64)
    key_G = np.sort((text_G << np.uint64(40)) | (grams.hash_G[worded_G] >> np.uint64(24)))
    first_R = np.flatnonzero(np.diff(key_G, prepend=np.uint64(2**64 - 1)))
    return (key_G[first_R] >> np.uint64(40)).astype(np.int64), np.diff(first_R, append=key_G.size)


def _line_share(text: pl.Series) -> pl.Series:
    """Share of characters in long lines and sentences that stood in the text before."""
    lines = (
        pl.DataFrame({"row": pl.arange(len(text), eager=True), "line": text})
        .with_columns(pl.col("line").str.to_lowercase().str.extract_all(r"[^\n.!?。！？।؟]+"))
        .explode("line", empty_as_null=True, keep_nulls=True)
        .with_columns(pl.col("line").str.strip_chars())
        .filter(pl.col("line").str.len_bytes() >= _LINE_BYTES)
        .with_columns(size=pl.col("line").str.len_chars())
        .with_columns(again=~pl.struct("row", "line").is_first_distinct())
    )
    shares = lines.group_by("row").agg(
        repeats=pl.col("again").sum(),
        share=pl.col("size").filter("again").sum() / pl.col("size").sum(),
    )
    rows = pl.DataFrame({"row": pl.arange(len(text), eager=True)})
    joined = rows.join(shares, on="row", how="left", maintain_order="left")
    return joined.select(
        pl.when(pl.col("repeats") >= _LINES).then("share").otherwise(0.0).alias("dup_lines")
    )["dup_lines"]


def _char_runs(text: pl.Series, longest: int) -> pl.Series:
    """Length of the longest run of few characters, where it is above `longest`; else 0."""
    found = (
        pl.DataFrame(
            {"row": pl.arange(len(text), eager=True), "run": text.str.extract_all(rf"\S{{{longest + 1},}}")}
        )
        .explode("run", empty_as_null=True, keep_nulls=True)
        .drop_nulls()
        .filter(~pl.col("run").str.contains(_RULER))
        .filter(pl.col("run").str.to_lowercase().str.strip_chars(".!?,").str.split("").list.n_unique() <= 3)
        .group_by("row")
        .agg(size=pl.col("run").str.len_chars().max())
    )
    rows = pl.DataFrame({"row": pl.arange(len(text), eager=True)})
    return rows.join(found, on="row", how="left", maintain_order="left")["size"].fill_null(0)


REPETITION = Plugin("repetition", RepetitionParams, repetition)
