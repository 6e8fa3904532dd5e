"""A check, and what it found.

In: a name, a bound and a function that measures. Out: `Result`. A function that cannot measure here raises `Skip` with the
reason; any other error is a failure with its text.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Literal

from synthgen.dataclasses import dataclass

__all__ = ["Check", "Measured", "Result", "Skip", "Status", "examined"]

Status = Literal["pass", "fail", "skip"]


class Skip(Exception):
    """Not to be measured on this machine; the text says why."""


@dataclass(frozen=True, slots=True)
class Measured:
    """`value` has to be at most `bound`; the check's own where it is None. `details` are numbers without a bound."""

    value: float
    bound: float | None = None
    details: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Check:
    """`what` names the measured quantity: 0 is perfect, above `bound` is a failure."""

    name: str
    what: str
    bound: float
    measure: Callable[[], Measured | float]


@dataclass(frozen=True, slots=True)
class Result:
    """`measured` and `bound` are None where nothing was measured; `reason` then says why, as it does for failures."""

    name: str
    what: str
    status: Status
    measured: float | None
    bound: float | None
    reason: str
    seconds: float
    details: Mapping[str, float]


def examined(check: Check) -> Result:
    """Run one check; never raises what the check raises."""
    started = time.monotonic()

    def result(status: Status, found: Measured | None, bound: float | None, reason: str) -> Result:
        # JSON knows no infinity: a value that is no number is told by the reason.
        value = found.value if found is not None and math.isfinite(found.value) else None
        details = found.details if found is not None else {}
        taken = time.monotonic() - started
        return Result(check.name, check.what, status, value, bound, reason, taken, details)

    try:
        found = check.measure()
    except Skip as reason:
        return result("skip", None, None, str(reason))
    except Exception as error:  # stored as a finding: the device broke it, which is what was asked
        return result("fail", None, None, f"{type(error).__name__}: {error}".strip()[:1000])
    measured = found if isinstance(found, Measured) else Measured(found)
    bound = check.bound if measured.bound is None else measured.bound
    if measured.value <= bound:  # False for NaN
        return result("pass", measured, bound, "")
    return result("fail", measured, bound, f"{measured.value:.3g} is above {bound:.3g}")
