"""Who of similar rows may stay: the order of survival, and the guard against a set that collapses.

In: what is known of every row, as columns. Out: the rows in that order; sentences about what looks like an accident.
Guarantee: the order depends on what the rows are, never on where they lie, so that the same rows stay whatever the order
of files; rows that are equal in all that counts are interchangeable.
"""

# ruff: noqa: N803, N806  # arrays carry their axes in their names
from collections.abc import Sequence
from typing import Literal

import numpy as np
import polars as pl

from synthgen.dataclasses import dataclass
from synthgen.errors import UsageError
from synthgen.refine.shingles import I64, mix

__all__ = ["Keep", "collapse", "parse_keep", "survival_order"]

# marin#6854: a template met unverified candidates, and 859 089 of 859 092 rows of a function-calling set were removed.
_CLUSTER_ROWS = 1000
_CLUSTER_SHARE = 0.05
_SOURCE_SHARE = 0.5
_SOURCE_LOSS = 20  # fewer lost rows are no accident worth stopping for


@dataclass(frozen=True, slots=True)
class Keep:
    """Which of similar rows stays: `first` the smallest id, `longest` the most characters compared, `best` the highest
    value of the column `score`, `random` one drawn by `seed`; equal ones by id."""

    policy: Literal["first", "longest", "best", "random"] = "first"
    score: str = ""
    seed: int = 0

    def said(self) -> str:
        """As `parse_keep` reads it."""
        match self.policy:
            case "best":
                return f"best:{self.score}"
            case "random":
                return f"random:{self.seed}"
            case policy:
                return policy


def parse_keep(text: str) -> Keep:
    """`first`, `longest`, `best:COLUMN`, `random` or `random:SEED`.

    Raises:
        UsageError: it is none of these.
    """
    policy, _, value = text.partition(":")
    match policy, value:
        case ("first" | "longest" | "random") as plain, "":
            return Keep(plain)
        case "best", score if score:
            return Keep("best", score=score)
        case "random", seed if seed.isdecimal():
            return Keep("random", seed=int(seed))
    raise UsageError(f"keep {text!r}: write first, longest, best:COLUMN or random:SEED")


def survival_order(rows: pl.DataFrame, keep: Keep) -> I64:
    """Row numbers, those that may stay first. `rows` has `digest` (UInt64), and as the policy needs `id`, `chars`,
    `score`; nulls come last."""
    keys: list[tuple[str, bool]] = [("id", False)] if "id" in rows.columns else []
    if keep.policy == "longest":
        keys.insert(0, ("chars", True))
    elif keep.policy == "best":
        rows = rows.with_columns(pl.col("score").fill_nan(None))  # polars takes it for the largest number
        keys.insert(0, ("score", True))
    elif keep.policy == "random":
        seed = mix(np.array([keep.seed % 2**64], np.uint64))[0]
        drawn = mix(rows["digest"].to_numpy() ^ seed)
        rows = rows.with_columns(pl.Series("drawn", drawn))
        keys.insert(0, ("drawn", False))
    keys.append(("digest", False))
    names, descending = [name for name, _ in keys], [down for _, down in keys]
    order = rows.select(pl.arg_sort_by(names, descending=descending, nulls_last=True, maintain_order=True))
    return order.to_series().cast(pl.Int64).to_numpy()


def collapse(cluster_N: I64, own_N: I64, source: pl.Series, names: Sequence[str]) -> list[str]:
    """What looks like a template and not like duplicates: a cluster of a twentieth of all rows (and over 1000), a source
    that loses over half of its rows. `cluster_N`: what each row's cluster is called, `own_N` its own name where it
    survives; `source`: its number in `names`."""
    out = []
    removed_M = np.flatnonzero(cluster_N != own_N)
    largest = 0
    if removed_M.size:
        largest = int(np.unique(cluster_N[removed_M], return_counts=True)[1].max()) + 1
        if largest > max(_CLUSTER_ROWS, _CLUSTER_SHARE * cluster_N.size):
            out.append(f"one cluster holds {largest} of {cluster_N.size} rows")
    total = np.bincount(source.to_numpy(), minlength=len(names))
    lost = np.bincount(source.to_numpy()[removed_M], minlength=len(names))
    for number in np.flatnonzero((lost > _SOURCE_SHARE * total) & (lost >= _SOURCE_LOSS)).tolist():
        out.append(
            f"{names[number]} loses {lost[number]} of its {total[number]} rows, in clusters of up to {largest}"
        )
    return out
