"""The words of a policy decision: outcomes, parts, questions asked of the gate, and the answer with its sources.

In: nothing but core types and the recipe's `Actor`. Out: frozen dataclasses. Guarantees: outcomes form a chain, so
the strictest of any collection is their join (associative, commutative, idempotent); an `Ask` holds only known uses.
"""

from collections.abc import Iterable
from dataclasses import field
from datetime import date
from typing import Literal, TypeAlias

from synthgen.dataclasses import dataclass
from synthgen.policy.uses import parse_uses
from synthgen.recipe.model import SEED_RELATIONS, Actor
from synthgen.types import JSONValue

__all__ = [
    "Ask",
    "Citation",
    "Decision",
    "Evidence",
    "Layer",
    "Obligation",
    "Outcome",
    "Override",
    "Overrides",
    "Part",
    "PartRole",
    "rank",
    "strictest",
]

Outcome: TypeAlias = Literal["allow", "allow_with_obligations", "review", "deny"]
Layer: TypeAlias = Literal["route", "licence", "identity", "seed", "student", "role", "conflict", "default"]
Evidence: TypeAlias = Literal["V", "Q", "S", "M"]
PartRole: TypeAlias = Literal["teacher", "rewriter", "judge-shipped", "judge-filter", "embedder"]

_RANK: dict[Outcome, int] = {"allow": 0, "allow_with_obligations": 1, "review": 2, "deny": 3}


def rank(outcome: Outcome) -> int:
    """0 (allow) to 3 (deny)."""
    return _RANK[outcome]


def strictest(outcomes: Iterable[Outcome]) -> Outcome:
    """The join of the chain; nothing at all is `allow`, its neutral element."""
    return max(outcomes, key=rank, default="allow")


@dataclass(frozen=True, slots=True, order=True)
class Obligation:
    """Something owed if the data is used as declared: an id of the closed list, and what it applies to."""

    id: str
    arg: str = ""

    def __str__(self) -> str:
        return f"{self.id}:{self.arg}" if self.arg else self.id


@dataclass(frozen=True, slots=True)
class Citation:
    """One rule that spoke, with the strictest decision it gave and the use it gave it for.

    `effective` is an ISO date or `undated`; `as_of` is the day the text was known to be current; `subject` names
    what the rule was applied to (a route, a licence, a model, a seed licence). `lifted` names the override that
    turned the decision into `allow_with_obligations`.
    """

    rule: str
    layer: Layer
    use: str
    decision: Outcome
    clause: str
    doc: str
    section: str
    url: str
    effective: str
    as_of: date
    evidence: Evidence
    subject: str
    lifted: str | None = None

    def as_json(self) -> dict[str, JSONValue]:
        """The shape stored in POLICY.json."""
        return {
            "rule": self.rule,
            "layer": self.layer,
            "use": self.use,
            "decision": self.decision,
            "clause": self.clause,
            "source": {
                "doc": self.doc,
                "section": self.section,
                "url": self.url,
                "effective": self.effective,
            },
            "as_of": self.as_of.isoformat(),
            "evidence": self.evidence,
            "subject": self.subject,
            "lifted": self.lifted,
        }


@dataclass(frozen=True, slots=True)
class Override:
    """One entry of `policy.lock.toml`: an attestation lifts `review`, a waiver lifts `review` and `deny`.

    It applies to the named rules for one use until the end of `expires`; a `subject` (route, model, hf id, seed
    licence, student base) narrows it to the parts that carry it.
    """

    kind: Literal["attestation", "waiver"]
    rules: tuple[str, ...]
    use: str
    justification: str
    who: str
    signed: date
    expires: date
    subject: str | None = None
    contract_ref: str | None = None
    document_sha256: str | None = None

    def lifts(self, rule: str, use: str, decision: Outcome, subjects: frozenset[str], today: date) -> bool:
        """Whether this entry turns `decision` of `rule` for `use` into `allow_with_obligations`."""
        liftable = decision == "review" or (decision == "deny" and self.kind == "waiver")
        in_scope = self.subject is None or self.subject in subjects
        in_time = self.signed <= today <= self.expires
        return liftable and in_scope and in_time and rule in self.rules and use == self.use

    def obligation(self, rule: str) -> Obligation:
        """What every artefact carries: the contract of a waiver, the rule an attestation answers for."""
        if self.kind == "waiver":
            return Obligation("WAIVER", self.contract_ref or "")
        return Obligation("ATTESTATION", rule)

    def as_json(self) -> dict[str, JSONValue]:
        """The whole entry, as copied into every artefact."""
        return {
            "kind": self.kind,
            "rules": list(self.rules),
            "use": self.use,
            "justification": self.justification,
            "who": self.who,
            "date": self.signed.isoformat(),
            "expires": self.expires.isoformat(),
            "subject": self.subject,
            "contract_ref": self.contract_ref,
            "document_sha256": self.document_sha256,
        }


@dataclass(frozen=True, slots=True)
class Overrides:
    """Every entry of the lock file, in file order."""

    entries: tuple[Override, ...] = ()

    def lifting(
        self, rule: str, use: str, decision: Outcome, subjects: frozenset[str], today: date
    ) -> Override | None:
        """The first entry that lifts the decision, attestations first, or None."""
        for entry in sorted(self.entries, key=lambda entry: entry.kind):
            if entry.lifts(rule, use, decision, subjects, today):
                return entry
        return None


@dataclass(frozen=True, slots=True)
class Part:
    """One model in one role at one place, working on rows of one seed licence.

    `row_license` is `own`, an SPDX id, or several joined by ` AND ` where one row merges texts. `upstream` are the
    hosts a router may hand the request to. `served` is the name in the reply, once there is one.
    """

    alias: str
    provider: str
    route: str
    model: str
    hf: str | None = None
    role: PartRole = "teacher"
    row_license: str = "own"
    seed_relation: SEED_RELATIONS = "adapted"
    upstream: tuple[str, ...] = ()
    served: str | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """What the user wants to do, who they are, and when they ask.

    Raises:
        UsageError: a use outside the vocabulary.
    """

    uses: tuple[str, ...]
    actor: Actor = field(default_factory=Actor)
    student_base: str | None = None
    today: date = field(kw_only=True)
    overrides: Overrides = field(default_factory=Overrides, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "uses", parse_uses(self.uses))


@dataclass(frozen=True, slots=True)
class Decision:
    """The gate's answer for one part. A denied part owes nothing: it must not be used.

    `citations` are strictest first; `questions` name undeclared facts a rule asked for; `policy_id` names the part
    (teacher, route, licences, seed, role), never the outcome, so it stays while rules or uses change. `generation` is 1
    for rows whose writer learned from people's texts, as far as is known, and one more for each round of training on
    another model's answers behind it, or for source texts that a model wrote.
    """

    outcome: Outcome
    citations: tuple[Citation, ...]
    obligations: tuple[Obligation, ...]
    licences: tuple[str, ...]
    overrides: tuple[Override, ...]
    questions: tuple[str, ...]
    warnings: tuple[str, ...]
    policy_id: str
    generation: int = 1
