"""Where the words of texts begin and end, a batch at a time in numpy.

In: a list of texts. Out: their case-folded UTF-8 behind one another, and the places of the tokens in it.
Guarantees: what a token is (`synthgen.refine.shingles`) is said by `Alphabet` alone; a text's tokens do not depend on the
texts beside it.
Rejected: code points of 32 bits (four times the bytes for texts that are nearly all ASCII, and places to be translated
back). Bytes below 0x80 are told apart by a table; the few characters above are decoded one by one, in arrays.

Axes: C bytes of the batch, W characters above ASCII, T tokens, N texts.
"""

# ruff: noqa: N803, N806, N815  # arrays carry their axes in their names
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from synthgen.dataclasses import dataclass
from synthgen.refine.alphabet import DIGIT, EXPANDS, KIND_SHIFT, MARK, POINT, SOLO, SPACE, WORD, Alphabet

__all__ = ["Cut", "cut_texts", "flag_characters", "numeric_tokens"]

_ALPHABET = Alphabet()
_PAD = bytes(8)  # a word may be read eight bytes at a time
_LOWER = bytes(range(256)).lower()
_SIZE = np.array(
    [1] * 0xC0 + [2] * 0x20 + [3] * 0x10 + [4] * 0x10, np.int64
)  # of a character, by its first byte
_FIRST_BITS = np.array([0, 0x7F, 0x1F, 0x0F, 0x07], np.int64)


def _table(*kinds: int, digits: bool = False) -> bytes:
    """For `bytes.translate`: 1 for ASCII of these kinds, 0 for anything else."""
    entries = [int(_ALPHABET.entry_X[point]) for point in range(0x80)]
    return bytes(e >> KIND_SHIFT & 7 in kinds and (not digits or e & DIGIT > 0) for e in entries) + bytes(
        0x80
    )


_WORD_TABLE, _SPACE_TABLE = _table(WORD, MARK), _table(SPACE)
_DIGIT_TABLE = _table(WORD, digits=True)


@dataclass(frozen=True, slots=True)
class Cut:
    """`folded`: the texts with a line feed behind each, and eight bytes more. `first_T`, `end_T`: where tokens begin and
    end in it; `text_T`: the text each stands in. `end_N`: behind each text's line feed. `wide_W`, `entry_W`: where characters above ASCII begin, and their entries."""

    folded: bytes
    first_T: NDArray[np.int64]
    end_T: NDArray[np.int64]
    text_T: NDArray[np.int64]
    wide_W: NDArray[np.int64]
    entry_W: NDArray[np.uint32]
    end_N: NDArray[np.int64]


def cut_texts(texts: Sequence[str], *, characters: bool = False) -> Cut:
    """The words of all texts; with `characters`, each character but white space."""
    parts = [text.encode("utf-8", "replace") for text in texts]
    folded, byte_C, wide_W, entry_W = _folded(parts)
    if wide_W.size and not _folds_to_itself(byte_C, wide_W, entry_W):
        parts = [
            part if text.isascii() else text.casefold().encode("utf-8", "replace")
            for text, part in zip(texts, parts, strict=True)
        ]
        folded, byte_C, wide_W, entry_W = _folded(parts)
    kind_W = entry_W >> np.uint32(KIND_SHIFT) & np.uint32(7)
    if characters:
        first_T, end_T = _characters(folded, byte_C, wide_W, kind_W)
    else:
        first_T, end_T = _words(folded, byte_C, wide_W, kind_W)
    end_N = np.cumsum([len(part) + 1 for part in parts], dtype=np.int64)
    per_text_N = np.diff(np.searchsorted(first_T, end_N), prepend=0)
    return Cut(folded, first_T, end_T, np.repeat(np.arange(len(texts)), per_text_N), wide_W, entry_W, end_N)


def numeric_tokens(cut: Cut) -> NDArray[np.bool_]:
    """Which tokens are digits only."""
    digit_C = np.frombuffer(bytearray(cut.folded.translate(_DIGIT_TABLE)), np.uint8)
    digits_W = cut.wide_W[cut.entry_W & np.uint32(DIGIT) != 0]
    if digits_W.size:
        byte_C = np.frombuffer(cut.folded, np.uint8)
        flag_characters(digit_C, byte_C, digits_W)
    numeric_T: NDArray[np.bool_] = digit_C[cut.first_T] != 0
    left_T = np.flatnonzero(numeric_T)
    at_L = cut.first_T[left_T]
    while left_T.size:
        at_L = at_L + 1
        inside_L = at_L < cut.end_T[left_T]
        wrong_L = inside_L & (digit_C[at_L] == 0)
        numeric_T[left_T[wrong_L]] = False
        on_L = inside_L & ~wrong_L
        left_T, at_L = left_T[on_L], at_L[on_L]
    return numeric_T


def _folded(
    parts: Sequence[bytes],
) -> tuple[bytes, NDArray[np.uint8], NDArray[np.int64], NDArray[np.uint32]]:
    """All texts, ASCII in lower case; the same as an array; where characters above ASCII begin, and their entries."""
    folded = b"\n".join([*parts, _PAD]).translate(_LOWER)
    byte_C = np.frombuffer(folded, np.uint8)
    if folded.isascii():
        return folded, byte_C, np.empty(0, np.int64), np.empty(0, np.uint32)
    wide_W = np.flatnonzero(byte_C >= 0xC0)
    point_W = _points(byte_C, wide_W)
    entry_W = _ALPHABET.entry_X[point_W]
    if unknown := set(point_W[entry_W == 0].tolist()):
        _ALPHABET.learn(unknown)
        entry_W = _ALPHABET.entry_X[point_W]
    return folded, byte_C, wide_W, entry_W


def _points(byte_C: NDArray[np.uint8], wide_W: NDArray[np.int64]) -> NDArray[np.int64]:
    """The code points that begin there."""
    first_W = byte_C[wide_W]
    size_W = _SIZE[first_W]
    point_W: NDArray[np.int64] = first_W & _FIRST_BITS[size_W]
    for k in range(1, 4):
        longer = np.flatnonzero(size_W > k)
        point_W[longer] = point_W[longer] << 6 | byte_C[wide_W[longer] + k] & np.int64(0x3F)
    return point_W


def _folds_to_itself(
    byte_C: NDArray[np.uint8], wide_W: NDArray[np.int64], entry_W: NDArray[np.uint32]
) -> bool:
    """Whether case folding changes none of these."""
    expands = (entry_W & np.uint32(EXPANDS)).any()
    return bool(not expands and (entry_W & np.uint32(POINT) == _points(byte_C, wide_W)).all())


def flag_characters(
    flag_C: NDArray[np.uint8], byte_C: NDArray[np.uint8], first_W: NDArray[np.int64], flag: int = 1
) -> None:
    """Give all bytes of the characters that begin there this flag."""
    size_W = _SIZE[byte_C[first_W]]
    for k in range(4):
        flag_C[first_W[size_W > k] + k] = flag


def _characters(
    folded: bytes, byte_C: NDArray[np.uint8], wide_W: NDArray[np.int64], kind_W: NDArray[np.uint32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where each character begins and ends, but for white space and what stands behind the last text."""
    space_C = np.frombuffer(bytearray(folded.translate(_SPACE_TABLE)), np.uint8)
    space_C[byte_C & 0xC0 == 0x80] = 1
    space_C[wide_W[kind_W == SPACE]] = 1
    space_C[len(folded) - len(_PAD) :] = 1
    first_T = np.flatnonzero(space_C == 0)
    return first_T, first_T + _SIZE[byte_C[first_T]]


def _words(
    folded: bytes, byte_C: NDArray[np.uint8], wide_W: NDArray[np.int64], kind_W: NDArray[np.uint32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where each word, or character of a script without spaces, begins and ends."""
    word_C1 = np.frombuffer(bytearray(b"\0" + folded.translate(_WORD_TABLE)), np.uint8)
    word_C = word_C1[1:]
    if wide_W.size:
        flag_characters(word_C, byte_C, wide_W[(kind_W == WORD) | (kind_W == MARK)])
    edge_E = np.flatnonzero(word_C1[1:] != word_C1[:-1])
    first_T, end_T = edge_E[::2], edge_E[1::2]
    if (kind_W == MARK).any():  # marks alone are no word
        mark_C = np.zeros(byte_C.size, np.uint8)
        flag_characters(mark_C, byte_C, wide_W[kind_W == MARK])
        before_C1 = np.append(0, np.cumsum(mark_C, dtype=np.int64))
        real_T = before_C1[end_T] - before_C1[first_T] < end_T - first_T
        first_T, end_T = first_T[real_T], end_T[real_T]
    solo_W = wide_W[kind_W == SOLO]
    if solo_W.size:
        first_T = np.concatenate([first_T, solo_W])
        by_place = np.argsort(first_T, kind="stable")
        first_T = first_T[by_place]
        end_T = np.concatenate([end_T, solo_W + _SIZE[byte_C[solo_W]]])[by_place]
    return first_T, end_T
