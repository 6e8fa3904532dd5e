"""Samples of one question, in one batch: a filter that compares them sees all of them.

In: batches of foreign rows, and the field that is equal for the samples of a question. Out: the same rows in the same order, cut
elsewhere. Guarantee: rows beside one another with an equal value are in one batch, however many.
Rejected: a table of all answers by question (memory of the size of the data); samples far apart are compared apart.
"""

from collections.abc import Iterator
from dataclasses import replace

import polars as pl

from synthgen.dataset import Batch
from synthgen.refine import Chain
from synthgen.refine.filters.compared import ConsistencyParams
from synthgen.refine.filters.fields import field_values

__all__ = ["group_field", "whole_groups"]


def group_field(chain: Chain) -> str | None:
    """The field by which a step of the chain compares rows."""
    named = (step.params.group for step in chain.steps if isinstance(step.params, ConsistencyParams))
    return next((name for name in named if name is not None), None)


def whole_groups(batches: Iterator[Batch], field: str | None) -> Iterator[Batch]:
    """The batches, with the last group of each moved to the next one."""
    if field is None:
        yield from batches
        return
    held: Batch | None = None
    for batch in batches:
        if held is not None:
            batch = replace(
                batch, frame=pl.concat([held.frame, batch.frame]), fields=(*held.fields, *batch.fields)
            )
        values = field_values(pl.DataFrame({"fields": pl.Series(batch.fields, dtype=pl.String)}), field)
        cut = len(values)
        while cut and values[-1] is not None and values[cut - 1] == values[-1]:
            cut -= 1
        held = replace(batch, frame=batch.frame[cut:], fields=batch.fields[cut:], bad=())
        yield replace(batch, frame=batch.frame[:cut], fields=batch.fields[:cut])
    if held is not None:
        yield held
