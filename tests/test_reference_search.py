"""Searching for a reference's n-grams: compiled and in numpy, the same ones."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthgen.refine.reference import Search, tokens_of
from synthgen.refine.shingles import Ngrams, ngrams

WORDS = st.sampled_from(
    ["sheep", "Straße", "12", "so,", "a_very_long_word_of_more_than_16", "中文", "हिन्दी", "e\u0301", "\n"]
)
TEXTS = st.lists(st.one_of(st.text(max_size=60), st.lists(WORDS, max_size=30).map(" ".join)), max_size=8)


@settings(max_examples=150, deadline=None)
@given(texts=TEXTS)
def test_the_compiled_search_cuts_the_tokens_that_numpy_cuts(texts: list[str]) -> None:
    pytest.importorskip("numba")
    series = pl.Series(texts, dtype=pl.String)

    compiled, plain = tokens_of(series, kernel=True), tokens_of(series, kernel=False)

    assert np.array_equal(compiled.hash_T, plain.hash_T)
    assert np.array_equal(compiled.text_T, plain.text_T)


@settings(max_examples=150, deadline=None)
@given(texts=TEXTS, n=st.integers(1, 13), bits=st.integers(0, 2**32 - 1))
def test_the_compiled_search_lets_the_same_ngrams_pass(texts: list[str], n: int, bits: int) -> None:
    pytest.importorskip("numba")
    tokens = tokens_of(pl.Series(texts, dtype=pl.String), kernel=False)
    maybe_X = np.array([bits >> place & 1 for place in range(32)], np.bool_)

    compiled, plain = (Search(tokens, kernel=kernel).maybe(n, maybe_X) for kernel in (True, False))

    for part in Ngrams.__slots__:
        assert np.array_equal(getattr(compiled, part), getattr(plain, part)), part


@given(texts=TEXTS, n=st.integers(1, 13))
def test_every_run_of_words_inside_one_text_is_an_ngram(texts: list[str], n: int) -> None:
    tokens = tokens_of(pl.Series(texts, dtype=pl.String), kernel=False)
    text_T = tokens.text_T.tolist()

    found = ngrams(tokens, n)

    starts = [t for t in range(len(text_T) - n + 1) if text_T[t] == text_T[t + n - 1]]
    assert found.start_G.tolist() == starts
    assert found.text_G.tolist() == [text_T[t] for t in starts]
    same = {tuple(tokens.hash_T[t : t + n].tolist()) for t in starts}
    assert len(set(found.hash_G.tolist())) == len(same)


@given(texts=TEXTS)
def test_tokens_do_not_depend_on_the_texts_beside(texts: list[str]) -> None:
    together = tokens_of(pl.Series(texts, dtype=pl.String), kernel=False)

    for place, text in enumerate(texts):
        alone = tokens_of(pl.Series([text]), kernel=False)
        assert np.array_equal(together.hash_T[together.text_T == place], alone.hash_T)
