"""Shares with their intervals, and the sign test: what needs no arrays.

In: counts. Out: `Estimate`; a p-value. Apart from `agreement`, so that a run without labelled records, which only asks
which of two answers won, loads no numpy.
"""

import math
from dataclasses import asdict
from typing import cast

from synthgen.dataclasses import dataclass
from synthgen.types import JSONValue

__all__ = ["Estimate", "Z", "binomial_p", "wilson"]

Z = 1.959963984540054  # 95 %, two-sided


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number and its 95 % interval; `n` is what it was computed from."""

    value: float
    low: float
    high: float
    n: int

    def as_json(self) -> dict[str, JSONValue]:
        """Plain values."""
        return cast(dict[str, JSONValue], asdict(self))


def wilson(hits: int, of: int) -> Estimate | None:
    """A share with Wilson's interval, which does not leave 0..1 and holds for small numbers; None of nothing.

    Source: Wilson 1927; recommended for small n by Brown, Cai and DasGupta 2001.
    """
    if of == 0:
        return None
    share, spread = hits / of, Z**2 / of
    middle = (share + spread / 2) / (1 + spread)
    half = Z * math.sqrt(share * (1 - share) / of + spread / (4 * of)) / (1 + spread)
    return Estimate(share, max(0.0, middle - half), min(1.0, middle + half), of)


def binomial_p(hits: int, of: int) -> float:
    """Two-sided p of so many hits where each is as likely as not (sign test); 1 of nothing."""
    tail = sum(math.comb(of, k) for k in range(min(hits, of - hits) + 1))
    return min(1.0, float(2 * tail / 2**of))
