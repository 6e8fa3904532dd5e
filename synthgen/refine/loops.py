"""How much of a text is said more than once: words, lines and characters, a whole column at a time.

In: a polars String series. Out: one number a text and measure. Guarantees: case does not count; a text's values do not
depend on the texts beside it, nor on whether the compiled pass (numba, extra `fast`) is there: both count the same
hashes. Tokens are those of `synthgen.refine.shingles`.
Rejected: one pass a measure. Cutting a text into words is most of the work, whatever is counted then.

A line ends at a line break or at the end of a sentence; white space around it does not count.

Axes: C folded bytes of the batch, W stretches or characters above ASCII, T tokens, G n-grams, R different n-grams, L lines, N texts.
"""

# ruff: noqa: N803, N806, N815  # arrays carry their axes in their names
import importlib.util
import sys

import numpy as np
import polars as pl
from numpy.typing import NDArray

from synthgen.dataclasses import dataclass
from synthgen.refine.alphabet import KIND_SHIFT, POINT, SPACE
from synthgen.refine.cut import Cut, cut_texts, flag_characters
from synthgen.refine.loops_rule import ENDS, KEY_SHIFT, LINE_BYTES, LONG, SHORT
from synthgen.refine.shingles import (
    CHAR_BASE,
    F64,
    I64,
    Bools,
    Tokens,
    ngrams,
    tokens_in,
)

__all__ = ["Loops", "loops_of", "worth_compiling"]

_WORTH_BYTES = 8 << 20  # the compiled pass saves 0.1 s of CPU a megabyte, and numba takes about a second
_PLACES = 8
_SPACE, _END, _REST = 1, 2, 4  # a line break is both of the first; the rest of the bytes of an end
_KIND_X = bytes(
    _SPACE * chr(byte).isspace() | _END * (chr(byte) in ENDS) if byte < 128 else 0 for byte in range(256)
)
_WIDE_ENDS = np.array([ord(end) for end in ENDS if ord(end) >= 128], np.uint32)


@dataclass(frozen=True, slots=True)
class Loops:
    """Per text. `words_N`; `dup_ngram_N`: share of the 8-word runs that stood in the text before; `top_ngram_N`:
    share of the text its most frequent 4-word run covers, 0 where none comes twice; `dup_line_N`: share of the
    characters in lines of 15 bytes or more that stood there before; `line_repeat_N`: how many such lines there are;
    `solid_N`: at least the length of the longest run without white space (folding may lengthen it).

    Runs of words that are mostly numbers do not count: a table of zeros is no loop.
    """

    words_N: I64
    dup_ngram_N: F64
    top_ngram_N: F64
    dup_line_N: F64
    line_repeat_N: I64
    solid_N: I64


def loops_of(text: pl.Series, *, kernel: bool | None = None) -> Loops:
    """Measure every text; null is an empty one.

    `kernel`: None means the compiled pass where numba is loaded already, or installed and worth the second it takes.
    """
    text = text.fill_null("")
    if kernel if kernel is not None else worth_compiling(text):
        from synthgen.refine.loops_kernel import compiled_loops

        return Loops(*compiled_loops(text))
    return _measured(cut_texts(text.to_list()))


def worth_compiling(text: pl.Series) -> bool:
    """Whether the compiled pass is there and worth the second that numba takes."""
    if "numba" in sys.modules:
        return True
    large = (text.str.len_bytes().sum() or 0) >= _WORTH_BYTES
    return large and importlib.util.find_spec("numba") is not None


def _measured(cut: Cut) -> Loops:
    tokens, texts = tokens_in(cut), cut.end_N.size
    words_N = np.bincount(tokens.text_T, minlength=texts)
    text_R, size_R = _runs(tokens, LONG)
    all_N = np.bincount(text_R, weights=size_R, minlength=texts)
    dup_N = (all_N - np.bincount(text_R, minlength=texts)) / np.maximum(all_N, 1)
    text_R, size_R = _runs(tokens, SHORT)
    top_N = np.zeros(texts, np.int64)
    np.maximum.at(top_N, text_R, size_R)
    top_N[top_N == 1] = 0
    share_N = np.minimum(top_N * SHORT / np.maximum(words_N, 1), 1.0)
    return Loops(words_N, dup_N, share_N, *_lines(cut))


def _runs(tokens: Tokens, n: int) -> tuple[I64, I64]:
    """`text_R`, `size_R` of every different n-gram that is not mostly numbers: its text, and how often it stands there.

    Sorted by text and part of the hash in one number.
    """
    grams = ngrams(tokens, n)
    if grams.start_G.size == 0:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    key_G = grams.text_G.astype(np.uint64) << np.uint64(64 - KEY_SHIFT) | grams.hash_G >> np.uint64(KEY_SHIFT)
    numbers_T1 = np.append(0, np.cumsum(tokens.numeric_T))
    key_G = np.sort(key_G[(numbers_T1[grams.start_G + n] - numbers_T1[grams.start_G]) * 2 <= n])
    first_R = np.flatnonzero(np.diff(key_G, prepend=np.uint64(2**64 - 1)))
    return (key_G[first_R] >> np.uint64(64 - KEY_SHIFT)).astype(np.int64), np.diff(first_R, append=key_G.size)


def _lines(cut: Cut) -> tuple[F64, I64, I64]:
    """Share of repeated characters, number of repeats, and longest run without white space of every text."""
    byte_C = np.frombuffer(cut.folded, np.uint8)
    kind_C, sizes = _kinds(cut, byte_C), _Sizes(byte_C, wide=cut.wide_W.size > 0)
    texts = cut.end_N.size
    solid_N = np.zeros(texts, np.int64)
    first_W, end_W = _stretches(kind_C & _SPACE == 0)
    begin_N = np.searchsorted(first_W, np.append(0, cut.end_N)[:texts])
    filled_N = np.diff(begin_N, append=first_W.size) > 0
    if first_W.size:
        solid_N[filled_N] = np.maximum.reduceat(sizes.of(first_W, end_W), begin_N[filled_N])
    # A line's own characters: from its first to its last that is no white space.
    first_W, end_W = _stretches(kind_C == 0)
    stop_L = np.flatnonzero(kind_C & _END)
    first_L = np.append(first_W, byte_C.size)[np.searchsorted(first_W, np.append(0, stop_L)[: stop_L.size])]
    last_L = np.append(end_W, 0)[np.searchsorted(end_W, stop_L, side="right") - 1]
    long_L = last_L - first_L >= LINE_BYTES
    first_L, last_L = first_L[long_L], last_L[long_L]
    text_L, size_L = np.searchsorted(cut.end_N, first_L, side="right"), sizes.of(first_L, last_L)
    again_L = _again(byte_C, first_L, last_L - first_L, text_L)
    all_N = np.bincount(text_L, weights=size_L, minlength=texts)
    repeated_N = np.bincount(text_L[again_L], weights=size_L[again_L], minlength=texts)
    return repeated_N / np.maximum(all_N, 1), np.bincount(text_L[again_L], minlength=texts), solid_N


def _kinds(cut: Cut, byte_C: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What each byte is to a line; what stands behind the last text is white space."""
    kind_C = np.frombuffer(bytearray(cut.folded.translate(_KIND_X)), np.uint8)
    kind_C[cut.end_N[-1] if cut.end_N.size else 0 :] = _SPACE
    space_W = cut.wide_W[cut.entry_W >> np.uint32(KIND_SHIFT) & np.uint32(7) == SPACE]
    flag_characters(kind_C, byte_C, space_W, _SPACE)
    end_W = cut.wide_W[np.isin(cut.entry_W & np.uint32(POINT), _WIDE_ENDS)]
    flag_characters(kind_C, byte_C, end_W, _REST)
    kind_C[end_W] = _END
    return kind_C


class _Sizes:
    """Characters in stretches of bytes."""

    def __init__(self, byte_C: NDArray[np.uint8], *, wide: bool) -> None:
        self._before_C1 = np.append(0, np.cumsum(byte_C & 0xC0 != 0x80)) if wide else None

    def of(self, first_L: I64, last_L: I64) -> I64:
        before_C1 = self._before_C1
        return last_L - first_L if before_C1 is None else before_C1[last_L] - before_C1[first_L]


def _again(byte_C: NDArray[np.uint8], first_L: I64, size_L: I64, text_L: I64) -> Bools:
    """Which lines stood in their text before. Only those are compared that are alike in length and in a few places."""
    alike_L = size_L.astype(np.uint64)
    for place in range(_PLACES):
        alike_L = alike_L * np.uint64(CHAR_BASE) + byte_C[first_L + (size_L - 1) * place // (_PLACES - 1)]
    order = np.lexsort((alike_L, text_L))
    same = (alike_L[order[1:]] == alike_L[order[:-1]]) & (text_L[order[1:]] == text_L[order[:-1]])
    maybe_L = np.zeros(size_L.size, np.bool_)
    maybe_L[order[1:][same]] = maybe_L[order[:-1][same]] = True
    again_L = np.zeros(size_L.size, np.bool_)
    seen: set[tuple[int, bytes]] = set()
    for line in np.flatnonzero(maybe_L).tolist():
        said = int(text_L[line]), byte_C[first_L[line] : first_L[line] + size_L[line]].tobytes()
        again_L[line] = said in seen
        seen.add(said)
    return again_L


def _stretches(inside_C: Bools) -> tuple[I64, I64]:
    """Where each run of true values begins and ends; the last value is false."""
    edge_E = np.flatnonzero(np.diff(inside_C, prepend=False))
    return edge_E[::2], edge_E[1::2]
