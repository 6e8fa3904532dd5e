"""Insults and obscenity, by a small classifier: the extra `toxicity`.

In: a frame of the view. Out: verdicts with the reason `toxic`; the score is the highest probability of a sentence, 0..1.
Guarantee: offline; code and what is said in quotation marks or dialogue is not looked at.
The model is that of alt-profanity-check 1.9 (MIT, 1 MB, a linear support vector machine over English words, learnt from 200,000
comments): it knows rude words, not ideas. A calm sentence that wants people shot gets 0.3, "Sex chromosomes are X and Y" 0.92,
"The cock crowed at dawn" 0.99; hence the high bound, and `on_reject: flag` is the way to use it.
Rejected: detoxify and its like (Apache, but their weights are on a hub), rules by word (`flagged_words` is that).
"""

import re
from importlib.util import find_spec

import polars as pl
from pydantic import Field

from synthgen.errors import UsageError
from synthgen.plugins import Plugin
from synthgen.recipe.model import Strict
from synthgen.refine.filters.text import completion, unquoted
from synthgen.refine.verdict import Verdicts

__all__ = ["TOXICITY", "ToxicityParams", "toxicity"]

_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")


class ToxicityParams(Strict):
    """`max_score`: highest probability that is kept. 0.95 finds open insults and none of the tests' fifty good answers."""

    max_score: float = Field(default=0.95, ge=0, lt=1)


def toxicity(frame: pl.DataFrame, params: ToxicityParams) -> Verdicts:
    """A sentence is more likely an insult than allowed; `detail` is that sentence. Empty answers have no score.

    Raises:
        UsageError: the classifier is not installed.
    """
    if find_spec("profanity_check") is None:
        raise UsageError("filter 'toxicity' needs alt-profanity-check: pip install 'synthgen[toxicity]'")
    from profanity_check import predict_prob

    texts = unquoted(frame.select(completion()).to_series()).to_list()
    sentences = [
        (row, part) for row, text in enumerate(texts) for part in _SENTENCE.split(text) if part.strip()
    ]
    schema = {"row": pl.Int64(), "sentence": pl.String()}
    probabilities = predict_prob([part for _, part in sentences]) if sentences else []
    worst = (
        pl.DataFrame(sentences, schema=schema, orient="row")
        .with_columns(score=pl.Series(probabilities, dtype=pl.Float64))
        .sort("row", "score", descending=[False, True], maintain_order=True)
        .unique("row", keep="first", maintain_order=True)
    )
    rows = pl.DataFrame({"row": pl.Series(range(frame.height), dtype=pl.Int64)})
    hit = pl.col("score") > params.max_score
    out = rows.join(worst, on="row", how="left", maintain_order="left").select(
        "score",
        reason=pl.when(hit).then(pl.lit("toxic")).cast(pl.String),
        detail=pl.when(hit).then(pl.col("sentence").str.strip_chars().str.head(200)),
        threshold=pl.when(hit).then(pl.lit(params.max_score)),
    )
    return Verdicts(out["reason"], out["score"], out["detail"], out["threshold"])


TOXICITY = Plugin("toxicity", ToxicityParams, toxicity)
