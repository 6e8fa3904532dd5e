"""Exact comparison of pairs of texts, compiled: each is cut when its turn comes, and its shingles are looked up at once.

In: the buffers of `synthgen.refine.kernel_shingles`, pairs of their texts. Out: the Jaccard of the sets of shingles.
Guarantees: exact (of 64-bit hashes); memory for two texts, whatever the number of pairs.
Rejected: the sets of all texts first, then their intersections: writing, sorting out repeats and reading again took
longer than cutting.

Axes: C bytes, N texts, S shingles, E pairs, X slots of a table.
"""

# ruff: noqa: N803, N806  # arrays carry their axes in their names
import numpy as np

from synthgen.refine.kernel_bits import U8, compiled
from synthgen.refine.kernel_shingles import Tables, new_scratch, shingle_text
from synthgen.refine.shingles import F64, I64, U64

__all__ = ["jaccards"]

_ZERO, _ONE = np.uint64(0), np.uint64(1)


@compiled
def jaccards(
    buffer_C: U8,
    offset_N1: I64,
    done: int,
    tables: Tables,
    words: bool,
    first_E: I64,
    second_E: I64,
    jaccard_E: F64,
) -> int:
    """The Jaccard of every pair from `done` on, 0 where one has no shingles; quick where equal `first_E` are neighbours.

    Returns how many pairs are done: not all where a text of the next has a character that is not in the tables yet.
    """
    scratch = new_scratch(offset_N1, tables.power_T.size)
    room = _table_size(scratch.hash_T.size)
    key_X, rest_X = np.empty(room, np.uint64), np.empty(room, np.uint64)
    met_X = np.empty(room, np.int64)  # the last pair that had the shingle in both
    missed_S = np.empty(scratch.hash_T.size, np.uint64)
    own_X = key_X[:0]
    own = 0
    for e in range(done, first_E.size):
        if e == done or first_E[e] != first_E[e - 1]:
            a = first_E[e]
            count = shingle_text(buffer_C, offset_N1[a], offset_N1[a + 1], tables, words, scratch)
            if count < 0:
                return e
            own_X = key_X[: _table_size(count)]
            met_X[: own_X.size] = -1
            own = _fill(own_X, scratch.hash_T[:count])
        b = second_E[e]
        count = shingle_text(buffer_C, offset_N1[b], offset_N1[b + 1], tables, words, scratch)
        if count < 0:
            return e
        common, missed = _look_up(own_X, met_X, e, scratch.hash_T[:count], missed_S)
        union = own + _fill(rest_X[: _table_size(missed)], missed_S[:missed])
        jaccard_E[e] = common / max(union, 1)
    return int(first_E.size)


@compiled
def _look_up(key_X: U64, met_X: I64, e: int, hash_S: U64, missed_S: U64) -> tuple[int, int]:
    """How many different hashes are in a table; those that are not go to `missed_S`, repeats included, and how many."""
    last = np.uint64(key_X.size - 1)
    common = missed = 0
    for s in range(hash_S.size):
        key = max(hash_S[s], _ONE)
        slot = key & last
        # Found or free is one question, mostly answered yes: whether it is found is not guessed, but added.
        while (key_X[slot] != _ZERO) & (key_X[slot] != key):
            slot = (slot + _ONE) & last
        found = key_X[slot] == key
        common += found & (met_X[slot] != e)
        met_X[slot] = e
        missed_S[missed] = key
        missed += not found
    return common, missed


@compiled
def _fill(key_X: U64, hash_S: U64) -> int:
    """Put hashes into an open table, where 0 is a free slot; how many differ."""
    key_X[:] = _ZERO
    last = np.uint64(key_X.size - 1)
    different = 0
    for s in range(hash_S.size):
        key = max(hash_S[s], _ONE)
        slot = key & last
        while (key_X[slot] != _ZERO) & (key_X[slot] != key):
            slot = (slot + _ONE) & last
        different += key_X[slot] == _ZERO
        key_X[slot] = key
    return different


@compiled
def _table_size(count: int | np.int64) -> int:
    """A power of two that is at least four times the count."""
    size = 4
    while size < 4 * count:
        size *= 2
    return size
