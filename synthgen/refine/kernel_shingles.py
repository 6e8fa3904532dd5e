"""The hot loops over characters, compiled: UTF-8 bytes to the hashes of words and shingles.

In: one buffer with the UTF-8 bytes of many texts, and where each begins. Out: hashes, in arrays the caller allocated.
Guarantees: every value equals the one `synthgen.refine.shingles` computes with numpy (tests compare them), so whether
numba is installed changes the speed and nothing else; the loops do not hold the interpreter's lock, so that threads
work side by side.
Rejected: numba's own parallel loops (its thread pool must not be entered from several threads), and a compiled wheel
(one per platform, for what a first call of seconds makes and a cache on disk keeps).

Loops run over slices by their own counter, or by unsigned numbers: numba then needs no code for negative places, and
LLVM works on eight shingles at once.

Axes: C bytes, X code points, T tokens, G shingles, repeats included, N texts.
"""

# ruff: noqa: N803, N806  # arrays carry their axes in their names
from collections.abc import Callable
from typing import TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

from synthgen.refine.alphabet import EXPANDS, KIND_SHIFT, MARK, POINT, SOLO, SPACE, WORD
from synthgen.refine.shingles import CHAR_BASE, I64, U32, U64

__all__ = ["U8", "char_powers", "compiled", "decode", "scratch_size", "shingle_text", "unknown_points"]

F = TypeVar("F", bound=Callable[..., object])
U8 = NDArray[np.uint8]

_CHAR_BASE = np.uint64(CHAR_BASE)
_CHAR_INVERSE = np.uint64(pow(CHAR_BASE, -1, 1 << 64))
_MIX_A = np.uint64(0xFF51AFD7ED558CCD)
_MIX_B = np.uint64(0xC4CEB9FE1A85EC53)
_ZERO, _ONE, _33 = (np.uint64(x) for x in (0, 1, 33))


def compiled(function: F) -> F:
    """Compiled at its first call; the machine code stays in numba's cache on disk, where there is a place for one."""
    try:
        return cast(F, numba.njit(cache=True, nogil=True, error_model="numpy")(function))
    except RuntimeError:  # neither the package nor the user's cache folder can be written
        return cast(F, numba.njit(nogil=True, error_model="numpy")(function))


@compiled
def mix(h: np.uint64) -> np.uint64:
    """MurmurHash3's 64-bit finaliser."""
    h ^= h >> _33
    h *= _MIX_A
    h ^= h >> _33
    h *= _MIX_B
    return h ^ (h >> _33)


@compiled
def decode(buffer_C: U8, i: int) -> tuple[np.int64, int]:
    """The code point that begins at `i` in valid UTF-8, and how many bytes it takes."""
    first = np.int64(buffer_C[i])
    if first < 0x80:
        return first, 1
    second = np.int64(buffer_C[i + 1]) & 0x3F
    if first < 0xE0:
        return (first & 0x1F) << 6 | second, 2
    third = np.int64(buffer_C[i + 2]) & 0x3F
    if first < 0xF0:
        return (first & 0x0F) << 12 | second << 6 | third, 3
    return (first & 0x07) << 18 | second << 12 | third << 6 | (np.int64(buffer_C[i + 3]) & 0x3F), 4


@compiled
def unknown_points(buffer_C: U8, entry_X: U32, found: I64) -> int:
    """Code points without an entry, each once until `found` is full; returns how many there are in it."""
    count = 0
    i = 0
    while i < buffer_C.size:
        if buffer_C[i] < 0x80:
            i += 1
            continue
        point, size = decode(buffer_C, i)
        i += size
        if entry_X[point] == 0:
            known = False
            for k in range(count):
                if found[k] == point:
                    known = True
            if not known:
                found[count] = point
                count += 1
                if count == found.size:
                    break
    return int(count)


@compiled
def _words(
    buffer_C: U8, start: int, end: int, entry_X: U32, expansion_X3: U32, word_C: U64, token_T: U64
) -> int:
    """Hashes of the words of one text; returns how many, -1 if a character is not in the tables yet. `word_C` maps a byte to its mixed character, 0 where it is none of an ASCII word."""
    count = 0
    h = _ZERO
    power = _ONE
    letters = False  # marks alone are no word
    i = start
    while i < end:
        mixed = word_C[buffer_C[i]]
        letters |= mixed != _ZERO
        while mixed != _ZERO:
            h += mixed * power
            power *= _CHAR_BASE
            i += 1
            mixed = word_C[buffer_C[i]] if i < end else _ZERO
        if i == end:
            break
        if buffer_C[i] < 0x80:
            i += 1
            if power != _ONE:
                token_T[count] = mix(h)
                count += letters
                h = _ZERO
                power = _ONE
                letters = False
            continue
        point, size = decode(buffer_C, i)
        i += size
        entry = entry_X[point]
        if entry == 0:
            return -1
        for k in range(3):
            folded = entry
            if entry & EXPANDS:
                folded = expansion_X3[entry & POINT, k]
            elif k > 0:
                folded = np.uint32(0)
            if folded == 0:
                break
            kind = (folded >> KIND_SHIFT) & 7
            if (kind == WORD) | (kind == MARK):
                letters |= kind == WORD
                h += mix(np.uint64(folded & POINT)) * power
                power *= _CHAR_BASE
                continue
            if power != _ONE:
                token_T[count] = mix(h)
                count += letters
                h = _ZERO
                power = _ONE
                letters = False
            if kind == SOLO:
                token_T[count] = mix(mix(np.uint64(folded & POINT)))
                count += 1
    if power != _ONE:
        token_T[count] = mix(h)
        count += letters
    return int(count)


@compiled
def _plain_words(
    text_C: U8, entry_X: U32, word_C: U64, power_C: U64, inverse_C: U64, edge_T: I64, sum_T: U64, token_T: U64
) -> int:
    """The same as `_words` where each character is one of a word or of none, without a branch that is guessed wrong at
    every word; -1 if there are others, or one that is not in the tables yet.

    Prefix sums of the weighted characters, noted at each edge of a word: their difference, moved back to the first
    power, is the word.
    """
    high = np.uint8(0)
    for i in range(text_C.size):
        high |= text_C[i]
    total = _ZERO
    edges = _ZERO
    before = False
    characters = text_C.size
    if high < 0x80:
        for i in range(text_C.size):
            mixed = word_C[text_C[i]]
            inside = mixed != _ZERO
            edge_T[edges] = i
            sum_T[edges] = total
            edges += np.uint64(inside ^ before)
            total += mixed * power_C[i]
            before = inside
    else:
        characters = 0
        i = 0
        while i < text_C.size:
            mixed = word_C[text_C[i]]
            if text_C[i] < 0x80:
                i += 1
            else:
                point, size = decode(text_C, i)
                i += size
                entry = entry_X[point]
                kind = (entry >> KIND_SHIFT) & 7
                if (entry == 0) | (entry & EXPANDS != 0) | (kind == SOLO) | (kind == MARK):
                    return -1
                if kind == WORD:
                    mixed = mix(np.uint64(entry & POINT))
            inside = mixed != _ZERO
            edge_T[edges] = characters
            sum_T[edges] = total
            edges += np.uint64(inside ^ before)
            total += mixed * power_C[characters]
            before = inside
            characters += 1
    edge_T[edges] = characters
    sum_T[edges] = total
    words_T = token_T[: (np.int64(edges) + 1) // 2]
    for t in range(words_T.size):
        words_T[t] = (sum_T[2 * t + 1] - sum_T[2 * t]) * inverse_C[edge_T[2 * t]]
    for t in range(words_T.size):
        words_T[t] = mix(words_T[t])
    return int(words_T.size)


@compiled
def char_powers(offset_N1: I64) -> tuple[U64, U64]:
    """`CHAR_BASE` and its inverse mod 2^64 to the powers that the longest text needs."""
    longest = np.int64(0)
    for i in range(offset_N1.size - 1):
        longest = max(longest, offset_N1[i + 1] - offset_N1[i])
    power_C = np.empty(longest + 2, np.uint64)
    inverse_C = np.empty(longest + 2, np.uint64)
    power_C[0] = inverse_C[0] = _ONE
    for i in range(longest + 1):
        power_C[i + 1] = power_C[i] * _CHAR_BASE
        inverse_C[i + 1] = inverse_C[i] * _CHAR_INVERSE
    return power_C, inverse_C


@compiled
def _characters(
    buffer_C: U8, start: int, end: int, entry_X: U32, expansion_X3: U32, n: int, token_T: U64
) -> int:
    """Hashes of all characters but white space, and `n - 1` of NUL if there are any; returns how many, or -1."""
    count = 0
    i = start
    while i < end:
        point, size = decode(buffer_C, i)
        i += size
        entry = entry_X[point]
        if entry == 0:
            return -1
        for k in range(3):
            folded = entry
            if entry & EXPANDS:
                folded = expansion_X3[entry & POINT, k]
            elif k > 0:
                folded = np.uint32(0)
            if folded == 0:
                break
            if (folded >> KIND_SHIFT) & 7 != SPACE:
                token_T[count] = mix(mix(np.uint64(folded & POINT)))
                count += 1
    if count > 0:
        for _ in range(n - 1):
            token_T[count] = _ZERO
            count += 1
    return int(count)


@compiled
def shingle_text(
    buffer_C: U8,
    start: int,
    end: int,
    entry_X: U32,
    expansion_X3: U32,
    word_C: U64,
    power_T: U64,
    words: bool,
    power_C: U64,
    inverse_C: U64,
    edge_T: I64,
    token_T: U64,
    hash_T: U64,
) -> int:
    """The shingles of one text into `hash_T`, its tokens into `token_T`; returns how many, repeats included, or -1."""
    n = power_T.size
    count = -1
    letters = False
    if words:
        count = _plain_words(
            buffer_C[start:end], entry_X, word_C, power_C, inverse_C, edge_T, hash_T, token_T
        )
        if count < 0:
            count = _words(buffer_C, start, end, entry_X, expansion_X3, word_C, token_T)
            if count < 0:
                return -1
    if count < n:
        count = _characters(buffer_C, start, end, entry_X, expansion_X3, n, token_T)
        letters = True
        if count < 0:
            return -1
    hash_G = hash_T[: max(count - n + 1, 0)]
    hash_G[:] = _ZERO
    for k in range(n):
        next_G = token_T[k : k + hash_G.size]
        power = power_T[k]
        for g in range(hash_G.size):
            hash_G[g] += next_G[g] * power
    for g in range(hash_G.size):
        hash_G[g] = mix(hash_G[g])
    if letters:
        for g in range(hash_G.size):
            hash_G[g] = mix(hash_G[g] ^ _CHAR_BASE)
    return int(hash_G.size)


@compiled
def scratch_size(offset_N1: I64, n: int) -> int:
    """Tokens that the longest text can have: a character of two bytes may fold to three."""
    longest = 0
    for i in range(offset_N1.size - 1):
        longest = max(longest, offset_N1[i + 1] - offset_N1[i])
    return int(longest * 3 // 2 + n + 4)
