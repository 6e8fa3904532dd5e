"""The compiled pass of `synthgen.refine.loops`: every character is read once, and all is counted from it.

In: a polars String series without nulls. Out: the arrays of `Loops`, in its order. Guarantee: equal to the numpy pass
(a test compares them). Needs numba.

Axes: C bytes, X code points, T tokens, G n-grams, L lines, N texts.
"""

# ruff: noqa: N803, N806  # arrays carry their axes in their names
import numpy as np
import polars as pl

from synthgen.refine.alphabet import DIGIT, EXPANDS, KIND_SHIFT, MARK, POINT, SOLO, SPACE, WORD
from synthgen.refine.kernel_bits import U8, compiled
from synthgen.refine.kernel_shingles import decode, mix
from synthgen.refine.loops_rule import ENDS, KEY_SHIFT, LINE_BYTES, LONG, SHORT
from synthgen.refine.shingles import (
    CHAR_BASE,
    CHUNK_BASE,
    F64,
    I64,
    TOKEN_BASE,
    U32,
    U64,
    Bools,
    powers,
)
from synthgen.refine.shingles import mix as mix_all
from synthgen.refine.text_buffers import Letters, buffers_of

__all__ = ["compiled_loops"]

_CHAR_BASE, _CHUNK_BASE = np.uint64(CHAR_BASE), np.uint64(CHUNK_BASE)
_LOWER, _BYTE, _CHUNK_BITS = np.uint64(0x20), np.uint64(8), np.uint64(64)
_LOW_BYTE, _SIX, _NEXT = np.uint64(0xFF), np.uint64(0x3F), np.uint64(0x80)
_TOKEN_INVERSE = np.uint64(pow(TOKEN_BASE, -1, 1 << 64))
_ZERO, _ONE = np.uint64(0), np.uint64(1)
_KEY_SHIFT = np.uint64(KEY_SHIFT)
_LETTERS = Letters()


def compiled_loops(text: pl.Series) -> tuple[I64, F64, F64, F64, I64, I64]:
    """`words_N dup_ngram_N top_ngram_N dup_line_N line_repeat_N solid_N`."""
    buffer_C, offset_N1 = buffers_of(text)
    counts = np.zeros((3, len(text)), np.int64)
    shares = np.zeros((3, len(text)), np.float64)
    _LETTERS.until_known(
        buffer_C,
        lambda: _measure(
            buffer_C, offset_N1, *_LETTERS.tables, *_POWERS, _END_X, _MIXED_A, _WORD_A, counts, shares
        ),
    )
    words_N, line_repeat_N, solid_N = counts
    dup_ngram_N, top_ngram_N, dup_line_N = shares
    return words_N, dup_ngram_N, top_ngram_N, dup_line_N, line_repeat_N, solid_N


_POWERS = powers(TOKEN_BASE, LONG), powers(TOKEN_BASE, SHORT)
_END_X = np.zeros(0x10000, np.bool_)
_END_X[[ord(end) for end in ENDS]] = True
_MIXED_A = mix_all(np.arange(128, dtype=np.uint64))
_WORD_A = np.zeros(256, np.uint64)  # of an ASCII letter, its folded and mixed character; 0 of any other byte
_WORD_A[ord("a") : ord("z") + 1] = _WORD_A[ord("A") : ord("Z") + 1] = _MIXED_A[ord("a") : ord("z") + 1]
_BLANK = np.uint8(ord(" "))
_MIXED_BLANK = _MIXED_A[ord(" ")]


@compiled
def _measure(
    buffer_C: U8,
    offset_N1: I64,
    entry_X: U32,
    expansion_X3: U32,
    long_T: U64,
    short_T: U64,
    end_X: Bools,
    mixed_A: U64,
    word_A: U64,
    counts: I64,
    shares: F64,
) -> bool:
    """False where a character is not in the tables yet."""
    longest = 0
    for i in range(offset_N1.size - 1):
        longest = max(longest, offset_N1[i + 1] - offset_N1[i])
    token_T = np.empty(longest * 3 // 2 + 4, np.uint64)
    numeric_T = np.empty(token_T.size, np.int64)
    line_L = np.empty(longest + 4, np.uint64)
    size_L = np.empty(longest + 4, np.int64)
    size = 4
    while size < 2 * token_T.size:
        size *= 2
    key_S = np.empty(size, np.uint64)
    count_S = np.empty(size, np.int64)
    for i in range(offset_N1.size - 1):
        words, lines, solid = _read(
            buffer_C, offset_N1[i], offset_N1[i + 1], entry_X, expansion_X3, end_X, mixed_A, word_A,
            token_T, numeric_T, line_L, size_L,
        )  # fmt: skip
        if words < 0:
            return False
        counts[0, i] = words
        counts[2, i] = solid
        number, different, _ = _count(token_T, numeric_T, words, long_T, key_S, count_S)
        shares[0, i] = (number - different) / max(number, 1)
        _, _, top = _count(token_T, numeric_T, words, short_T, key_S, count_S)
        shares[1, i] = min(top * short_T.size / max(words, 1), 1.0) if top > 1 else 0.0
        total, repeated, repeats = _repeats(line_L, size_L, lines, key_S)
        shares[2, i] = repeated / max(total, 1)
        counts[1, i] = repeats
    return True


@compiled
def _put(
    byte: np.uint64, h: np.uint64, power: np.uint64, chunk: np.uint64, filled: np.uint64
) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64]:
    """One more byte of a word's hash, which is summed in chunks of eight; the last chunk is still open."""
    chunk |= byte << filled
    filled += _BYTE
    if filled == _CHUNK_BITS:
        return h + chunk * power, power * _CHUNK_BASE, _ZERO, _ZERO
    return h, power, chunk, filled


@compiled
def _utf8(code: np.uint64) -> tuple[np.uint64, int]:
    """A code point's bytes, the first one lowest, and how many they are."""
    last = code & _SIX | _NEXT
    if code < 0x80:
        return code, 1
    if code < 0x800:
        return np.uint64(0xC0) | code >> np.uint64(6) | last << _BYTE, 2
    middle = code >> np.uint64(6) & _SIX | _NEXT
    if code < 0x10000:
        return np.uint64(0xE0) | code >> np.uint64(12) | middle << _BYTE | last << np.uint64(16), 3
    second = code >> np.uint64(12) & _SIX | _NEXT
    high = np.uint64(0xF0) | code >> np.uint64(18)
    return high | second << _BYTE | middle << np.uint64(16) | last << np.uint64(24), 4


@compiled
def _read(
    buffer_C: U8,
    start: int,
    end: int,
    entry_X: U32,
    expansion_X3: U32,
    end_X: Bools,
    mixed_A: U64,
    word_A: U64,
    token_T: U64,
    numeric_T: I64,
    line_L: U64,
    size_L: I64,
) -> tuple[int, int, int]:
    """Tokens and lines of one text; returns how many there are and the longest run without white space, or -1s."""
    words = lines = solid = run = 0
    h, power, chunk, filled = _ZERO, _ONE, _ZERO, _ZERO
    letters, digits, size = False, 0, 0
    line, line_power, line_size, line_bytes = _ZERO, _ONE, 0, 0
    seen, seen_size, seen_bytes = _ZERO, 0, 0  # the line up to its last character that is no white space
    i = start
    while i < end:
        # ASCII letters one after the other, without any of the questions below: nine characters of ten.
        begin = i
        while i < end and word_A[buffer_C[i]] != _ZERO:
            mixed = word_A[buffer_C[i]]
            h, power, chunk, filled = _put(np.uint64(buffer_C[i]) | _LOWER, h, power, chunk, filled)
            line += mixed * line_power
            line_power *= _CHAR_BASE
            i += 1
        if i > begin:
            letters, size = True, size + i - begin
            run += i - begin
            solid = max(solid, run)
            line_size += i - begin
            line_bytes += i - begin
            seen, seen_size, seen_bytes = line, line_size, line_bytes
            if i == end:
                break
        if buffer_C[i] == _BLANK:  # the most frequent of the others
            i += 1
            if size > 0:
                token_T[words] = mix(h + chunk * power)
                numeric_T[words] = digits == size
                words += letters
                h, power, chunk, filled = _ZERO, _ONE, _ZERO, _ZERO
                letters, digits, size = False, 0, 0
            run = 0
            if line_size > 0:
                line += _MIXED_BLANK * line_power
                line_power *= _CHAR_BASE
                line_size += 1
                line_bytes += 1
            continue
        point, width = decode(buffer_C, i)
        i += width
        entry = entry_X[point]
        if entry == 0:
            return -1, -1, -1
        for k in range(3):
            folded = entry
            if entry & EXPANDS:
                folded = expansion_X3[entry & POINT, k]
            elif k > 0:
                break
            if folded == 0:
                break
            code = folded & POINT
            kind = (folded >> KIND_SHIFT) & 7
            mixed = mixed_A[code] if code < mixed_A.size else mix(np.uint64(code))
            if (kind == WORD) | (kind == MARK):
                letters |= kind == WORD
                digits += (folded & DIGIT) != 0
                size += 1
                utf8, width8 = _utf8(np.uint64(code))
                for _ in range(width8):
                    h, power, chunk, filled = _put(utf8 & _LOW_BYTE, h, power, chunk, filled)
                    utf8 >>= _BYTE
            else:
                if size > 0:
                    token_T[words] = mix(h + chunk * power)
                    numeric_T[words] = digits == size
                    words += letters
                    h, power, chunk, filled = _ZERO, _ONE, _ZERO, _ZERO
                    letters, digits, size = False, 0, 0
                if kind == SOLO:
                    token_T[words] = mix(_utf8(np.uint64(code))[0])
                    numeric_T[words] = (folded & DIGIT) != 0
                    words += 1
            if kind == SPACE:
                run = 0
            else:
                run += 1
                solid = max(solid, run)
            if code < end_X.size and end_X[code]:
                if seen_bytes >= LINE_BYTES:
                    line_L[lines] = mix(seen)
                    size_L[lines] = seen_size
                    lines += 1
                line, line_power, line_size, line_bytes = _ZERO, _ONE, 0, 0
                seen, seen_size, seen_bytes = _ZERO, 0, 0
            elif kind != SPACE or line_size > 0:
                line += mixed * line_power
                line_power *= _CHAR_BASE
                line_size += 1
                line_bytes += 1 + (code >= 0x80) + (code >= 0x800) + (code >= 0x10000)
                if kind != SPACE:
                    seen, seen_size, seen_bytes = line, line_size, line_bytes
    if size > 0:
        token_T[words] = mix(h + chunk * power)
        numeric_T[words] = digits == size
        words += letters
    if seen_bytes >= LINE_BYTES:
        line_L[lines] = mix(seen)
        size_L[lines] = seen_size
        lines += 1
    return int(words), int(lines), int(solid)


@compiled
def _count(
    token_T: U64, numeric_T: I64, words: int, power_T: U64, key_S: U64, count_S: I64
) -> tuple[int, int, int]:
    """n-grams that are not mostly numbers, different ones among them, and how often the most frequent one stands."""
    n = power_T.size
    number = different = top = numbers = 0
    if words < n:
        return 0, 0, 0
    size = 4
    while size < 2 * words:
        size *= 2
    key_S[:size] = _ZERO
    count_S[:size] = 0
    last = np.uint64(size - 1)
    h = _ZERO
    highest = power_T[n - 1]
    for t in range(words):
        # Of the run before, the first token goes and the others move down by one power.
        if t >= n:
            h -= token_T[t - n]
            numbers -= numeric_T[t - n]
        h = h * _TOKEN_INVERSE + token_T[t] * highest
        numbers += numeric_T[t]
        if t < n - 1 or numbers * 2 > n:
            continue
        key = (mix(h) >> _KEY_SHIFT) + _ONE  # 0 is a free slot
        slot = key & last
        while key_S[slot] != _ZERO and key_S[slot] != key:
            slot = (slot + _ONE) & last
        different += key_S[slot] == _ZERO
        key_S[slot] = key
        count_S[slot] += 1
        top = max(top, count_S[slot])
        number += 1
    return int(number), int(different), int(top)


@compiled
def _repeats(line_L: U64, size_L: I64, lines: int, key_S: U64) -> tuple[int, int, int]:
    """Characters in lines, those in lines that stood there before, and how many such lines there are."""
    size = 4
    while size < 2 * lines:
        size *= 2
    key_S[:size] = _ZERO
    last = np.uint64(size - 1)
    total = repeated = repeats = 0
    for number in range(lines):
        total += size_L[number]
        key = max(line_L[number], _ONE)
        slot = key & last
        while key_S[slot] != _ZERO and key_S[slot] != key:
            slot = (slot + _ONE) & last
        if key_S[slot] == key:
            repeated += size_L[number]
            repeats += 1
        key_S[slot] = key
    return int(total), int(repeated), int(repeats)
