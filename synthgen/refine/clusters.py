"""From verified pairs to clusters with one survivor each.

In: pairs with their exact Jaccard, in the order in which rows may survive. Out: for each row the cluster it is in and the
row it repeats. Guarantees: each cluster has exactly one survivor; `of` and `jaccard` are a verified pair, at or above the
threshold; no two survivors are a verified pair; no row of a cluster is further from its survivor than `SLACK` below
the threshold.
Rejected: transitive closure (A~B~C drops C for an A that is not like it; on templated rows it drops nearly everything).

    1  in the order: who is not removed yet survives, and removes its neighbours
    2  a cluster with a neighbour in an earlier one joins it, if all of its rows are near that one's survivor

The second step is what finds all variants of a text whose survivor is a variant itself: two edits of one text differ from
each other twice as much as from it.

Axes: N rows by place in the order, E pairs, J possible joins, M members.
"""

# ruff: noqa: N803, N806, N815  # arrays carry their axes in their names
from collections.abc import Callable

import numpy as np

from synthgen.dataclasses import dataclass
from synthgen.refine.shingles import F64, I64, U64

__all__ = ["SLACK", "Duplicates", "Edges", "join_pair", "settle", "split_pair"]

SLACK = 0.1  # two edits with 0.87 to their source have 0.75 to each other: 1 - 2 * (1 - 0.87)
_32 = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)


@dataclass(frozen=True, slots=True)
class Edges:
    """Verified pairs, ascending, with their exact Jaccard, each at least the threshold."""

    pair_E: U64
    jaccard_E: F64


@dataclass(frozen=True, slots=True)
class Duplicates:
    """By row: `cluster_N`, its survivor's row, its own where it survives; `of_N`, the row it repeats, -1 where it
    survives; `jaccard_N` of the two, 0 there."""

    cluster_N: I64
    of_N: I64
    jaccard_N: F64


def join_pair(first_E: I64, second_E: I64) -> U64:
    """Two places below 2**32 as one number."""
    return first_E.astype(np.uint64) << _32 | second_E.astype(np.uint64)


def split_pair(pair_E: U64) -> tuple[I64, I64]:
    """The places of pairs."""
    return (pair_E >> _32).astype(np.int64), (pair_E & _LOW).astype(np.int64)


def settle(
    edges: Edges,
    copy_N: I64,
    order_N: I64,
    jaccard_of: Callable[[U64], F64],
    *,
    threshold: float,
    references: int = 0,
) -> Duplicates:
    """Clusters of all rows. `copy_N`: the place whose shingles a place has, its own if none; `jaccard_of` pairs of places
    that occur in `edges`. The first `references` places stay in any case, and only their own neighbours join them."""
    first_E, second_E = split_pair(edges.pair_E)
    removed = bytearray(order_N.size)
    for first, second in zip(first_E.tolist(), second_E.tolist(), strict=True):
        if not removed[first]:
            removed[second] = 1
    removed_N = np.frombuffer(removed, np.bool_)
    found = _Places.fresh(order_N.size)
    stays_E = ~removed_N[first_E]
    found.name(second_E[stays_E], first_E[stays_E], edges.jaccard_E[stays_E])
    found.cluster_N[found.of_N >= 0] = found.of_N[found.of_N >= 0]
    _join_clusters(found, edges, jaccard_of, threshold, references)
    copies = np.flatnonzero(copy_N != np.arange(copy_N.size))
    copies = copies[copies >= references]
    found.copy(copies, copy_N[copies])
    return found.by_row(order_N)


@dataclass(frozen=True, slots=True)
class _Places:
    """`Duplicates` by place, being made."""

    cluster_N: I64
    of_N: I64
    jaccard_N: F64

    @classmethod
    def fresh(cls, count: int) -> "_Places":
        return cls(np.arange(count), np.full(count, -1, np.int64), np.zeros(count))

    def name(self, place_E: I64, of_E: I64, jaccard_E: F64) -> None:
        """Let each place name the most similar of those offered, of equal ones the first."""
        best = np.lexsort((of_E, -jaccard_E, place_E))
        best = best[np.unique(place_E[best], return_index=True)[1]]
        self.of_N[place_E[best]], self.jaccard_N[place_E[best]] = of_E[best], jaccard_E[best]

    def copy(self, copies: I64, model: I64) -> None:
        """Copies are where the text they stand for is; where that one stays, it is what they repeat."""
        stays = self.of_N[model] < 0
        self.cluster_N[copies] = self.cluster_N[model]
        self.of_N[copies] = np.where(stays, model, self.of_N[model])
        self.jaccard_N[copies] = np.where(stays, 1.0, self.jaccard_N[model])

    def by_row(self, order_N: I64) -> Duplicates:
        """From places to rows."""
        out = Duplicates(np.empty_like(self.of_N), np.empty_like(self.of_N), np.empty_like(self.jaccard_N))
        out.cluster_N[order_N] = order_N[self.cluster_N]
        out.of_N[order_N] = np.where(self.of_N < 0, -1, order_N[self.of_N])
        out.jaccard_N[order_N] = self.jaccard_N
        return out


def _join_clusters(
    found: _Places, edges: Edges, jaccard_of: Callable[[U64], F64], threshold: float, references: int
) -> None:
    """The second step, in place."""
    first_E, second_E = split_pair(edges.pair_E)
    ours_E, theirs_E = found.cluster_N[first_E], found.cluster_N[second_E]
    apart = (ours_E != theirs_E) & (np.minimum(ours_E, theirs_E) >= references)
    if not apart.any():
        return
    earlier_J = ours_E[apart] < theirs_E[apart]
    first_J, second_J, jaccard_J = first_E[apart], second_E[apart], edges.jaccard_E[apart]
    via_J, link_J = np.where(earlier_J, first_J, second_J), np.where(earlier_J, second_J, first_J)
    host_J, guest_J = found.cluster_N[via_J], found.cluster_N[link_J]
    hosts = _hosts(found.cluster_N, np.unique(join_pair(host_J, guest_J)), jaccard_of, threshold - SLACK)
    joined = np.array([hosts.get(guest, -1) for guest in guest_J.tolist()]) == host_J
    via_J, link_J, guest_J, jaccard_J = (x[joined] for x in (via_J, link_J, guest_J, jaccard_J))
    direct = link_J == guest_J
    found.name(guest_J[direct], via_J[direct], jaccard_J[direct])
    linked = np.flatnonzero(~np.isin(guest_J, guest_J[direct]))
    linked = linked[np.lexsort((via_J[linked], link_J[linked], -jaccard_J[linked], guest_J[linked]))]
    linked = linked[np.unique(guest_J[linked], return_index=True)[1]]
    guest, link = guest_J[linked], link_J[linked]  # the survivor names its row that is like one of the host's
    found.of_N[guest], found.jaccard_N[guest] = link, found.jaccard_N[link]
    found.of_N[link], found.jaccard_N[link] = via_J[linked], jaccard_J[linked]
    goes_N = np.arange(found.cluster_N.size)
    goes_N[list(hosts)] = list(hosts.values())
    found.cluster_N[:] = goes_N[found.cluster_N]


def _hosts(cluster_N: I64, pair_J: U64, jaccard_of: Callable[[U64], F64], lowest: float) -> dict[int, int]:
    """Guest -> the host it joins: near enough with all of its members, of several the nearest, and a survivor still."""
    host_J, guest_J = split_pair(pair_J)
    by_cluster = np.argsort(cluster_N, kind="stable")
    start_J = np.searchsorted(cluster_N[by_cluster], guest_J)
    size_J = np.searchsorted(cluster_N[by_cluster], guest_J, side="right") - start_J
    begin_J = np.cumsum(size_J) - size_J
    member_M = by_cluster[np.repeat(start_J - begin_J, size_J) + np.arange(size_J.sum())]
    pair_M, place_M = np.unique(join_pair(np.repeat(host_J, size_J), member_M), return_inverse=True)
    jaccard_M = jaccard_of(pair_M)[place_M]
    near = np.minimum.reduceat(jaccard_M, begin_J) >= lowest
    own_J = jaccard_M[begin_J]  # a survivor is the first of its members
    host_J, guest_J, own_J = host_J[near], guest_J[near], own_J[near]
    hosts: dict[int, int] = {}
    for i in np.lexsort((host_J, -own_J, guest_J)).tolist():
        host, guest = int(host_J[i]), int(guest_J[i])
        if guest not in hosts and host not in hosts:
            hosts[guest] = host
    return hosts
