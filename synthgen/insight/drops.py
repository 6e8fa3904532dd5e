"""Who loses rows where: per teacher and filter, with intervals; and which combinations of attributes have no row.

In: one frame with a row a candidate. Out: plain JSON. Guarantee: each share is of all candidates of that teacher, so
that the shares of a teacher add up to its losses; nothing is left out because it is rare.
Rejected: shares of what reached a filter (they need the order of the chain, and do not add up).
"""

from collections.abc import Mapping, Sequence
from itertools import combinations, product

import polars as pl

from synthgen.insight.words import wilson
from synthgen.types import JSONValue

__all__ = ["cells", "drop_table"]

_MOST_CELLS = 100_000
_MOST_EMPTY = 200


def drop_table(candidates: pl.DataFrame) -> list[JSONValue]:
    """`teacher stage reason` of every candidate, stage null where it was accepted -> losses with 95 % intervals.

    `unlike_others`: the interval does not meet that of all other teachers together.
    """
    rows = candidates.with_columns(pl.col("teacher").fill_null("(none)"))
    total = dict(rows["teacher"].value_counts().iter_rows())
    lost = rows.filter(pl.col("stage").is_not_null()).with_columns(pl.col("reason").fill_null("?"))
    by_reason = (
        lost.group_by("stage", "reason")
        .len("all")
        .sort("all", "stage", "reason", descending=[True, False, False])
    )
    counted = {tuple(key): n for *key, n in lost.group_by("stage", "reason", "teacher").len().iter_rows()}
    out: list[JSONValue] = []
    for stage, reason, everyone in by_reason.iter_rows():
        for teacher in sorted(total):
            count, of = counted.get((stage, reason, teacher), 0), total[teacher]
            low, high = wilson(count, of)
            others_low, others_high = wilson(everyone - count, rows.height - of)
            unlike = len(total) > 1 and (low > others_high or high < others_low)
            out.append(
                {
                    "teacher": teacher,
                    "stage": stage,
                    "reason": reason,
                    "rows": count,
                    "of": of,
                    "share": round(count / of, 4),
                    "low": round(low, 4),
                    "high": round(high, 4),
                    "unlike_others": unlike,
                }
            )
    return out


def cells(candidates: pl.DataFrame, attributes: Mapping[str, Sequence[str]]) -> dict[str, JSONValue]:
    """Accepted rows by attribute value, and the combinations without any.

    `candidates` has a column for each attribute and `accepted`. Without planned values those that occur count. Where
    all combinations together are too many, those of two attributes are looked at.
    """
    values = {
        name: list(planned) or candidates[name].drop_nulls().unique().sort().to_list()
        for name, planned in attributes.items()
    }
    accepted = candidates.filter("accepted")
    marginal: dict[str, JSONValue] = {}
    for name, known in values.items():
        got = dict(accepted[name].value_counts().iter_rows())
        had = dict(candidates[name].value_counts().iter_rows())
        marginal[name] = [
            {"value": value, "candidates": had.get(value, 0), "accepted": got.get(value, 0)}
            for value in known
        ]
    size = 1
    for known in values.values():
        size *= len(known)
    names = list(values)
    groups = [tuple(names)] if size <= _MOST_CELLS else list(combinations(names, 2))
    empty: list[JSONValue] = []
    planned = 0
    lacking = 0
    for group in groups:
        there = set(accepted.select(group).unique().iter_rows())
        for cell in product(*(values[name] for name in group)):
            planned += 1
            if cell not in there:
                lacking += 1
                if len(empty) < _MOST_EMPTY:
                    empty.append(dict(zip(group, cell, strict=True)))
    return {"values": marginal, "cells": planned, "empty": lacking, "empty_cells": empty}
