"""The doctor: what an endpoint can do, proved by asking it (see `examine`). Results are light: `findings`."""

from synthgen.asking.doctor.findings import Diagnosis, Finding, Verdict

__all__ = ["Diagnosis", "Finding", "Verdict"]
