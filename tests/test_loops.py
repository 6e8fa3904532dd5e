"""Repeated words, lines and characters: counted alike by numpy and by the compiled pass."""

import random

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthgen.refine.loops import Loops, loops_of

MEASURES = Loops.__slots__


def both(texts: list[str]) -> tuple[Loops, Loops]:
    pytest.importorskip("numba")
    series = pl.Series(texts, dtype=pl.String)
    return loops_of(series, kernel=True), loops_of(series, kernel=False)


def looping(draw: random.Random) -> str:
    words = ["loop", "Straße", "12", "so.", "Now we say it all again!", "中文句子。", "हिन्दी", "\n"]
    words = draw.sample(words, draw.choice([2, 3, len(words)]))
    return " ".join(draw.choice(words) for _ in range(draw.choice([0, 3, 30, 300])))


@settings(max_examples=100, deadline=None)
@given(texts=st.lists(st.text(max_size=120), max_size=8))
def test_the_compiled_pass_counts_what_numpy_counts(texts: list[str]) -> None:
    compiled, plain = both(texts)

    for measure in MEASURES:
        assert np.array_equal(getattr(compiled, measure), getattr(plain, measure)), measure


def test_the_compiled_pass_counts_loops_as_numpy_does() -> None:
    draw = random.Random(3)

    compiled, plain = both([looping(draw) for _ in range(300)])

    assert plain.dup_ngram_N.max() > 0.5
    assert plain.dup_line_N.max() > 0.5
    for measure in MEASURES:
        assert np.array_equal(getattr(compiled, measure), getattr(plain, measure)), measure


@pytest.mark.parametrize("kernel", [False, None])
def test_a_line_said_twice_is_half_repeated(kernel: bool | None) -> None:
    loops = loops_of(pl.Series(["We said it before.\n  WE said it before!  "]), kernel=kernel)

    assert loops.line_repeat_N.tolist() == [1]
    assert loops.dup_line_N.tolist() == [0.5]


@pytest.mark.parametrize("kernel", [False, None])
def test_a_text_is_counted_alike_alone_and_among_others(kernel: bool | None) -> None:
    texts = ["one two", "", "three  four\nfive", "ß", "six."]

    together = loops_of(pl.Series(texts), kernel=kernel)

    alone = [loops_of(pl.Series([text]), kernel=kernel) for text in texts]
    for measure in MEASURES:
        assert getattr(together, measure).tolist() == [getattr(each, measure)[0] for each in alone]
