"""SHA-1 and xxHash32 of the shingles' text, as datasketch users hash them: the path without the compiled kernel.

In: texts. Out: 32-bit hashes of the UTF-8 of each shingle, folded words joined by one space (characters by nothing).
Guarantee: equal to `datasketch.hashfunc.sha1_hash32` and to `xxhash.xxh32_intdigest` of the same bytes.
Slow for SHA-1, one call of hashlib a shingle; the kernel has the quick form.
"""

# ruff: noqa: N803, N806  # arrays carry their axes in their names
from collections.abc import Sequence
from hashlib import sha1

import numpy as np

from synthgen.refine.shingles import I64, U32, words_of

__all__ = ["shingle_texts", "text_hashes", "xxh32"]

_P1, _P2, _P3, _P4, _P5 = (np.uint32(x) for x in (2654435761, 2246822519, 3266489917, 668265263, 374761393))


def text_hashes(texts: Sequence[str], n: int, *, words: bool, sha: bool) -> tuple[U32, I64]:
    """`hash_S` of all shingles, and `offset_N1` where those of each text begin."""
    shingles = [shingle_texts(text, n, words=words) for text in texts]
    offset_N1 = np.cumsum([0, *map(len, shingles)], dtype=np.int64)
    messages = [shingle for own in shingles for shingle in own]
    if not sha:
        return xxh32(messages), offset_N1
    digests = b"".join(sha1(message, usedforsecurity=False).digest()[:4] for message in messages)
    return np.frombuffer(digests, "<u4").astype(np.uint32), offset_N1


def shingle_texts(text: str, n: int, *, words: bool = True) -> list[bytes]:
    """The shingles of one text as UTF-8, in order, repeats included."""
    tokens = words_of(text) if words else []
    if len(tokens) >= n:
        return [" ".join(tokens[i : i + n]).encode() for i in range(len(tokens) - n + 1)]
    characters = "".join(text.casefold().split())
    padded = characters + "\0" * (n - 1)
    return [padded[i : i + n].encode("utf-8", "replace") for i in range(len(characters))]


def xxh32(messages: Sequence[bytes]) -> U32:
    """xxHash32 with seed 0 of each message (specification: doc/xxhash_spec.md of the xxHash repository)."""
    size_S = np.array([len(message) for message in messages], np.int64)
    hash_S = np.empty(len(messages), np.uint32)
    for size in np.unique(size_S).tolist():
        same = np.flatnonzero(size_S == size)
        joined = b"".join(messages[i] for i in same.tolist())
        hash_S[same] = _xxh32_of_one_size(np.frombuffer(joined, np.uint8).reshape(same.size, size))
    return hash_S


def _xxh32_of_one_size(byte_SC: np.typing.NDArray[np.uint8]) -> U32:
    count, size = byte_SC.shape
    at = 0
    h = np.full(count, _P5, np.uint32)
    if size >= 16:
        start = np.array([int(_P1) + int(_P2), int(_P2), 0, -int(_P1)], np.int64).astype(np.uint32)
        lanes_S4 = np.tile(start, (count, 1))
        while size - at >= 16:
            word_S4: U32 = np.ascontiguousarray(byte_SC[:, at : at + 16]).view("<u4")
            lanes_S4 = _rotate(lanes_S4 + word_S4 * _P2, 13) * _P1
            at += 16
        a, b, c, d = (_rotate(lanes_S4[:, k], bits) for k, bits in enumerate((1, 7, 12, 18)))
        h = a + b + c + d
    h = h + np.uint32(size)
    while size - at >= 4:
        word_S: U32 = np.ascontiguousarray(byte_SC[:, at : at + 4]).view("<u4")[:, 0]
        h = _rotate(h + word_S * _P3, 17) * _P4
        at += 4
    for k in range(at, size):
        h = _rotate(h + byte_SC[:, k] * _P5, 11) * _P1
    h = (h ^ h >> np.uint32(15)) * _P2
    h = (h ^ h >> np.uint32(13)) * _P3
    return h ^ h >> np.uint32(16)


def _rotate(word_X: U32, bits: int) -> U32:
    turned: U32 = word_X << np.uint32(bits) | word_X >> np.uint32(32 - bits)
    return turned
