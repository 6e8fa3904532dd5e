"""Which short rows share a sequence.

In: lengths in tokens and a capacity. Out: groups of indices. Guarantees: every index in one group, no group over the
capacity, the same groups for the same lengths. The rows of a group do not see each other: `batch.collate` restarts the
positions with each, and `probe.require_separation` proves on the model at hand that this separates them.
Rejected: cutting rows to fill sequences to the brim ("wrapped"), which trains on torn texts.
"""

import bisect
from collections.abc import Sequence

__all__ = ["pack"]


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Best fit, longest first; groups in the order of their first row. O(n log n).

    Raises:
        ValueError: a length is over the capacity.

    Source: Ding et al. 2024, "Fewer Truncations Improve Language Modeling" (best-fit packing).
    """
    if lengths and max(lengths) > capacity:
        raise ValueError(f"a row of {max(lengths)} tokens does not fit into {capacity}")
    groups: list[list[int]] = []
    free: list[tuple[int, int]] = []  # (room left, group), sorted
    for index in sorted(range(len(lengths)), key=lambda at: (-lengths[at], at)):
        place = bisect.bisect_left(free, (lengths[index], -1))
        if place == len(free):
            groups.append([])
            room, group = capacity, len(groups) - 1
        else:
            room, group = free.pop(place)
        groups[group].append(index)
        bisect.insort(free, (room - lengths[index], group))
    for members in groups:
        members.sort()
    return sorted(groups)
