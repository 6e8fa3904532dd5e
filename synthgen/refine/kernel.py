"""The hot loops, compiled: UTF-8 bytes to shingle hashes, MinHash signatures, band keys and exact set comparison.

In: one buffer with the UTF-8 bytes of many texts, and where each begins. Out: arrays the caller allocated.
Guarantees: every value equals the one `synthgen.refine.shingles` computes with numpy (tests compare them), so whether
numba is installed changes the speed and nothing else; the loops do not hold the interpreter's lock, so that threads
work side by side.
Rejected: numba's own parallel loops (its thread pool must not be entered from several threads), and a compiled wheel
(one per platform, for what a first call of seconds makes and a cache on disk keeps).

Axes: C bytes, X code points, A ASCII, T tokens, S shingles, N texts, P permutations, B bands, E pairs.
"""

# ruff: noqa: N803, N806  # arrays carry their axes in their names
from collections.abc import Callable
from typing import TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

from synthgen.refine.alphabet import EXPANDS, KIND_SHIFT, MARK, POINT, SOLO, SPACE, WORD
from synthgen.refine.shingles import CHAR_BASE, I64, U32, U64

__all__ = [
    "U8",
    "band_keys",
    "compiled",
    "count_common",
    "decode",
    "shingle_sets",
    "sign",
    "signatures",
    "unknown_points",
]

F = TypeVar("F", bound=Callable[..., object])
U8 = NDArray[np.uint8]

_CHAR_BASE = np.uint64(CHAR_BASE)
_CHAR_INVERSE = np.uint64(pow(CHAR_BASE, -1, 1 << 64))
_MIX_A = np.uint64(0xFF51AFD7ED558CCD)
_MIX_B = np.uint64(0xC4CEB9FE1A85EC53)
_ZERO, _ONE, _29, _32, _33 = (np.uint64(x) for x in (0, 1, 29, 32, 33))
_TOP32 = np.uint32(0xFFFFFFFF)


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
def mix32(h: np.uint32) -> np.uint32:
    """MurmurHash3's 32-bit finaliser."""
    h ^= h >> np.uint32(16)
    h = np.uint32(h * np.uint32(0x85EBCA6B))
    h ^= h >> np.uint32(13)
    h = np.uint32(h * np.uint32(0xC2B2AE35))
    return np.uint32(h ^ (h >> np.uint32(16)))


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
def _ascii_words(
    buffer_C: U8,
    start: int,
    end: int,
    word_C: U64,
    power_C: U64,
    inverse_C: U64,
    edge_T: I64,
    sum_T: U64,
    token_T: U64,
) -> int:
    """The same as `_words` for ASCII, without a branch that is guessed wrong at every word; -1 if it is not ASCII.

    Prefix sums of the weighted characters, noted at each edge of a word: their difference, moved back to the first
    power, is the word.
    """
    total = _ZERO
    edges = np.int64(0)
    before = False
    high = np.uint8(0)
    for i in range(end - start):
        byte = buffer_C[start + i]
        high |= byte
        mixed = word_C[byte]
        inside = mixed != _ZERO
        edge_T[edges] = i
        sum_T[edges] = total
        edges += inside ^ before
        total += mixed * power_C[i]
        before = inside
    if high >= 0x80:
        return -1
    edge_T[edges] = end - start
    sum_T[edges] = total
    count = (edges + 1) // 2
    for t in range(count):
        token_T[t] = mix((sum_T[2 * t + 1] - sum_T[2 * t]) * inverse_C[edge_T[2 * t]])
    return int(count)


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
    sum_T: U64,
    token_T: U64,
) -> int:
    """Turn the tokens of one text into its shingles, in place; returns how many, repeats included, or -1."""
    n = power_T.size
    count = 0
    flip = _ZERO
    if words:
        count = _ascii_words(buffer_C, start, end, word_C, power_C, inverse_C, edge_T, sum_T, token_T)
        if count < 0:
            count = _words(buffer_C, start, end, entry_X, expansion_X3, word_C, token_T)
    if 0 <= count < n:
        count = _characters(buffer_C, start, end, entry_X, expansion_X3, n, token_T)
        flip = _CHAR_BASE
    if count < 0:
        return -1
    for g in range(count - n + 1):
        h = _ZERO
        for k in range(n):
            h += token_T[g + k] * power_T[k]
        h = mix(h)
        token_T[g] = h if flip == _ZERO else mix(h ^ flip)
    return max(count - n + 1, 0)


@compiled
def scratch_size(offset_N1: I64, n: int) -> int:
    """Tokens that the longest text can have: a character of two bytes may fold to three."""
    longest = 0
    for i in range(offset_N1.size - 1):
        longest = max(longest, offset_N1[i + 1] - offset_N1[i])
    return int(longest * 3 // 2 + n + 4)


@compiled
def sign(hash_S: U32, factor_P: U32, summand_P: U32, signature_P: U32) -> None:
    """datasketch's `affine32` signature of 32-bit hashes."""
    for p in range(signature_P.size):
        signature_P[p] = _TOP32
    whole = hash_S.size - hash_S.size % 4
    for s in range(0, whole, 4):  # four at a time: the signature is read and written a quarter as often
        h0, h1 = mix32(hash_S[s]), mix32(hash_S[s + 1])
        h2, h3 = mix32(hash_S[s + 2]), mix32(hash_S[s + 3])
        for p in range(signature_P.size):
            a, b = factor_P[p], summand_P[p]
            low = min(np.uint32(h0 * a + b), np.uint32(h1 * a + b))
            other = min(np.uint32(h2 * a + b), np.uint32(h3 * a + b))
            signature_P[p] = min(signature_P[p], min(low, other))
    for s in range(whole, hash_S.size):
        h0 = mix32(hash_S[s])
        for p in range(signature_P.size):
            signature_P[p] = min(signature_P[p], np.uint32(h0 * factor_P[p] + summand_P[p]))


@compiled
def signatures(
    buffer_C: U8,
    offset_N1: I64,
    entry_X: U32,
    expansion_X3: U32,
    word_C: U64,
    power_T: U64,
    words: bool,
    factor_P: U32,
    summand_P: U32,
    signature_NP: U32,
    total_N: U64,
) -> bool:
    """The signature of every text over its `fast` hashes, and the sum of those (0: it has none).

    False where a character is not in the tables yet: `unknown_points` finds it, then all of it must be done again.
    """
    token_T = np.empty(scratch_size(offset_N1, power_T.size), np.uint64)
    power_C, inverse_C = char_powers(offset_N1)
    edge_T = np.empty(power_C.size, np.int64)
    sum_T = np.empty(power_C.size, np.uint64)
    hash_S = np.empty(token_T.size, np.uint32)
    for i in range(offset_N1.size - 1):
        start, end = offset_N1[i], offset_N1[i + 1]
        count = shingle_text(
            buffer_C, start, end, entry_X, expansion_X3, word_C, power_T, words,
            power_C, inverse_C, edge_T, sum_T, token_T,
        )  # fmt: skip
        if count < 0:
            return False
        total = _ZERO
        for s in range(count):
            total += token_T[s]
            hash_S[s] = np.uint32(token_T[s] >> _32)
        total_N[i] = total
        sign(hash_S[:count], factor_P, summand_P, signature_NP[i])
    return True


@compiled
def band_keys(signature_NP: U32, rows: int, key_BN: U64) -> None:
    """One 64-bit key per band of each signature; the band's number is part of the key."""
    for i in range(signature_NP.shape[0]):
        for b in range(key_BN.shape[0]):
            key = np.uint64(b)
            for r in range(rows):
                key = (key ^ np.uint64(signature_NP[i, b * rows + r])) * _CHAR_BASE
                key ^= key >> _29
            key_BN[b, i] = key


@compiled
def shingle_sets(
    buffer_C: U8,
    offset_N1: I64,
    entry_X: U32,
    expansion_X3: U32,
    word_C: U64,
    power_T: U64,
    words: bool,
    hash_S: U64,
    set_offset_N1: I64,
) -> bool:
    """The shingles of every text without repeats, in order of their first place, one text behind the other.

    False where a character is not in the tables yet.
    """
    token_T = np.empty(scratch_size(offset_N1, power_T.size), np.uint64)
    power_C, inverse_C = char_powers(offset_N1)
    edge_T = np.empty(power_C.size, np.int64)
    sum_T = np.empty(power_C.size, np.uint64)
    space_T = np.empty(_table_size(token_T.size), np.uint64)
    end_S = np.int64(0)
    set_offset_N1[0] = 0
    for i in range(offset_N1.size - 1):
        start, end = offset_N1[i], offset_N1[i + 1]
        count = shingle_text(
            buffer_C, start, end, entry_X, expansion_X3, word_C, power_T, words,
            power_C, inverse_C, edge_T, sum_T, token_T,
        )  # fmt: skip
        if count < 0:
            return False
        table = space_T[: _table_size(count)]
        table[:] = _ZERO
        for s in range(count):
            if _insert(table, token_T[s]):
                hash_S[end_S] = token_T[s]
                end_S += 1
        set_offset_N1[i + 1] = end_S
    return True


@compiled
def count_common(hash_S: U64, set_offset_N1: I64, first_E: I64, second_E: I64, common_E: I64) -> None:
    """Shingles that both sets of each pair hold. Quick where equal `first_E` stand side by side."""
    longest = np.int64(1)
    for i in range(set_offset_N1.size - 1):
        longest = max(longest, set_offset_N1[i + 1] - set_offset_N1[i])
    space_T = np.empty(_table_size(longest), np.uint64)
    table = space_T[:0]
    for e in range(first_E.size):
        a, b = first_E[e], second_E[e]
        if e == 0 or a != first_E[e - 1]:
            table = space_T[: _table_size(set_offset_N1[a + 1] - set_offset_N1[a])]
            table[:] = _ZERO
            for s in range(set_offset_N1[a], set_offset_N1[a + 1]):
                _insert(table, hash_S[s])
        common = 0
        for s in range(set_offset_N1[b], set_offset_N1[b + 1]):
            common += _holds(table, hash_S[s])
        common_E[e] = common


@compiled
def _table_size(count: int | np.int64) -> int:
    """A power of two that is at least three times the count."""
    size = 4
    while size < 3 * count:
        size *= 2
    return size


@compiled
def _insert(table: U64, wanted: np.uint64) -> bool:
    """Put a hash into an open table, where 0 is a free slot; whether it was not there."""
    key = max(wanted, _ONE)
    last = np.uint64(table.size - 1)
    slot = key & last
    while table[slot] != _ZERO:
        if table[slot] == key:
            return False
        slot = (slot + _ONE) & last
    table[slot] = key
    return True


@compiled
def _holds(table: U64, wanted: np.uint64) -> bool:
    """Whether a hash is in the table."""
    key = max(wanted, _ONE)
    last = np.uint64(table.size - 1)
    slot = key & last
    while table[slot] != _ZERO:
        if table[slot] == key:
            return True
        slot = (slot + _ONE) & last
    return False
