"""One part, one question, one decision: the strictest of route, licence, lineage, seed, role and student.

In: a registry, a `Part`, an `Ask`. Out: a `Decision` that cites every rule that spoke. Pure: no clock, no disk, no
network. Guarantees: what no rule speaks on is denied; a clause nobody here has read (evidence S or M) gives `review`
at best and at worst; an old route rule stops allowing, an old deny never softens; adding a rule or a use never
lowers the outcome. What lowers it has a name: an exception in a rule, a judge that only filters, an attestation, a
waiver.
"""

import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from fnmatch import fnmatchcase

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
from synthgen.policy.registry import Condition, ModelFamily, Registry, Rule
from synthgen.policy.resolve import candidates, resolve
from synthgen.policy.uses import MANNERS, covers
from synthgen.types import digest

__all__ = ["WARN_AFTER", "Hit", "cite", "evaluate", "lift", "seed_ids"]

# Measured 2025-11 to 2026-08: the hosted terms of three of five vendors changed what may be trained within half a
# year, so half a year warns and a year stops.
WARN_AFTER = timedelta(days=180)
STOP_AFTER = timedelta(days=365)
FILTER_ONLY_ROLES = ("judge-filter", "embedder")

FactValue = bool | int | float | str | None


@dataclass(frozen=True, slots=True)
class Hit:
    """One rule speaking on one use: what it decides after caps, softening and overrides, and what it asks for."""

    rule: Rule
    use: str
    decision: Outcome
    subject: str
    obligations: tuple[Obligation, ...] = ()
    questions: tuple[str, ...] = ()
    override: Override | None = None


@dataclass(frozen=True, slots=True)
class _Facts:
    """A part and an ask, looked up: what rules are matched against."""

    routes: tuple[str, ...]
    route_known: bool
    names: tuple[str, ...]
    family: ModelFamily | None
    named_elsewhere: bool
    seeds: tuple[str, ...]
    student: ModelFamily | None
    values: dict[str, FactValue]
    subjects: frozenset[str]


def evaluate(registry: Registry, part: Part, ask: Ask) -> Decision:
    """Decide one part for all declared uses; see the module doc for what is guaranteed."""
    facts = _look_up(registry, part, ask)
    hits = [hit for use in ask.uses for hit in _hits(registry, part, ask, facts, use)]
    owed = {obligation for hit in hits for obligation in hit.obligations}
    hits += [lift(hit, ask, facts.subjects) for hit in _conflicts(registry, owed, ask.uses)]
    outcome = strictest(hit.decision for hit in hits)
    owed = {obligation for hit in hits for obligation in hit.obligations}
    applied = [hit.override for hit in hits if hit.override]
    licences = facts.family.licences if facts.family else ()
    return Decision(
        outcome=outcome,
        citations=cite(hits),
        obligations=() if outcome == "deny" else tuple(sorted(owed)),
        licences=licences,
        overrides=tuple(dict.fromkeys(applied)),
        questions=tuple(sorted({question for hit in hits for question in hit.questions})),
        warnings=_warnings(hits, ask),
        policy_id=_policy_id(registry, part, licences),
    )


def seed_ids(row_license: str) -> tuple[str, ...]:
    """The licences of one row: ids joined by ` AND `."""
    return tuple(part.strip() for part in row_license.split(" AND "))


def cite(hits: Iterable[Hit]) -> tuple[Citation, ...]:
    """One citation per rule and subject with its strictest decision; strictest first, then by rule id."""
    strongest: dict[tuple[str, str], Hit] = {}
    for hit in hits:
        key = (hit.rule.id, hit.subject)
        if key not in strongest or rank(hit.decision) > rank(strongest[key].decision):
            strongest[key] = hit
    ordered = sorted(strongest.values(), key=lambda hit: (-rank(hit.decision), hit.rule.id, hit.subject))
    return tuple(_citation(hit) for hit in ordered)


def lift(hit: Hit, ask: Ask, subjects: frozenset[str]) -> Hit:
    """The hit after the lock file: an override that fits turns it into an obligation."""
    found = ask.overrides.lifting(hit.rule.id, hit.use, hit.decision, subjects, ask.today)
    if found is None:
        return hit
    owed = (*hit.obligations, found.obligation(hit.rule.id))
    return replace(hit, decision="allow_with_obligations", obligations=owed, override=found)


def _look_up(registry: Registry, part: Part, ask: Ask) -> _Facts:
    route = registry.route(part.route)
    family = resolve(registry, part.model, part.hf, part.route)
    routes = [route.id] if route else []
    if route and route.serves == "any" and family and family.weights == "closed":
        routes += family.routes[:1]  # a router waives nothing: the vendor's terms bind too
    student = candidates(registry, ask.student_base) if ask.student_base else []
    names = tuple(name.lower() for name in (part.model, part.hf) if name)
    subjects = (part.route, part.model, part.hf, part.row_license, ask.student_base, *routes)
    return _Facts(
        routes=tuple(routes),
        route_known=route is not None,
        names=names,
        family=family,
        named_elsewhere=bool(candidates(registry, part.hf or part.model)),
        seeds=seed_ids(part.row_license),
        student=student[0] if student else None,
        values={
            "territory": _territory(ask.actor.territory),
            "mau": ask.actor.mau,
            "revenue12m_usd": ask.actor.revenue12m_usd,
            "foundation_model_developer": ask.actor.foundation_model_developer,
            "student_family": student[0].id if student else None,
        },
        subjects=frozenset(subject for subject in subjects if subject),
    )


def _territory(declared: str | None) -> str | None:
    """The two-letter code (or EU) in capitals; any other spelling counts as not declared, never as elsewhere."""
    code = (declared or "").upper()
    return code if len(code) == 2 and code.isalpha() else None


def _hits(registry: Registry, part: Part, ask: Ask, facts: _Facts, use: str) -> list[Hit]:
    """Every rule that speaks on `use`, exceptions taken out, capped, softened and lifted."""
    spoken = [
        (rule, subject, decision)
        for rule in registry.rules.values()
        if (decision := rule.at(use)) is not None
        for subject in _subjects(rule, part, facts)
    ]
    ids = {rule.id for rule, _, _ in spoken}
    spoken = [entry for entry in spoken if not ids.intersection(entry[0].except_)]
    hits = [_decide(rule, subject, use, decision, ask, facts) for rule, subject, decision in spoken]
    hits += _silences(registry, part, ask, facts, use, hits)
    return [lift(_soften(registry, hit, part), ask, facts.subjects) for hit in hits]


def _subjects(rule: Rule, part: Part, facts: _Facts) -> list[str]:
    """What of the part the rule is about, one entry per match; empty where it does not apply."""
    match = rule.match
    narrowed = (
        (not match.model or any(fnmatchcase(name, glob) for name in facts.names for glob in match.model))
        and (not match.relation or part.seed_relation in match.relation)
        and (not match.role or part.role in match.role)
        and (not match.student_family or facts.values["student_family"] in match.student_family)
    )
    if not narrowed:
        return []
    family = facts.family
    if rule.layer == "route":
        return [route for route in facts.routes if route in match.route]
    if rule.layer == "licence":
        return [licence for licence in (family.licences if family else ()) if licence in match.licence]
    if rule.layer == "identity":
        return [part.hf or part.model] if family and family.id in match.family else []
    if rule.layer == "seed":
        return [seed for seed in facts.seeds if any(fnmatchcase(seed, glob) for glob in match.seed)]
    if rule.layer == "student":
        ours = facts.student.licences if facts.student else ()
        return [licence for licence in ours if licence in match.licence]
    return [part.role] if rule.layer == "role" else []


def _decide(rule: Rule, subject: str, use: str, decision: Outcome, ask: Ask, facts: _Facts) -> Hit:
    questions = []
    for condition in rule.when:
        if not covers(condition.on, use):
            continue
        value = facts.values[condition.fact]
        if value is None:
            decision = strictest((decision, condition.unknown))
            if rank(condition.unknown) >= rank("review"):
                questions.append(
                    f"{_fact_key(condition)} is not declared; {rule.id} depends on it: {rule.clause}"
                )
        elif _holds(condition, value):
            decision = strictest((decision, condition.decision))
    decision = _capped(rule, decision)
    if rule.layer == "route" and ask.today - rule.as_of > STOP_AFTER and rank(decision) < rank("review"):
        decision = "review"
    owed = () if decision == "deny" else _owed(rule, subject, use)
    return Hit(rule, use, decision, subject, owed, tuple(questions))


def _fact_key(condition: Condition) -> str:
    return "student_base" if condition.fact == "student_family" else f"actor.{condition.fact}"


_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}


def _holds(condition: Condition, fact: bool | int | float | str) -> bool:
    value = condition.value
    if condition.op == "==":
        return fact == value
    if condition.op == "!=":
        return fact != value
    if isinstance(value, tuple):
        return (fact in value) == (condition.op == "in")
    assert isinstance(fact, int | float)  # the registry compares only numbers by size
    assert isinstance(value, int | float)
    return _COMPARE[condition.op](fact, value)


def _capped(rule: Rule, decision: Outcome) -> Outcome:
    """Unread text decides nothing; a licence assignment may be second-hand where the licence text was read."""
    unread = rule.evidence == "M" or (rule.evidence == "S" and rule.layer != "identity")
    return "review" if unread else decision


def _owed(rule: Rule, subject: str, use: str) -> tuple[Obligation, ...]:
    return tuple(
        Obligation(owed.id, owed.arg.replace("$seed", subject))
        for owed in rule.obligations
        if covers(owed.on, use)
    )


def _silences(
    registry: Registry, part: Part, ask: Ask, facts: _Facts, use: str, hits: list[Hit]
) -> list[Hit]:
    """Denials for what nothing speaks on: unknown route, model, seed or student, or a purpose without a rule."""
    missing: list[tuple[str, str]] = []
    if not facts.route_known:
        missing.append(("default.unknown-route", part.route))
    elif facts.family is None:
        elsewhere = facts.named_elsewhere
        missing.append(
            ("default.model-not-on-route" if elsewhere else "default.unknown-model", part.hf or part.model)
        )
    if ask.student_base and facts.student is None and use.startswith(("train-", "publish-weights")):
        missing.append(("default.unknown-student", ask.student_base))
    spoken_for = {(hit.rule.layer, hit.subject) for hit in hits}
    missing += [
        ("default.unknown-seed", seed) for seed in facts.seeds if not _seed_known(registry, part, seed)
    ]
    if use not in MANNERS:
        asked = [("route", route) for route in facts.routes]
        asked += [("licence", licence) for licence in (facts.family.licences if facts.family else ())]
        missing += [("default.no-rule", name) for layer, name in asked if (layer, name) not in spoken_for]
    return [Hit(registry.rules[rule], use, "deny", subject) for rule, subject in missing]


def _seed_known(registry: Registry, part: Part, seed: str) -> bool:
    return any(
        rule.layer == "seed"
        and any(fnmatchcase(seed, glob) for glob in rule.match.seed)
        and (not rule.match.relation or part.seed_relation in rule.match.relation)
        for rule in registry.rules.values()
    )


def _soften(registry: Registry, hit: Hit, part: Part) -> Hit:
    """A model that only selects rows writes none of them: a clause against training on output needs a person."""
    about_training = hit.use.startswith("train-") and hit.rule.layer in ("route", "licence")
    if part.role not in FILTER_ONLY_ROLES or hit.decision != "deny" or not about_training:
        return hit
    return replace(hit, decision="review", obligations=(Obligation("STRIP-JUDGE-COLUMNS"),))


def _conflicts(registry: Registry, owed: set[Obligation], uses: tuple[str, ...]) -> list[Hit]:
    """Duties inside one part that no use can satisfy together."""
    hits = []
    publishing = [use for use in uses if use.startswith("publish-")]
    if any(obligation.id == "NO-DISTRIBUTE" for obligation in owed):
        rule = registry.rules["conflict.no-distribute"]
        hits += [Hit(rule, use, "deny", "NO-DISTRIBUTE") for use in publishing]
    alike = {obligation.arg for obligation in owed if obligation.id == "SHARE-ALIKE"}
    limited = {obligation.arg for obligation in owed if obligation.id == "NC-ONLY"}
    for one, other in sorted((a, b) for a in alike for b in limited if a != b):
        rule = registry.rules["seed.sa-nc-merge"]
        hits += [Hit(rule, use, "deny", f"{one} + {other}") for use in publishing]
    return hits


def _citation(hit: Hit) -> Citation:
    source, effective = hit.rule.source, hit.rule.source.effective
    return Citation(
        rule=hit.rule.id,
        layer=hit.rule.layer,
        use=hit.use,
        decision=hit.decision,
        clause=hit.rule.clause,
        doc=source.doc,
        section=source.section,
        url=source.url,
        effective=effective if isinstance(effective, str) else effective.isoformat(),
        as_of=hit.rule.as_of,
        evidence=hit.rule.evidence,
        subject=hit.subject,
        lifted=hit.override.kind if hit.override else None,
    )


def _warnings(hits: list[Hit], ask: Ask) -> tuple[str, ...]:
    """One line per route rule whose text was last seen long ago."""
    old = {
        hit.rule.id: (ask.today - hit.rule.as_of).days
        for hit in hits
        if hit.rule.layer == "route" and ask.today - hit.rule.as_of > WARN_AFTER
    }
    return tuple(
        f"{rule}: the terms were last seen {days} days ago, read them again"
        for rule, days in sorted(old.items())
    )


def _policy_id(registry: Registry, part: Part, licences: tuple[str, ...]) -> str:
    route = registry.route(part.route)
    return digest(
        {
            "teacher": part.hf or part.model,
            "route": route.id if route else part.route,
            "licences": list(licences),
            "seed": part.row_license,
            "relation": part.seed_relation,
            "role": part.role,
        }
    )[:16]
