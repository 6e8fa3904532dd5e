"""Columns of text as compiled loops read them: one array of UTF-8, and what each character is.

In: a polars String series. Out: numpy arrays. Guarantee: no Python object a text.
Rejected: a list of Python strings (an object a row, encoded once more).
"""

# ruff: noqa: N803, N806  # arrays carry their axes in their names
from collections.abc import Callable

import numpy as np
import polars as pl
from numpy.typing import NDArray

from synthgen.refine.alphabet import Alphabet
from synthgen.refine.kernel_shingles import unknown_points
from synthgen.refine.shingles import I64, U32

__all__ = ["Letters", "buffers_of"]

_USUAL = (range(0x80, 0x600), range(0x2000, 0x2800))  # Latin, Greek, Cyrillic, Hebrew; punctuation, symbols
_AT_ONCE = 256


class Letters:
    """The tables of an `Alphabet`, learnt as texts need them; the usual characters are known from the start."""

    def __init__(self) -> None:
        self._alphabet = Alphabet()
        for points in _USUAL:
            self._alphabet.learn(points)

    @property
    def tables(self) -> tuple[U32, U32]:
        """`entry_X`, `expansion_X3`."""
        return self._alphabet.entry_X, self._alphabet.expansion_X3

    def until_known(self, buffer_C: NDArray[np.uint8], work: Callable[[], bool]) -> None:
        """Do the work again after each batch of unknown characters, until it says that it knew all of them."""
        found = np.empty(_AT_ONCE, np.int64)
        while not work():
            while count := unknown_points(buffer_C, self._alphabet.entry_X, found):
                self._alphabet.learn(found[:count].tolist())


def buffers_of(texts: pl.Series) -> tuple[NDArray[np.uint8], I64]:
    """The UTF-8 bytes of all texts behind one another, and where each begins and ends."""
    size_N = texts.str.len_bytes()
    offset_N1 = np.zeros(len(texts) + 1, np.int64)
    np.cumsum(size_N.to_numpy(), out=offset_N1[1:])
    filled = texts.filter(size_N > 0)
    # Binary to lists of bytes to one column: polars' way to the bytes that needs no Python object per text.
    buffer_C = (
        filled.cast(pl.Binary)
        .cast(pl.List(pl.UInt8))
        .explode(empty_as_null=True, keep_nulls=True)
        .to_numpy()
        .view()
    )
    buffer_C.flags.writeable = False  # one type for the loops, wherever the bytes come from
    return buffer_C, offset_N1
