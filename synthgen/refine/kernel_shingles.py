"""The hot loops over characters, compiled: UTF-8 bytes to words, and to the hashes of words and shingles.

In: one buffer with the UTF-8 bytes of many texts, and where each begins. Out: hashes, in arrays the caller allocated.
Guarantees: every value equals the one `synthgen.refine.shingles` computes with numpy (tests compare them), so whether
numba is installed changes the speed and nothing else; the loops do not hold the interpreter's lock, so that threads
work side by side.
Rejected: numba's own parallel loops (its thread pool must not be entered from several threads), and a compiled wheel
(one per platform, for what a first call of seconds makes and a cache on disk keeps).

    fold     eight bytes at once: ASCII is lowered and told apart by arithmetic on all of them (`_fold8`), anything else
             goes one character at a time through the alphabet's tables
    edges    one bit per folded byte says whether it stands in a word; where neighbours differ, a word begins or ends
    hash     words of up to sixteen bytes are two loads and three multiplications, eight words at once

Axes: C bytes, X code points, T tokens, W sixty-fours of bytes, E edges of words, G shingles, repeats included, N texts.
"""

# ruff: noqa: N803, N806, N815  # arrays carry their axes in their names
from typing import NamedTuple

import numpy as np

from synthgen.refine.alphabet import EXPANDS, KIND_SHIFT, MARK, POINT, SOLO, SPACE, WORD
from synthgen.refine.kernel_bits import U8, compiled, load64, ones, store64, trailing_zeros
from synthgen.refine.kernel_lanes import EIGHT, MIX_A, MIX_B, hash_shingles, hash_words
from synthgen.refine.shingles import CHAR_BASE, CHUNK_BASE, I64, U32, U64

__all__ = [
    "Scratch",
    "Tables",
    "cut",
    "decode",
    "hash_tokens",
    "mix",
    "new_scratch",
    "shingle_text",
    "unknown_points",
]

_CHAR_BASE, _CHUNK_BASE = np.uint64(CHAR_BASE), np.uint64(CHUNK_BASE)
_MIX_A, _MIX_B = np.uint64(MIX_A), np.uint64(MIX_B)
_ZERO, _ONE, _2, _7, _33, _56, _63 = (np.uint64(x) for x in (0, 1, 2, 7, 33, 56, 63))
_HIGH = np.uint64(0x8080808080808080)
_EACH = np.uint64(0x0101010101010101)
# Bit 0 of each byte, times this, meets the others side by side in the highest byte.
_GATHER = np.uint64(0x0102040810204080)
# Adding 0x80 - c to a byte below 0x80 sets its highest bit from c on.
_FROM_UPPER_A, _PAST_UPPER_Z = _EACH * np.uint64(0x80 - ord("A")), _EACH * np.uint64(0x80 - ord("Z") - 1)
_FROM_A, _PAST_Z = _EACH * np.uint64(0x80 - ord("a")), _EACH * np.uint64(0x80 - ord("z") - 1)
_FROM_0, _PAST_9 = _EACH * np.uint64(0x80 - ord("0")), _EACH * np.uint64(0x80 - ord("9") - 1)
_FROM_1, _LINE = _EACH * np.uint64(0x7F), _EACH * np.uint64(ord("_"))
# The lowest n bytes of a chunk.
_KEEP = np.array([(1 << 8 * n) - 1 for n in range(9)], np.uint64)
_USUAL_EDGES = 24  # of words in 64 bytes
_SLACK = 128  # bytes that a load, a store or a block of bits may reach past the end


class Tables(NamedTuple):
    """What the loops look up: the alphabet's tables, and `TOKEN_BASE` to the powers that a shingle needs."""

    entry_X: U32
    expansion_X3: U32
    power_T: U64


class Scratch(NamedTuple):
    """What the loops write for one text. `text_C` folded; `flag_C`: 1 in a word, 3 for a mark in one, else 0; `bits_C`: a bit
    for each of them; `edge_E`: where each token begins and ends in `text_C`; what is behind the last is of other texts and
    lies in `text_C` too; `hash_T`: of its shingles."""

    text_C: U8
    flag_C: U8
    bits_C: U8
    edge_E: I64
    token_T: U64
    hash_T: U64


@compiled
def new_scratch(offset_N1: I64, n: int) -> Scratch:
    """Room for the longest text: a character of two bytes may fold to three of two, one of three get two separators."""
    longest = np.int64(0)
    for i in range(offset_N1.size - 1):
        longest = max(longest, offset_N1[i + 1] - offset_N1[i])
    size = 3 * longest + n + _SLACK
    tokens = longest * 3 // 2 + n + 4
    return Scratch(
        np.zeros(size, np.uint8),
        np.zeros(size, np.uint8),
        np.zeros(size // 8 + 16, np.uint8),
        np.zeros(2 * tokens + 2 * _USUAL_EDGES, np.int64),
        np.empty(tokens + n + EIGHT, np.uint64),
        np.empty(tokens + EIGHT, np.uint64),
    )


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
def _put(point: np.int64, text_C: U8, at: int) -> int:
    """Write a code point as UTF-8; returns where the next one goes."""
    if point < 0x80:
        text_C[at] = point
        return at + 1
    if point < 0x800:
        text_C[at] = 0xC0 | point >> 6
        text_C[at + 1] = 0x80 | point & 0x3F
        return at + 2
    if point < 0x10000:
        text_C[at] = 0xE0 | point >> 12
        text_C[at + 1] = 0x80 | point >> 6 & 0x3F
        text_C[at + 2] = 0x80 | point & 0x3F
        return at + 3
    text_C[at] = 0xF0 | point >> 18
    text_C[at + 1] = 0x80 | point >> 12 & 0x3F
    text_C[at + 2] = 0x80 | point >> 6 & 0x3F
    text_C[at + 3] = 0x80 | point & 0x3F
    return at + 4


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
def _fold8(x: np.uint64) -> tuple[np.uint64, np.uint64]:
    """Eight ASCII bytes in lower case, and the highest bit of each that is a letter, a digit or `_`; what a byte above
    ASCII gets is wrong, and so may be what stands behind it."""
    upper = (x + _FROM_UPPER_A) & ~(x + _PAST_UPPER_Z) & _HIGH
    x |= upper >> _2
    letter = (x + _FROM_A) & ~(x + _PAST_Z)
    digit = (x + _FROM_0) & ~(x + _PAST_9)
    line = ~((x ^ _LINE) + _FROM_1)
    return x, (letter | digit | line) & _HIGH


@compiled
def _last_bytes(buffer_C: U8, start: int, end: int) -> np.uint64:
    """Fewer than eight bytes at the end of a text; the buffer may end there too."""
    x = _ZERO
    for i in range(end - 1, start - 1, -1):
        x = x << np.uint64(8) | np.uint64(buffer_C[i])
    return x


@compiled
def _fold_ascii(buffer_C: U8, start: int, end: int, text_C: U8, bits_C: U8) -> bool:
    """Fold a text into `text_C` and its bits; False, and nothing to rely on, where it is not ASCII."""
    high = _ZERO
    whole = (end - start) // 8
    for i in range(whole):
        x = load64(buffer_C, start + 8 * i)
        high |= x
        folded, inside = _fold8(x)
        store64(text_C, 8 * i, folded)
        bits_C[i] = np.uint8((inside >> _7) * _GATHER >> _56)
    x = _last_bytes(buffer_C, start + 8 * whole, end)
    folded, inside = _fold8(x)
    store64(text_C, 8 * whole, folded)
    store64(bits_C, whole, (inside >> _7) * _GATHER >> _56)
    return bool((high | x) & _HIGH == _ZERO)


@compiled
def _fold_any(
    buffer_C: U8, start: int, end: int, entry_X: U32, expansion_X3: U32, scratch: Scratch
) -> tuple[int, bool]:
    """Fold a text into `text_C` and `flag_C`, with a byte of no word around each `SOLO`; returns its folded size, -1 if
    a character is not in the tables yet, and whether there are marks."""
    text_C, flag_C = scratch.text_C, scratch.flag_C
    at = 0
    marks = False
    i = start
    while i < end:
        while end - i >= 8:  # a guess that is nearly always right: the next load waits for nothing
            x = load64(buffer_C, i)
            if x & _HIGH != _ZERO:
                break
            folded, inside = _fold8(x)
            store64(text_C, at, folded)
            store64(flag_C, at, inside >> _7)
            at += 8
            i += 8
        if i == end:
            break
        left = min(end - i, 8)
        x = load64(buffer_C, i) if left == 8 else _last_bytes(buffer_C, i, end)
        plain = left
        ascii_bytes = np.int64(trailing_zeros(x & _HIGH)) >> 3
        if ascii_bytes < left:
            plain = int(ascii_bytes)
        if plain > 0:
            folded, inside = _fold8(x)
            store64(text_C, at, folded)
            store64(flag_C, at, inside >> _7)
            at += plain
            i += plain
        if plain == left:
            continue
        point, size = decode(buffer_C, i)
        i += size
        entry = entry_X[point]
        if entry == 0:
            return -1, False
        for k in range(3):
            folded_entry = entry
            if entry & EXPANDS:
                folded_entry = expansion_X3[entry & POINT, k]
            elif k > 0:
                folded_entry = np.uint32(0)
            if folded_entry == 0:
                break
            kind = (folded_entry >> KIND_SHIFT) & 7
            if (kind == WORD) | (kind == MARK) | (kind == SOLO):
                flag_C[at] = 0
                at += kind == SOLO
                begin = at
                at = _put(np.int64(folded_entry & POINT), text_C, at)
                for byte in range(begin, at):
                    flag_C[byte] = 3 if kind == MARK else 1
                marks |= kind == MARK
            if (kind != WORD) & (kind != MARK):
                flag_C[at] = 0
                at += 1
    store64(flag_C, at, _ZERO)
    return at, marks


@compiled
def _gather_flags(flag_C: U8, size: int, bits_C: U8) -> None:
    """The lowest bit of each flag."""
    for i in range(size // 8 + 1):
        bits_C[i] = np.uint8((load64(flag_C, 8 * i) & _EACH) * _GATHER >> _56)


@compiled
def _edges(bits_C: U8, size: int, edge_E: I64) -> int:
    """Where bits begin and end to be set; returns how many of both."""
    whole = (size + 7) // 8
    store64(bits_C, whole, _ZERO)
    before = _ZERO
    count = 0
    for w in range(whole // 8 + 1):
        bits = load64(bits_C, 8 * w)
        left = bits ^ (bits << _ONE | before)
        before = bits >> _63
        at = count
        count += int(ones(left))
        # Without asking whether there are any: as many as most prose has, then some at a time.
        for k in range(_USUAL_EDGES):
            edge_E[at + k] = 64 * w + np.int64(trailing_zeros(left))
            left &= left - _ONE
        at += _USUAL_EDGES
        while left != _ZERO:
            for k in range(8):
                edge_E[at + k] = 64 * w + np.int64(trailing_zeros(left))
                left &= left - _ONE
            at += 8
    return int(count)


@compiled
def _without_lone_marks(flag_C: U8, edge_E: I64, tokens: int) -> int:
    """Drop the words that are marks alone; returns how many stay."""
    kept = 0
    for t in range(tokens):
        letters = False
        for byte in range(edge_E[2 * t], edge_E[2 * t + 1]):
            letters |= flag_C[byte] == 1
        edge_E[2 * kept], edge_E[2 * kept + 1] = edge_E[2 * t], edge_E[2 * t + 1]
        kept += letters
    return int(kept)


@compiled
def _cut_characters(
    buffer_C: U8, start: int, end: int, entry_X: U32, expansion_X3: U32, n: int, scratch: Scratch
) -> int:
    """All characters but white space, and `n - 1` of NUL if there are any; returns how many, or -1."""
    text_C, edge_E = scratch.text_C, scratch.edge_E
    count = 0
    at = 0
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
                edge_E[2 * count] = at
                at = _put(np.int64(folded & POINT), text_C, at)
                edge_E[2 * count + 1] = at
                count += 1
    if count > 0:
        for _ in range(n - 1):
            text_C[at] = 0
            edge_E[2 * count], edge_E[2 * count + 1] = at, at + 1
            at += 1
            count += 1
    return int(count)


@compiled
def cut(
    buffer_C: U8, start: int, end: int, tables: Tables, words: bool, scratch: Scratch
) -> tuple[int, bool]:
    """The tokens of one text into `text_C` and `edge_E`: words, or characters where there are fewer than a shingle needs;
    returns how many, -1 if a character is not in the tables yet, and whether they are words."""
    n = tables.power_T.size
    if words:
        size = end - start
        marks = False
        if not _fold_ascii(buffer_C, start, end, scratch.text_C, scratch.bits_C):
            size, marks = _fold_any(buffer_C, start, end, tables.entry_X, tables.expansion_X3, scratch)
            if size < 0:
                return -1, True
            _gather_flags(scratch.flag_C, size, scratch.bits_C)
        tokens = _edges(scratch.bits_C, size, scratch.edge_E) // 2
        if marks:
            tokens = _without_lone_marks(scratch.flag_C, scratch.edge_E, tokens)
        if tokens >= n:
            return tokens, True
    return _cut_characters(buffer_C, start, end, tables.entry_X, tables.expansion_X3, n, scratch), False


@compiled
def hash_tokens(text_C: U8, edge_E: I64, count: int, token_T: U64) -> None:
    """Tokens as chunks of eight bytes, weighted with the powers of `CHUNK_BASE`. `token_T` has room for whole eights."""
    for t in range(0, count, EIGHT):
        if hash_words(text_C, edge_E, t, token_T):
            for long in range(t, min(t + EIGHT, count)):
                if edge_E[2 * long + 1] - edge_E[2 * long] > 16:
                    token_T[long] = _hash_long(text_C, edge_E[2 * long], edge_E[2 * long + 1])


@compiled
def _hash_long(text_C: U8, start: int, end: int) -> np.uint64:
    h, power = _ZERO, _ONE
    for at in range(start, end, 8):
        h += (load64(text_C, at) & _KEEP[min(end - at, 8)]) * power
        power *= _CHUNK_BASE
    return mix(h)


@compiled
def shingle_text(buffer_C: U8, start: int, end: int, tables: Tables, words: bool, scratch: Scratch) -> int:
    """The shingles of one text into `hash_T`; returns how many, repeats included, or -1."""
    n = tables.power_T.size
    count, are_words = cut(buffer_C, start, end, tables, words, scratch)
    if count < 0:
        return -1
    hash_tokens(scratch.text_C, scratch.edge_E, count, scratch.token_T)
    hash_G = scratch.hash_T[: max(count - n + 1, 0)]
    for g in range(0, hash_G.size, EIGHT):
        hash_shingles(scratch.token_T, tables.power_T, n, g, scratch.hash_T)
    if not are_words:
        for g in range(hash_G.size):
            hash_G[g] = mix(hash_G[g] ^ _CHAR_BASE)
    return int(hash_G.size)
