"""The shingles as text, hashed like datasketch hashes them: SHA-1 and xxHash32, compiled.

In: the buffers of `synthgen.refine.kernel_shingles`. Out: MinHash signatures that equal `datasketch.MinHash(scheme="affine32")`
fed with the UTF-8 of the same shingles. Thirty-two shingles go through SHA-1 side by side, because one alone leaves most
of a vector unit idle and sixteen wait for their own results; shingles of one text differ little in length, so few lanes wait.

Axes: C bytes, X code points, T tokens, S shingles, N texts, P permutations, B bands, W words of a block, L lanes.
"""

# ruff: noqa: N803, N806  # arrays carry their axes in their names
import numpy as np

from synthgen.refine.kernel import sign
from synthgen.refine.kernel_bits import U8, compiled, load64, store64
from synthgen.refine.kernel_shingles import Scratch, Tables, cut, new_scratch
from synthgen.refine.shingles import I64, U32

__all__ = ["text_signatures"]

_LANES = 32
_BLOCK = 64
_P1, _P2, _P3, _P4, _P5 = (np.uint32(x) for x in (2654435761, 2246822519, 3266489917, 668265263, 374761393))
_H0, _H1, _H2, _H3, _H4 = (np.uint32(x) for x in (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0))
_K0, _K1, _K2, _K3 = (np.uint32(x) for x in (0x5A827999, 0x6ED9EBA1, 0x8F1BBCDC, 0xCA62C1D6))


@compiled
def _join(scratch: Scratch, count: int, spaced: bool, joined_C: U8, first_T: I64, last_T: I64) -> None:
    """The tokens one behind the other, with a space between them if `spaced`; and where each begins and ends."""
    at = 0
    for t in range(count):
        start, end = scratch.edge_E[2 * t], scratch.edge_E[2 * t + 1]
        first_T[t] = at
        for byte in range(start, end, 8):  # what is too much is written over
            store64(joined_C, at + byte - start, load64(scratch.text_C, byte))
        at += end - start
        last_T[t] = at
        joined_C[at] = 32
        at += spaced


@compiled
def _rotate(x: np.uint32, bits: int) -> np.uint32:
    return np.uint32(x << np.uint32(bits) | x >> np.uint32(32 - bits))


@compiled
def _word(text_C: U8, at: int) -> np.uint32:
    """Four bytes, little-endian."""
    return np.uint32(
        np.uint32(text_C[at])
        | np.uint32(text_C[at + 1]) << np.uint32(8)
        | np.uint32(text_C[at + 2]) << np.uint32(16)
        | np.uint32(text_C[at + 3]) << np.uint32(24)
    )


@compiled
def _xxh32(text_C: U8, start: int, end: int) -> np.uint32:
    """xxHash32 with seed 0 (Collet; the specification in the xxHash repository, doc/xxhash_spec.md)."""
    at = start
    h = _P5
    if end - start >= 16:
        a, b, c, d = np.uint32(_P1 + _P2), _P2, np.uint32(0), np.uint32(np.uint32(0) - _P1)
        while end - at >= 16:
            a = np.uint32(_rotate(np.uint32(a + _word(text_C, at) * _P2), 13) * _P1)
            b = np.uint32(_rotate(np.uint32(b + _word(text_C, at + 4) * _P2), 13) * _P1)
            c = np.uint32(_rotate(np.uint32(c + _word(text_C, at + 8) * _P2), 13) * _P1)
            d = np.uint32(_rotate(np.uint32(d + _word(text_C, at + 12) * _P2), 13) * _P1)
            at += 16
        h = np.uint32(_rotate(a, 1) + _rotate(b, 7) + _rotate(c, 12) + _rotate(d, 18))
    h = np.uint32(h + np.uint32(end - start))
    while end - at >= 4:
        h = np.uint32(_rotate(np.uint32(h + _word(text_C, at) * _P3), 17) * _P4)
        at += 4
    while at < end:
        h = np.uint32(_rotate(np.uint32(h + np.uint32(text_C[at]) * _P5), 11) * _P1)
        at += 1
    h = np.uint32((h ^ h >> np.uint32(15)) * _P2)
    h = np.uint32((h ^ h >> np.uint32(13)) * _P3)
    return np.uint32(h ^ h >> np.uint32(16))


@compiled
def _block(text_C: U8, start: int, end: int, block: int, w_WL: U32, lane: int) -> None:
    """One padded SHA-1 block of a message into its lane, big-endian."""
    size = end - start
    for word in range(16):
        at = block * _BLOCK + word * 4
        value = np.uint32(0)
        if at + 4 <= size:
            t = start + at
            value = (
                np.uint32(text_C[t]) << np.uint32(24)
                | np.uint32(text_C[t + 1]) << np.uint32(16)
                | np.uint32(text_C[t + 2]) << np.uint32(8)
                | np.uint32(text_C[t + 3])
            )
        elif at <= size:
            for k in range(4):
                byte = np.uint32(0)
                if at + k < size:
                    byte = np.uint32(text_C[start + at + k])
                elif at + k == size:
                    byte = np.uint32(0x80)
                value = np.uint32(value << np.uint32(8) | byte)
        w_WL[word, lane] = value
    if (block + 1) * _BLOCK >= size + 9:
        w_WL[15, lane] = np.uint32(size * 8)  # a shingle is far below 2**29 bytes


@compiled
def _sha1_rounds(w_WL: U32, state_5L: U32, active_L: U32, v_5L: U32) -> None:
    """The 80 rounds of FIPS 180-4, 6.1.2, on all lanes; only lanes whose mask is all ones take the result."""
    for t in range(16, 80):
        for lane in range(_LANES):
            x = w_WL[t - 3, lane] ^ w_WL[t - 8, lane] ^ w_WL[t - 14, lane] ^ w_WL[t - 16, lane]
            w_WL[t, lane] = x << np.uint32(1) | x >> np.uint32(31)
    v_5L[:] = state_5L
    for t in range(80):
        for lane in range(_LANES):
            a, b, c, d, e = v_5L[0, lane], v_5L[1, lane], v_5L[2, lane], v_5L[3, lane], v_5L[4, lane]
            if t < 20:
                f = np.uint32((b & c | ~b & d) + _K0)
            elif t < 40:
                f = np.uint32((b ^ c ^ d) + _K1)
            elif t < 60:
                f = np.uint32((b & c | b & d | c & d) + _K2)
            else:
                f = np.uint32((b ^ c ^ d) + _K3)
            v_5L[0, lane] = (a << np.uint32(5) | a >> np.uint32(27)) + f + e + w_WL[t, lane]
            v_5L[1, lane] = a
            v_5L[2, lane] = b << np.uint32(30) | b >> np.uint32(2)
            v_5L[3, lane] = c
            v_5L[4, lane] = d
    for k in range(5):
        for lane in range(_LANES):
            state_5L[k, lane] += v_5L[k, lane] & active_L[lane]


@compiled
def _sha1_all(
    text_C: U8, first_S: I64, end_S: I64, w_WL: U32, state_5L: U32, active_L: U32, v_5L: U32, hash_S: U32
) -> None:
    """The first four bytes of each shingle's SHA-1, little-endian: `datasketch.hashfunc.sha1_hash32`."""
    for base in range(0, hash_S.size, _LANES):
        lanes = min(_LANES, hash_S.size - base)
        blocks = 0
        for lane in range(lanes):
            size = end_S[base + lane] - first_S[base + lane]
            blocks = max(blocks, (size + 8) // _BLOCK + 1)
        for lane in range(_LANES):
            state_5L[0, lane] = _H0
            state_5L[1, lane] = _H1
            state_5L[2, lane] = _H2
            state_5L[3, lane] = _H3
            state_5L[4, lane] = _H4
        for block in range(blocks):
            for lane in range(_LANES):
                active_L[lane] = 0
                if lane < lanes:
                    start, end = first_S[base + lane], end_S[base + lane]
                    if block <= (end - start + 8) // _BLOCK:
                        active_L[lane] = 0xFFFFFFFF
                        _block(text_C, start, end, block, w_WL, lane)
            _sha1_rounds(w_WL, state_5L, active_L, v_5L)
        for lane in range(lanes):
            h = state_5L[0, lane]
            hash_S[base + lane] = np.uint32(
                h >> np.uint32(24)
                | h >> np.uint32(8) & np.uint32(0xFF00)
                | h << np.uint32(8) & np.uint32(0xFF0000)
                | h << np.uint32(24)
            )


@compiled
def text_signatures(
    buffer_C: U8,
    offset_N1: I64,
    tables: Tables,
    words: bool,
    sha1: bool,
    factor_P: U32,
    summand_P: U32,
    signature_NP: U32,
) -> None:
    """datasketch's signature of every text, over SHA-1 or xxHash32; all characters must be in the tables."""
    n = tables.power_T.size
    scratch = new_scratch(offset_N1, n)
    joined_C = np.empty(2 * scratch.text_C.size, np.uint8)
    first_T = np.empty(scratch.token_T.size, np.int64)
    last_T = np.empty(first_T.size, np.int64)
    hash_S = np.empty(first_T.size, np.uint32)
    w_WL = np.zeros((80, _LANES), np.uint32)
    state_5L = np.empty((5, _LANES), np.uint32)
    v_5L = np.empty((5, _LANES), np.uint32)
    active_L = np.empty(_LANES, np.uint32)
    for i in range(offset_N1.size - 1):
        tokens, spaced = cut(buffer_C, offset_N1[i], offset_N1[i + 1], tables, words, scratch)
        _join(scratch, tokens, spaced, joined_C, first_T, last_T)
        count = max(tokens - n + 1, 0)
        if sha1:
            _sha1_all(
                joined_C,
                first_T,
                last_T[n - 1 :],
                w_WL,
                state_5L,
                active_L,
                v_5L,
                hash_S[:count],
            )
        else:
            for s in range(count):
                hash_S[s] = _xxh32(joined_C, first_T[s], last_T[s + n - 1])
        sign(hash_S[:count], factor_P, summand_P, signature_NP[i])
