"""Verdicts and their accounting: planned = accepted + rejected + failed + quarantined + surplus + pending, always."""

from collections.abc import Sequence
from dataclasses import field
from typing import Literal

from synthgen.dataclasses import dataclass, inner
from synthgen.pipeline.judgement import Judgement
from synthgen.pipeline.tree import Leaf
from synthgen.types import Message

__all__ = [
    "HOLDOUT",
    "SELECT",
    "Counts",
    "Objection",
    "Origin",
    "Outcome",
    "Read",
    "Target",
    "Verdict",
    "prompt_and_answer",
]

# What rejects call the dataset's own test split where train rows repeat it: stage `decontaminate:test_split`.
HOLDOUT = "test_split"
# The stage of rejects that were good enough and not chosen.
SELECT = "select"
Outcome = Literal["accepted", "rejected", "failed", "quarantined", "surplus", "pending"]


@dataclass(frozen=True, slots=True)
class Objection:
    """What policy holds against a leaf: where it goes, the reason code, and words for people."""

    outcome: Literal["quarantined", "surplus"]
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Origin:
    """What policy says of a leaf's text, whatever the decision was."""

    route: str
    row_license: str
    seed_relation: str
    policy_id: str
    generation: int | None


@inner(frozen=True, slots=True)
class Verdict:
    """What became of a leaf, and why. `outcome` None: it passed everything so far."""

    leaf: Leaf
    outcome: Outcome | None
    stage: str | None = None
    reason: str | None = None
    score: float | None = None
    threshold: float | None = None
    detail: str | None = None
    scores: tuple[tuple[str, float], ...] = ()
    flags: tuple[str, ...] = ()
    judgements: tuple[Judgement, ...] = ()


@dataclass(slots=True)
class Target:
    """How many records are wanted and how many there are."""

    wanted: int | None
    accepted: int = 0

    @property
    def met(self) -> bool:
        """Whether nothing more is wanted."""
        return self.wanted is not None and self.accepted >= self.wanted


@dataclass(slots=True)
class Read:
    """How many replies of a judge there are and how many hold nothing readable; of those, how many were cut off, and the
    first record with one."""

    replies: int = 0
    unreadable: int = 0
    truncated: int = 0
    first: str = ""

    def add(self, record: str, problem: str | None) -> None:
        """Count one reply; one that failed says nothing about how the judge writes."""
        if problem is not None and problem.startswith("failed:"):
            return
        self.replies += 1
        if problem is not None:
            self.unreadable += 1
            self.truncated += problem == "truncated"
            self.first = self.first or record


@dataclass(slots=True)
class Counts:
    """The accounting of a run: planned is always the sum of the outcomes.

    `flags` counts what accepted candidates are flagged with; `scored` the rows that a filter gave a score, by the step's id;
    `judges` the replies of each. `examples` has the first candidate of each reason to fail, be quarantined or be
    unreadable: its id, and what was said of it.
    """

    outcomes: dict[str, int] = field(default_factory=dict)
    reasons: dict[tuple[str, str], int] = field(default_factory=dict)
    flags: dict[str, int] = field(default_factory=dict)
    examples: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    judges: dict[str, Read] = field(default_factory=dict)
    scored: dict[str, int] = field(default_factory=dict)

    def add(self, verdict: Verdict, *, passed: Outcome = "pending") -> None:
        """Count one final verdict; `passed` is what one without an outcome counts as."""
        outcome = verdict.outcome or passed
        for judgement in verdict.judgements:
            self.judges.setdefault(judgement.judge, Read()).add(verdict.leaf.id, judgement.problem)
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
        for name, _ in verdict.scores:
            self.scored[name] = self.scored.get(name, 0) + 1
        if outcome == "accepted":
            for flag in verdict.flags:
                self.flags[flag] = self.flags.get(flag, 0) + 1
        if outcome in ("rejected", "quarantined", "failed"):
            key = (verdict.stage or "?", verdict.reason or "?")
            self.reasons[key] = self.reasons.get(key, 0) + 1
            if outcome != "rejected" or verdict.stage == "parse":
                self.examples.setdefault(key, (verdict.leaf.id, verdict.detail or ""))

    @property
    def planned(self) -> int:
        """All candidates."""
        return sum(self.outcomes.values())


def prompt_and_answer(messages: Sequence[Message]) -> tuple[str, str]:
    """The turns before the last answer, joined, and the last answer with its tool calls."""
    last = max(
        (i for i, message in enumerate(messages) if message.role == "assistant"), default=len(messages)
    )
    answer = messages[last].said if last < len(messages) else ""
    asked = [message.content for message in messages[:last] if message.role != "assistant"]
    return "\n\n".join(asked), answer
