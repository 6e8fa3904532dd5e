"""Completions full of words the user does not want: the place for a list of profanity or slurs.

In: a frame of the view. Out: verdicts with the reason `flagged_words`; the score is the share of such words, 0..1.
Guarantee: whole words only, case does not count; the words are the chain's own, so that everybody can read what was
counted. A classifier of toxicity plugs in as a function of one's own (docs/filters.md).
Rejected: a bundled list (each one known flags medicine, history and people's names, in one language), and a rejection
by the first hit (a quoted insult is no toxic answer).
"""

import re
from typing import Annotated

import polars as pl
from pydantic import Field

from synthgen.plugins import Plugin
from synthgen.recipe.model import Strict
from synthgen.refine.filters.text import completion, word_count
from synthgen.refine.verdict import Verdicts

__all__ = ["FLAGGED_WORDS", "FlaggedWordsParams", "flagged_words"]


class FlaggedWordsParams(Strict):
    """`words`: what is counted, phrases too. `max_share`: largest share of all words that is kept.

    0.045 is data-juicer's default for its list (`flagged_words_filter`); 0 rejects at the first.
    """

    words: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]
    max_share: Annotated[float, Field(ge=0, lt=1)] = 0.045


def flagged_words(frame: pl.DataFrame, params: FlaggedWordsParams) -> Verdicts:
    """More flagged words than allowed; `detail` names the first of them."""
    longest_first = sorted(
        {word.strip().lower() for word in params.words}, key=lambda word: (-len(word), word)
    )
    pattern = rf"(?i)\b(?:{'|'.join(re.escape(word) for word in longest_first)})\b"
    counted = frame.select(
        hits=completion().str.count_matches(pattern),
        words=word_count(completion()),
        first=completion().str.extract(f"({pattern})"),
    )
    share = pl.col("hits") / pl.max_horizontal("words", "hits", 1)
    hit = share > params.max_share
    out = counted.select(
        reason=pl.when(hit).then(pl.lit("flagged_words")).cast(pl.String),
        score=share,
        threshold=pl.when(hit).then(pl.lit(params.max_share)),
        detail=pl.when(hit).then("first"),
    )
    return Verdicts(out["reason"], out["score"], out["detail"], out["threshold"])


FLAGGED_WORDS = Plugin("flagged_words", FlaggedWordsParams, flagged_words)
