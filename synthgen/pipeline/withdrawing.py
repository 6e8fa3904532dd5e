"""Accepted rows that become rejects once all are known: those not selected, those the test split asks as well.

In: staged rows, and what is said of some of them. Guarantee: the accounting follows: outcomes, reasons and flags.
"""

import polars as pl

from synthgen.dataset import Staging
from synthgen.pipeline.verdicts import Counts

__all__ = ["withdraw"]


def withdraw(staging: Staging, counts: Counts, said: pl.DataFrame, *, same_split: bool = False) -> None:
    """Make rejects of accepted rows; `said` and `same_split` as in `Staging.withdraw`."""
    if said.height == 0:
        return
    for frame in staging.accepted():
        for flag in frame.join(said, on="id", how="semi")["flags"].explode().drop_nulls():
            counts.flags[flag] -= 1
    counts.flags = {flag: count for flag, count in counts.flags.items() if count}
    staging.withdraw(said, same_split=same_split)
    counts.outcomes["accepted"] -= said.height
    counts.outcomes["rejected"] = counts.outcomes.get("rejected", 0) + said.height
    for stage, reason in said.select("stage", "reason").iter_rows():
        counts.reasons[stage, reason] = counts.reasons.get((stage, reason), 0) + 1
