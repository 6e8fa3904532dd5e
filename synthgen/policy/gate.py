"""The gate over a whole run: every part decided, joined to one outcome; and the routes hosts stand for.

In: a registry, the parts (models in their roles) and an `Ask`. Out: a `GateResult`. Guarantees: the outcome is the
strictest of the parts and of conflicts between them, whatever their order or repetition; obligations add up. The
same function serves before anything is sent (declared names) and before anything is written (served names).
"""

from collections.abc import Iterable
from dataclasses import replace
from urllib.parse import urlsplit

from synthgen.dataclasses import dataclass
from synthgen.policy.evaluate import FILTER_ONLY_ROLES, WARN_AFTER, Hit, cite, evaluate, lift
from synthgen.policy.model import (
    Ask,
    Citation,
    Decision,
    Obligation,
    Outcome,
    Override,
    Part,
    rank,
    strictest,
)
from synthgen.policy.registry import Registry
from synthgen.policy.resolve import SELF_HOSTED

__all__ = ["GateResult", "PartDecision", "default_route", "gate", "refusal", "vetted_hosts"]


@dataclass(frozen=True, slots=True)
class PartDecision:
    """A part and what was decided for it."""

    part: Part
    decision: Decision


@dataclass(frozen=True, slots=True)
class GateResult:
    """The answer for the whole dataset. A denied dataset owes nothing: it must not exist."""

    outcome: Outcome
    parts: tuple[PartDecision, ...]
    conflicts: tuple[Citation, ...]
    obligations: tuple[Obligation, ...]
    overrides: tuple[Override, ...]
    questions: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether the run may go on: allow, with or without obligations."""
        return rank(self.outcome) < rank("review")


def gate(registry: Registry, parts: Iterable[Part], ask: Ask) -> GateResult:
    """Decide every part and join; repeated parts count once, in the order of their first appearance."""
    decided = [PartDecision(part, evaluate(registry, part, ask)) for part in dict.fromkeys(parts)]
    decisions = [item.decision for item in decided]
    owed = {obligation for decision in decisions for obligation in decision.obligations}
    clashes = [lift(hit, ask, frozenset()) for hit in _name_clashes(registry, owed, ask)]
    owed |= {obligation for hit in clashes for obligation in hit.obligations}
    applied = [entry for decision in decisions for entry in decision.overrides]
    applied += [hit.override for hit in clashes if hit.override]
    outcome = strictest([*(d.outcome for d in decisions), *(hit.decision for hit in clashes)])
    return GateResult(
        outcome=outcome,
        parts=tuple(decided),
        conflicts=cite(clashes),
        obligations=() if outcome == "deny" else tuple(sorted(owed)),
        overrides=tuple(dict.fromkeys(applied)),
        questions=tuple(sorted({question for d in decisions for question in d.questions})),
        warnings=(
            *_age(registry, ask),
            *sorted({warning for d in decisions for warning in d.warnings}),
            *_recursion(decided),
        ),
    )


def _age(registry: Registry, ask: Ask) -> list[str]:
    days = (ask.today - registry.released).days
    old = days > WARN_AFTER.days
    return [f"the policy registry of {registry.released} is {days} days old; upgrade synthgen"] if old else []


def _recursion(decided: Iterable[PartDecision]) -> list[str]:
    """Writers that learned from another model's answers.

    Source: Shumailov et al. 2024, "AI models collapse when trained on recursively generated data".
    """
    writers = [
        item for item in decided if item.part.role not in FILTER_ONLY_ROLES and item.decision.generation > 1
    ]
    return [
        f"{item.part.hf or item.part.model}: rows of generation {item.decision.generation}, because a model's answers lie "
        "behind it; each such round loses some of what the first teacher knew"
        for item in writers
    ]


def _name_clashes(registry: Registry, owed: set[Obligation], ask: Ask) -> list[Hit]:
    """Two required beginnings of one model name, neither of which begins with the other."""
    prefixes = sorted({obligation.arg for obligation in owed if obligation.id == "NAME-PREFIX"})
    rule = registry.rules["conflict.name-prefix"]
    return [
        Hit(rule, "publish-weights", "deny", f"{a} / {b}")
        for i, a in enumerate(prefixes)
        for b in prefixes[i + 1 :]
        if "publish-weights" in ask.uses and not a.startswith(b) and not b.startswith(a)
    ]


def default_route(registry: Registry, provider: str, base_url: str | None) -> str | None:
    """The route of a vendor's own host, `self-hosted` for the embedded teacher, None where it must be declared.

    Only the exact host over https counts: a look-alike or a proxy path on another host is nobody's contract.
    """
    if provider == "local":
        return SELF_HOSTED
    url = urlsplit(base_url or "")
    hosts = [route.id for route in registry.routes.values() if url.hostname in route.hosts]
    return hosts[0] if hosts and url.scheme == "https" else None


def vetted_hosts(registry: Registry, part: Part, ask: Ask) -> tuple[str, ...]:
    """Slugs of the hosts behind a router whose own terms let the part pass."""
    hosts = [route for route in registry.routes.values() if route.slug]
    return tuple(
        route.slug
        for route in hosts
        if rank(evaluate(registry, replace(part, route=route.id, upstream=()), ask).outcome) < rank("review")
    )


def refusal(result: GateResult, uses: Iterable[str]) -> str:
    """Why the gate stops the run and what can be done, for people; several lines."""
    lines = [f"policy: {result.outcome} for use {', '.join(uses)}; nothing was sent"]
    stops = [
        (
            f"{item.part.alias} ({item.part.hf or item.part.model} on {item.part.route}, {item.part.role})",
            citation,
        )
        for item in result.parts
        for citation in item.decision.citations
    ]
    stops += [("parts together", citation) for citation in result.conflicts]
    for who, citation in stops:
        if rank(citation.decision) >= rank("review"):
            lines.append(
                f"  {who}: {citation.decision} by {citation.rule} for {citation.use}: {citation.clause} "
                f"[{citation.doc} {citation.section}, {citation.effective}; as of {citation.as_of} {citation.evidence}]"
            )
    lines += [f"  question: {question}" for question in result.questions]
    lines.append(
        "  next: change the teacher, its route or `use`; review is lifted by an [[attestation]], deny by a [[waiver]] "
        "with a contract, in policy.lock.toml beside the recipe (`synthgen policy attest` writes them)"
    )
    return "\n".join(lines)
