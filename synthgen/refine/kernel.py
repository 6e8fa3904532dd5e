"""What is made of shingles, compiled: MinHash signatures, band keys and exact set comparison.

In: the buffers of `synthgen.refine.kernel_shingles`. Out: arrays the caller allocated. Guarantees: those of that module.

Axes: C bytes, X code points, T tokens, S shingles, N texts, P permutations, B bands, E pairs.
"""

# ruff: noqa: N803, N806  # arrays carry their axes in their names
import numpy as np

from synthgen.refine.kernel_bits import LANES, U8, compiled, lower_corners, lower_lanes
from synthgen.refine.kernel_shingles import Tables, new_scratch, shingle_text
from synthgen.refine.shingles import CHAR_BASE, CORNER_BITS, I64, U32, U64

__all__ = ["band_keys", "count_common", "shingle_sets", "sign", "signatures"]

_CHAR_BASE = np.uint64(CHAR_BASE)
_ZERO, _ONE, _6, _29, _32, _63 = (np.uint64(x) for x in (0, 1, 6, 29, 32, 63))
_TOP32 = np.uint32(0xFFFFFFFF)
_GROUP = LANES << CORNER_BITS
_SEEN_BITS = 1 << 16
_SEEN_LAST = np.uint64(_SEEN_BITS - 1)
_SEEN_MOST = 512  # of more shingles, two are likely to share a bit


@compiled
def mix32(h: np.uint32) -> np.uint32:
    """MurmurHash3's 32-bit finaliser."""
    h ^= h >> np.uint32(16)
    h = np.uint32(h * np.uint32(0x85EBCA6B))
    h ^= h >> np.uint32(13)
    h = np.uint32(h * np.uint32(0xC2B2AE35))
    return np.uint32(h ^ (h >> np.uint32(16)))


@compiled
def sign(hash_S: U32, factor_P: U32, summand_P: U32, signature_P: U32) -> None:
    """datasketch's `affine32` signature of 32-bit hashes, which are mixed in place."""
    for s in range(hash_S.size):
        hash_S[s] = mix32(hash_S[s])
    signature_P[:] = _TOP32
    eights = hash_S.size - hash_S.size % 8
    lanes = signature_P.size - signature_P.size % LANES
    for p in range(0, lanes, LANES):
        for s in range(0, eights, 8):
            lower_lanes(signature_P, factor_P, summand_P, p, hash_S, s, 8)
        for s in range(eights, hash_S.size):
            lower_lanes(signature_P, factor_P, summand_P, p, hash_S, s, 1)
    for p in range(lanes, signature_P.size):
        for s in range(hash_S.size):
            signature_P[p] = min(signature_P[p], np.uint32(hash_S[s] * factor_P[p] + summand_P[p]))


@compiled
def sign_corners(hash_S: U32, factor_P: U32, summand_P: U32, low_P: U32, signature_P: U32) -> None:
    """`shingles.sign_corners` of one text. `low_P`: room for whole groups of places."""
    eights = hash_S.size - hash_S.size % 8
    for group in range(low_P.size // _GROUP):
        own_P = low_P[group * _GROUP : (group + 1) * _GROUP]
        own_P[: _GROUP // 2] = _TOP32
        own_P[_GROUP // 2 :] = np.uint32(0)
        for s in range(0, eights, 8):
            lower_corners(low_P, factor_P, summand_P, group, hash_S, s, 8)
        for s in range(eights, hash_S.size):
            lower_corners(low_P, factor_P, summand_P, group, hash_S, s, 1)
        for p in range(_GROUP // 2, _GROUP):
            own_P[p] = ~own_P[p]
    signature_P[:] = low_P[: signature_P.size]


@compiled
def signatures(
    buffer_C: U8,
    offset_N1: I64,
    tables: Tables,
    words: bool,
    factor_P: U32,
    summand_P: U32,
    signature_NP: U32,
    total_N: U64,
) -> bool:
    """The signature of every text over its `fast` hashes, and the sum of those (0: it has none).

    False where a character is not in the tables yet: `unknown_points` finds it, then all of it must be done again.
    """
    scratch = new_scratch(offset_N1, tables.power_T.size)
    hash_S = np.empty(scratch.hash_T.size, np.uint32)
    low_P = np.empty((factor_P.size + _GROUP - 1) // _GROUP * _GROUP, np.uint32)
    for i in range(offset_N1.size - 1):
        count = shingle_text(buffer_C, offset_N1[i], offset_N1[i + 1], tables, words, scratch)
        if count < 0:
            return False
        total = _ZERO
        for s in range(count):
            total += scratch.hash_T[s]
            hash_S[s] = np.uint32(scratch.hash_T[s] >> _32)
        total_N[i] = total
        if factor_P.size > 0:
            sign_corners(hash_S[:count], factor_P, summand_P, low_P, signature_NP[i])
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
    buffer_C: U8, offset_N1: I64, tables: Tables, words: bool, hash_S: U64, set_offset_N1: I64
) -> bool:
    """The shingles of every text without repeats, in order of their first place, one text behind the other.

    False where a character is not in the tables yet.
    """
    scratch = new_scratch(offset_N1, tables.power_T.size)
    seen_W = np.zeros(_SEEN_BITS // 64, np.uint64)
    space_T = np.empty(_table_size(scratch.hash_T.size), np.uint64)
    end_S = np.int64(0)
    set_offset_N1[0] = 0
    for i in range(offset_N1.size - 1):
        count = shingle_text(buffer_C, offset_N1[i], offset_N1[i + 1], tables, words, scratch)
        if count < 0:
            return False
        hash_S1 = scratch.hash_T[:count]
        if _all_differ(hash_S1, seen_W):
            hash_S[end_S : end_S + count] = hash_S1
            end_S += count
        else:
            table = space_T[: _table_size(count)]
            table[:] = _ZERO
            for s in range(count):
                hash_S[end_S] = hash_S1[s]
                end_S += _insert(table, hash_S1[s])
        set_offset_N1[i + 1] = end_S
    return True


@compiled
def _all_differ(hash_S: U64, seen_W: U64) -> bool:
    """Whether no two have the same low bits, which most texts of some hundred shingles pass; `seen_W`: zeros."""
    if hash_S.size > _SEEN_MOST:
        return False
    met = _ZERO
    for s in range(hash_S.size):
        bit = hash_S[s] & _SEEN_LAST
        word, mask = bit >> _6, _ONE << (bit & _63)
        met |= seen_W[word] & mask
        seen_W[word] |= mask
    for s in range(hash_S.size):
        seen_W[(hash_S[s] & _SEEN_LAST) >> _6] = _ZERO
    return bool(met == _ZERO)


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
        common_E[e] = _count_held(table, hash_S[set_offset_N1[b] : set_offset_N1[b + 1]])


@compiled
def _count_held(table: U64, hash_S: U64) -> int:
    """How many are in a table."""
    last = np.uint64(table.size - 1)
    count = 0
    for s in range(hash_S.size):
        key = max(hash_S[s], _ONE)
        slot = key & last
        # Found or free is one question, mostly answered yes: whether it is found is not guessed, but added.
        while (table[slot] != _ZERO) & (table[slot] != key):
            slot = (slot + _ONE) & last
        count += table[slot] == key
    return count


@compiled
def _table_size(count: int | np.int64) -> int:
    """A power of two that is at least four times the count."""
    size = 4
    while size < 4 * count:
        size *= 2
    return size


@compiled
def _insert(table: U64, wanted: np.uint64) -> bool:
    """Put a hash into an open table, where 0 is a free slot; whether it was not there."""
    key = max(wanted, _ONE)
    last = np.uint64(table.size - 1)
    slot = key & last
    while (table[slot] != _ZERO) & (table[slot] != key):
        slot = (slot + _ONE) & last
    fresh = table[slot] == _ZERO
    table[slot] = key
    return bool(fresh)
