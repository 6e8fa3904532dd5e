"""What each character is to the shingles: how it folds, and whether it stands in a word.

In: code points. Out: one number per code point, in tables that arrays index. Guarantees: Python's own case folding and
character classes, so that texts cut here are cut like `str.casefold` and `str.isalnum` would; a code point is looked
up once per process.
Rejected: a table of all code points at once (half a second of start for some hundred that ever occur).

An entry holds the folded code point (21 bits), its kind (3 bits) and whether it is a digit (1 bit). Where a character
folds to several (ß to ss), the entry has `EXPANDS` and the number of a row of `expansion_X3` instead.
"""

# arrays carry their axes in their names
import unicodedata
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

__all__ = ["BREAK", "DIGIT", "EXPANDS", "KIND_SHIFT", "MARK", "POINT", "SOLO", "SPACE", "WORD", "Alphabet"]

SPACE, BREAK, WORD, SOLO, MARK = 1, 2, 3, 4, 5  # 0 is a code point nobody looked up yet
POINT = 0x1FFFFF
KIND_SHIFT = 21
DIGIT = 1 << 24
EXPANDS = 1 << 25

_CODE_POINTS = 0x110000
_ASCII = 128
# CJK radicals to unified ideographs, kana, compatibility and supplementary ideographs; Thai, Lao, Tibetan,
# Burmese, Khmer; half-width kana: scripts written without spaces between words.
_UNSPACED = (
    (0x0E00, 0x0FFF),
    (0x1000, 0x109F),
    (0x1780, 0x17FF),
    (0x2E80, 0x2FDF),
    (0x3005, 0x3007),
    (0x3040, 0x30FF),
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0xFF66, 0xFF9F),
    (0x20000, 0x323AF),
)
_VARIATION = ((0xFE00, 0xFE0F), (0xE0100, 0xE01EF))  # how an emoji is drawn is no part of a word


class Alphabet:
    """The tables, filled as code points are met. Threads may share one: filling writes the same values again."""

    def __init__(self) -> None:
        self.entry_X: NDArray[np.uint32] = np.zeros(_CODE_POINTS, np.uint32)
        # Python 3.11 to 3.14 fold 104 characters to two or three each.
        self.expansion_X3: NDArray[np.uint32] = np.zeros((256, 3), np.uint32)
        self._expansions: dict[int, int] = {}
        self.learn(range(_ASCII))

    def learn(self, points: Iterable[int]) -> None:
        """Fill the entries of these code points."""
        for point in points:
            folded = chr(point).casefold()
            if len(folded) == 1:
                self.entry_X[point] = _entry(folded)
                continue
            row = self._expansions.setdefault(point, len(self._expansions))
            for k, char in enumerate(folded):
                self.expansion_X3[row, k] = _entry(char)
            self.entry_X[point] = EXPANDS | row


def _entry(char: str) -> int:
    digit = DIGIT if char.isdigit() else 0
    return ord(char) | _kind(char) << KIND_SHIFT | digit


def _kind(char: str) -> int:
    if char.isspace():
        return SPACE
    letter = char.isalnum() or char == "_"
    mark = unicodedata.category(char) in ("Mn", "Mc") and not any(
        low <= ord(char) <= high for low, high in _VARIATION
    )
    if (letter or mark) and any(low <= ord(char) <= high for low, high in _UNSPACED):
        return SOLO
    return WORD if letter else MARK if mark else BREAK
