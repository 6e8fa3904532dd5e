"""What was proved of an endpoint, as values that outlive the proof.

In: verdicts of probes. Out: `Finding`, `Diagnosis`, and their JSON form, the content of `doctor.json`. Guarantees:
`unknown` and `error` never mean "no"; what is read back equals what was written; reading never raises for what a
newer or older version may have written there, it gives None. Imports no library: `plan` and `generate` read this.
Rejected: one boolean per ability (it cannot say "not proved", and a recipe would be refused for a busy server).
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Literal, TypeAlias, cast, get_args

from synthgen.dataclasses import dataclass
from synthgen.types import JSONValue

__all__ = ["Diagnosis", "Finding", "Verdict"]

# no: the server refused it, or said yes and did not do it. unknown: it could not be told. error: it could not be tried.
Verdict: TypeAlias = Literal["yes", "no", "unknown", "error"]
_VERDICTS: tuple[str, ...] = get_args(Verdict)
_TEXTS = ("alias", "provider", "model", "route", "endpoint", "teacher", "day")
_NEEDED = ("reachable", "key", "model", "chat", "steady")


@dataclass(frozen=True, slots=True)
class Finding:
    """One proof: `evidence` is one line for people, `value` the part programs read (a number, names, flags)."""

    probe: str
    verdict: Verdict
    evidence: str
    value: JSONValue = None

    @classmethod
    def from_json(cls, stored: Mapping[str, JSONValue]) -> "Finding | None":
        """The finding that was stored, None where it is not one."""
        probe, verdict, evidence = (stored.get(name) for name in ("probe", "verdict", "evidence"))
        if not isinstance(probe, str) or verdict not in _VERDICTS or not isinstance(evidence, str):
            return None
        return cls(probe, cast(Verdict, verdict), evidence, stored.get("value"))


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All findings about one endpoint of one teacher.

    `teacher` is the digest of what the findings depend on: another digest, another teacher. `day` is an ISO date.
    `cost_usd` is None where the price is unknown.
    """

    alias: str
    provider: str
    model: str
    route: str
    endpoint: str
    teacher: str
    day: str
    findings: tuple[Finding, ...]
    sent: int = 0
    cost_usd: float | None = None

    @property
    def usable(self) -> bool:
        """Whether a run could ask this endpoint: it answers a plain question as the model that was asked for, and went on
        answering."""
        chat = self.find("chat")
        return chat is not None and chat.verdict == "yes" and self.trouble is None

    @property
    def trouble(self) -> Finding | None:
        """The first finding that keeps a run from asking this endpoint at all."""
        needed = (self.find(probe) for probe in _NEEDED)
        return next((finding for finding in needed if finding and finding.verdict in ("no", "error")), None)

    def find(self, probe: str) -> Finding | None:
        """What a probe found, None if it was not made."""
        return next((finding for finding in self.findings if finding.probe == probe), None)

    def as_json(self) -> dict[str, JSONValue]:
        """The shape stored and printed."""
        return {**cast(dict[str, JSONValue], asdict(self)), "usable": self.usable}

    @classmethod
    def from_json(cls, stored: Mapping[str, JSONValue]) -> "Diagnosis | None":
        """The diagnosis that was stored, None where it is not one."""
        texts = {name: stored.get(name) for name in _TEXTS}
        listed, sent, cost = (stored.get(name) for name in ("findings", "sent", "cost_usd"))
        if not all(isinstance(text, str) for text in texts.values()) or not isinstance(listed, list):
            return None
        read = [Finding.from_json(item) for item in listed if isinstance(item, dict)]
        return cls(
            **cast(dict[str, str], texts),
            findings=tuple(finding for finding in read if finding is not None),
            sent=sent if isinstance(sent, int) else 0,
            cost_usd=float(cost) if isinstance(cost, int | float) else None,
        )
