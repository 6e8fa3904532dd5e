"""What is made of shingles, compiled: MinHash signatures and band keys.

In: the buffers of `synthgen.refine.kernel_shingles`. Out: arrays the caller allocated. Guarantees: those of that module.

Axes: C bytes, X code points, T tokens, S shingles, N texts, P permutations, B bands.
"""

# ruff: noqa: N803, N806  # arrays carry their axes in their names
import numpy as np

from synthgen.refine.kernel_bits import LANES, U8, compiled, lower_corners, lower_lanes
from synthgen.refine.kernel_lanes import EIGHT
from synthgen.refine.kernel_shingles import Tables, new_scratch, shingle_text
from synthgen.refine.shingles import CHAR_BASE, CORNER_BITS, I64, U32, U64

__all__ = ["band_keys", "sign", "signatures"]

_CHAR_BASE = np.uint64(CHAR_BASE)
_29 = np.uint64(29)
_TOP32 = np.uint32(0xFFFFFFFF)
_GROUP = LANES << CORNER_BITS


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
def sign_corners(hash_S: U64, factor_P: U32, summand_P: U32, low_P: U32, signature_P: U32) -> None:
    """`shingles.sign_corners` of one text, by the upper halves of its hashes, which are whole eights.

    `low_P`: room for whole groups of places.
    """
    for group in range(low_P.size // _GROUP):
        own_P = low_P[group * _GROUP : (group + 1) * _GROUP]
        own_P[: _GROUP // 2] = _TOP32
        own_P[_GROUP // 2 :] = np.uint32(0)
        for s in range(0, hash_S.size, EIGHT):
            lower_corners(low_P, factor_P, summand_P, group, hash_S, s, 8)
        for p in range(_GROUP // 2, _GROUP):
            own_P[p] = ~own_P[p]
    signature_P[:] = low_P[: signature_P.size]


@compiled
def signatures(
    buffer_C: U8,
    offset_N1: I64,
    done: int,
    tables: Tables,
    words: bool,
    factor_P: U32,
    summand_P: U32,
    signature_NP: U32,
    total_N: U64,
) -> int:
    """The signature of every text from `done` on over its `fast` hashes, and the sum of those (0: it has none).

    Returns how many texts are done: not all where the next has a character that is not in the tables yet.
    """
    scratch = new_scratch(offset_N1, tables.power_T.size)
    low_P = np.empty((factor_P.size + _GROUP - 1) // _GROUP * _GROUP, np.uint32)
    for i in range(done, offset_N1.size - 1):
        count = shingle_text(buffer_C, offset_N1[i], offset_N1[i + 1], tables, words, scratch)
        if count < 0:
            return i
        total_N[i] = scratch.hash_T[:count].sum()
        if factor_P.size > 0:
            whole = (count + EIGHT - 1) // EIGHT * EIGHT
            for s in range(count, whole):
                scratch.hash_T[s] = scratch.hash_T[s - 1]  # once more changes no minimum
            sign_corners(scratch.hash_T[:whole], factor_P, summand_P, low_P, signature_NP[i])
    return int(offset_N1.size - 1)


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
