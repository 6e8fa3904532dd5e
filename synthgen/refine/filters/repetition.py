"""Completions that loop: the same words, lines or characters over and over.

In: a frame of the view. Out: verdicts with the reasons `repeated_ngrams`, `repeated_phrase`, `repeated_lines`,
`repeated_chars`; the score is the share that broke its bound, else the largest found, 0..1; of `repeated_chars` it is
the length of the run.
Guarantee: code, tables, formulae, JSON and list markers are not looked at, numbers alone are no repetition.
Rejected: the web thresholds of Gopher (Rae et al. 2021, table A1: duplicate 5- to 10-grams 0.15 to 0.10, lines 0.30, top
n-grams 0.20 to 0.16). A song with a chorus or a list of one pattern breaks them; a model in a loop is far above.
"""

# ruff: noqa: N803, N806  # arrays carry their axes in their names

from typing import Annotated

import numpy as np
import polars as pl
from pydantic import Field

from synthgen.plugins import Plugin
from synthgen.recipe.model import Strict
from synthgen.refine.filters.text import PROSE, prose_of
from synthgen.refine.loops import loops_of
from synthgen.refine.shingles import I64, Bools
from synthgen.refine.verdict import Verdicts, nulls

__all__ = ["REPETITION", "RepetitionParams", "repetition"]

Share = Annotated[float, Field(ge=0, le=1)]

_LINES = 4  # fewer repeats are in every dialogue
# Runs made of these are rulers, blanks to fill in, or numbers (a 64-bit pattern has 64 digits of two kinds).
_RULER = r"^[-=_*#~.+|<>^/\\─━═│┃▁▂▃▄▅▆▇█░▒▓\d,;:'`…·]+$"


class RepetitionParams(Strict):
    """Largest shares that are kept, measured on prose.

    `max_dup_ngram`: share of 8-word runs that stood in the text before. `max_top_ngram`: share of the text the
    most frequent 4-word run covers. Both from `min_words` words on. `max_dup_lines`: share of the characters in
    lines and sentences (of 15 bytes or more) that stood there before, from 4 repeats on. `max_char_run`:
    longest run without a space that is made of at most three different characters.

    The values stand between the bundled examples (`tests/data/filters/repetition.jsonl`), a chorus sung three times at
    0.33 and looping models from 0.76 on, above what people's favourites reach: of the 1,493 answers that won three of
    four comparisons in alpaca_eval 0.1.7, lists of one pattern have top n-grams of 0.46 and 0.55, a song lines of 0.52; one
    that loops has lines of 0.64.
    """

    max_dup_ngram: Share = 0.5
    max_top_ngram: Share = 0.55
    max_dup_lines: Share = 0.6
    max_char_run: int = Field(default=60, ge=5)
    min_words: int = Field(default=24, ge=8)


def repetition(frame: pl.DataFrame, params: RepetitionParams) -> Verdicts:
    """Loops of words, lines or characters in the prose of the completion."""
    text = prose_of(frame)
    loops = loops_of(text)
    enough = loops.words_N >= params.min_words
    shares = pl.DataFrame(
        {
            "dup_ngram": np.where(enough, loops.dup_ngram_N, 0.0),
            "top_ngram": np.where(enough, loops.top_ngram_N, 0.0),
            "dup_lines": np.where(loops.line_repeat_N >= _LINES, loops.dup_line_N, 0.0),
            "char_run": _char_runs(text, loops.solid_N > params.max_char_run, params.max_char_run),
        }
    )
    bounds = (
        ("repeated_chars", "char_run", params.max_char_run),
        ("repeated_lines", "dup_lines", params.max_dup_lines),
        ("repeated_ngrams", "dup_ngram", params.max_dup_ngram),
        ("repeated_phrase", "top_ngram", params.max_top_ngram),
    )
    if not any(
        (shares[name].to_numpy() > bound).any() for _, name, bound in bounds
    ):  # as in nearly every batch
        largest_N = np.max([shares[name].to_numpy() for _, name, _ in bounds[1:]], axis=0)
        return Verdicts(nulls(len(text), pl.String), pl.Series(largest_N))
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


def _char_runs(text: pl.Series, maybe_N: Bools, longest: int) -> I64:
    """Length of the longest run of few characters, where it is above `longest`; else 0. Only `maybe_N` rows can have one."""
    run_N = np.zeros(len(text), np.int64)
    if not maybe_N.any():
        return run_N
    found = (
        pl.DataFrame({"row": np.flatnonzero(maybe_N), "text": text.filter(pl.Series(maybe_N))})
        .select("row", run=pl.col("text").str.extract_all(rf"\S{{{longest + 1},}}"))
        .explode("run", empty_as_null=True, keep_nulls=True)
        .drop_nulls()
        .filter(~pl.col("run").str.contains(_RULER))
        .filter(pl.col("run").str.to_lowercase().str.strip_chars(".!?,").str.split("").list.n_unique() <= 3)
        .group_by("row")
        .agg(size=pl.col("run").str.len_chars().max())
    )
    run_N[found["row"].to_numpy()] = found["size"].to_numpy()
    return run_N


REPETITION = Plugin("repetition", RepetitionParams, repetition, version=3, reads=(PROSE,))
