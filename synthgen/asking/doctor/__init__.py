"""The doctor: what an endpoint can do, proved by asking it (see `examine`). Results are light: `findings`."""

from typing import TYPE_CHECKING

from synthgen.lazy import lazily

if TYPE_CHECKING:
    from synthgen.asking.doctor.findings import Diagnosis, Finding, Verdict

__all__ = ["Diagnosis", "Finding", "Verdict"]

__getattr__ = lazily(
    __name__,
    {
        "findings": (
            "Diagnosis",
            "Finding",
            "Verdict",
        ),
    },
)
