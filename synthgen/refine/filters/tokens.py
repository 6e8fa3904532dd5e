"""Length in a student's own tokens.

In: a frame of the view, and a tokenizer's file. Out: verdicts with the reasons `tokens_short`, `tokens_long`; the score is the number of
tokens, without those a chat template adds.
Guarantee: the file is read once, and again when it changes. `length` counts characters and words and needs no file.
Rejected: a bundled vocabulary (bounds in one model's tokens are wrong for another's by a third), and names of a hub.
"""

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
from pydantic import Field, model_validator

from synthgen.errors import UsageError
from synthgen.plugins import Plugin
from synthgen.recipe.model import Strict
from synthgen.refine.filters.text import completion, prompt
from synthgen.refine.verdict import Verdicts

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["TOKENS", "TokensParams", "tokens"]


class TokensParams(Strict):
    """`tokenizer`: a `tokenizer.json`, or a checkpoint's folder with one, beside the chain. Bounds of None are none.
    `with_prompt`: the prompt is counted too, as a context's size bounds both."""

    tokenizer: str
    min_tokens: int = Field(default=0, ge=0)
    max_tokens: int | None = Field(default=None, ge=1)
    with_prompt: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> "TokensParams":
        if self.max_tokens is not None and self.max_tokens < self.min_tokens:
            raise ValueError(f"max_tokens = {self.max_tokens} is below min_tokens = {self.min_tokens}")
        return self


def tokens(frame: pl.DataFrame, params: TokensParams) -> Verdicts:
    """Too few or too many tokens.

    Raises:
        UsageError: there is no such file, it is no tokenizer, or `tokenizers` is not installed.
    """
    tokenizer = _load(params.tokenizer)
    asked = [completion(), *([prompt()] if params.with_prompt else [])]
    counts = [
        [len(one.ids) for one in tokenizer.encode_batch(frame.select(text).to_series().to_list(), add_special_tokens=False)]
        for text in asked
    ]  # fmt: skip
    score = pl.Series("score", [sum(each) for each in zip(*counts, strict=True)], pl.Float64)
    size, least, most = pl.col("score"), params.min_tokens, params.max_tokens
    long = (size > most) if most is not None else pl.lit(False)
    out = score.to_frame().select(
        "score",
        reason=pl.when(size < least)
        .then(pl.lit("tokens_short"))
        .when(long)
        .then(pl.lit("tokens_long"))
        .cast(pl.String),
        threshold=pl.when(size < least)
        .then(float(least))
        .when(long)
        .then(None if most is None else float(most))
        .cast(pl.Float64),
    )
    return Verdicts(out["reason"], out["score"], threshold=out["threshold"])


def _load(path: str) -> "Tokenizer":
    file = Path(path) / "tokenizer.json" if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise UsageError(
            f"filter 'tokens': {file}: there is no tokenizer; name a tokenizer.json, or a folder with one"
        )
    if find_spec("tokenizers") is None:
        raise UsageError(
            "filter 'tokens' needs tokenizers: pip install tokenizers (part of 'synthgen[train]')"
        )
    stat = file.stat()
    return _read(str(file), stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=4)
def _read(file: str, changed_ns: int, size_bytes: int) -> "Tokenizer":
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(file)
    except Exception as error:  # the library raises nothing narrower
        raise UsageError(f"filter 'tokens': {file}: is no tokenizer: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


TOKENS = Plugin("tokens", TokensParams, tokens, files=(("tokenizer", "tokenizer.json"),))
