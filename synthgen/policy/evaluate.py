"""One part, one question, one decision: the strictest of route, licence, lineage, seed, role and student.

In: a registry, a `Part`, an `Ask`. Out: a `Decision` that cites every rule that spoke. Pure and remembered: no clock,
no disk, no network. Guarantees: what no rule speaks on is denied; a clause nobody here has read (evidence S or M) gives
`review` at best and at worst; an old route rule stops allowing, an old deny never softens, a dated licence text
does not age; adding a rule or a use never lowers the outcome. What lowers it has a name: an exception in a rule, a
judge that only filters, an attestation, a waiver.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import timedelta
from functools import lru_cache

from synthgen.dataclasses import dataclass
from synthgen.policy.facts import Facts, declared_as, holds, look_up, narrowed, seed_ids
from synthgen.policy.model import (
    Ask,
    Citation,
    Decision,
    Layer,
    Obligation,
    Outcome,
    Override,
    Part,
    rank,
    strictest,
)
from synthgen.policy.registry import Registry
from synthgen.policy.rules import Owed, Rule
from synthgen.policy.uses import MANNERS, covers
from synthgen.types import digest

__all__ = ["FILTER_ONLY_ROLES", "STOP_AFTER", "WARN_AFTER", "Hit", "cite", "evaluate", "lift", "seed_ids"]

# Measured 2025-11 to 2026-08: the hosted terms of three of five vendors changed what may be trained within half a
# year, so half a year warns and a year stops.
WARN_AFTER = timedelta(days=180)
STOP_AFTER = timedelta(days=365)
FILTER_ONLY_ROLES = ("judge-filter", "embedder")
SYNTHETIC = "imported-synthetic"  # the seed licence of texts that a model wrote for somebody else


@dataclass(frozen=True, slots=True)
class Hit:
    """One rule speaking on one use: what it decides after caps, softening and overrides, and what it asks for.

    `about_training`: what it denies is learning from output, not using the model at all.
    """

    rule: Rule
    use: str
    decision: Outcome
    subject: str
    obligations: tuple[Obligation, ...] = ()
    questions: tuple[str, ...] = ()
    override: Override | None = None
    about_training: bool = False


def evaluate(registry: Registry, part: Part, ask: Ask) -> Decision:
    """Decide one part for all declared uses; see the module doc for what is guaranteed."""
    return _evaluate(registry, part, ask)


@lru_cache(maxsize=65536)
def _evaluate(registry: Registry, part: Part, ask: Ask) -> Decision:
    facts = look_up(registry, part, ask)
    about = _about(registry, part, facts)
    hits = [hit for use in ask.uses for hit in _hits(registry, about, part, ask, facts, use)]
    owed = {obligation for hit in hits for obligation in hit.obligations}
    hits += [lift(hit, ask, facts.subjects) for hit in _conflicts(registry, owed, ask.uses)]
    outcome = strictest(hit.decision for hit in hits)
    owed = {obligation for hit in hits for obligation in hit.obligations}
    applied = [hit.override for hit in hits if hit.override]
    return Decision(
        outcome=outcome,
        citations=cite(hits),
        obligations=() if outcome == "deny" else tuple(sorted(owed)),
        licences=facts.licences,
        overrides=tuple(dict.fromkeys(applied)),
        questions=tuple(sorted({question for hit in hits for question in hit.questions})),
        warnings=_warnings(hits, ask),
        policy_id=_policy_id(registry, part, facts.licences),
        generation=_generation(part, facts),
    )


def cite(hits: Iterable[Hit]) -> tuple[Citation, ...]:
    """One citation per rule and subject with its strictest decision; strictest first, documents before our own rules."""
    strongest: dict[tuple[str, str], Hit] = {}
    for hit in hits:
        key = (hit.rule.id, hit.subject)
        if key not in strongest or rank(hit.decision) > rank(strongest[key].decision):
            strongest[key] = hit
    ordered = sorted(
        strongest.values(),
        key=lambda hit: (
            -rank(hit.decision),
            hit.rule.is_own,
            hit.rule.layer == "identity",
            hit.rule.id,
            hit.subject,
        ),
    )
    return tuple(_citation(hit) for hit in ordered)


def lift(hit: Hit, ask: Ask, subjects: frozenset[str]) -> Hit:
    """The hit after the lock file: an override that fits turns it into an obligation."""
    found = ask.overrides.lifting(hit.rule.id, hit.use, hit.decision, subjects, ask.today)
    if found is None:
        return hit
    owed = (*hit.obligations, found.obligation(hit.rule.id))
    return replace(hit, decision="allow_with_obligations", obligations=owed, override=found)


@dataclass(frozen=True, slots=True)
class _About:
    """A rule that is about the part, what of the part it is about, and its decisions."""

    rule: Rule
    subject: str
    by_use: Mapping[str, Outcome]


def _about(registry: Registry, part: Part, facts: Facts) -> list[_About]:
    """Every rule that is about the part, once per thing it is about."""
    family = facts.family.id if facts.family else ""
    places: list[tuple[Layer, str, str]] = [("route", route, route) for route in facts.routes]
    places += [("route", "*", route) for route in facts.routes[:1]]
    places += [("licence", licence, licence) for licence in facts.licences]
    places += [("identity", family, part.hf or part.model), ("role", part.role, part.role)]
    places += [("seed", seed, seed) for seed in facts.seeds]
    places += [("student", licence, licence) for licence in facts.student_licences]
    return [
        _About(rule, subject, rule.by_use)
        for layer, key, subject in places
        for rule in registry.speaking(layer, key)
        if narrowed(rule.match, part, facts)
    ]


def _hits(registry: Registry, about: list[_About], part: Part, ask: Ask, facts: Facts, use: str) -> list[Hit]:
    """Every rule that speaks on `use`, exceptions taken out, capped, softened and lifted."""
    spoken = [item for item in about if use in item.by_use]
    ids = {item.rule.id for item in spoken}
    standing = [item for item in spoken if not ids.intersection(item.rule.except_)]
    hits = [_decide(item, use, ask, facts) for item in standing]
    hits += _silences(registry, ask, facts, use, hits, part)
    return [lift(_soften(hit, part), ask, facts.subjects) for hit in hits]


def _decide(item: _About, use: str, ask: Ask, facts: Facts) -> Hit:
    rule, decision = item.rule, item.by_use[use]
    owed = list(rule.obligations)
    questions: list[str] = []
    # A rule that denies even evaluating, or that speaks of who may use the model, is no clause on training.
    about_training = item.by_use.get("evaluate-only") != "deny"
    for condition in rule.when:
        if not covers(condition.on, use):
            continue
        holding = holds(condition, facts)
        if holding:
            decision = strictest((decision, condition.decision))
            about_training &= all(one.fact == "student_family" for one in condition.comparisons)
        elif holding is None:
            decision = strictest((decision, condition.unknown))
            owed += condition.owes_unknown
            if rank(condition.unknown) >= rank("review"):
                keys = declared_as(condition, facts)
                verb = "is" if len(keys) == 1 else "are"
                questions.append(
                    f"{', '.join(keys)} {verb} not declared; {rule.id} depends on it: {rule.clause}"
                )
    decision = _aged(rule, _capped(rule, decision), ask)
    due = () if decision == "deny" else _owed(owed, item.subject, use)
    if rank(decision) < rank("review"):
        decision = "allow_with_obligations" if due else "allow"
    return Hit(rule, use, decision, item.subject, due, tuple(questions), about_training=about_training)


def _capped(rule: Rule, decision: Outcome) -> Outcome:
    """Unread text decides nothing; a licence assignment may be second-hand where the licence text was read."""
    unread = rule.evidence == "M" or (rule.evidence == "S" and rule.layer != "identity")
    return "review" if unread else decision


def _aged(rule: Rule, decision: Outcome, ask: Ask) -> Outcome:
    """Hosted terms change without notice: what an old reading allowed is to be looked at again."""
    old = rule.layer == "route" and not rule.is_own and ask.today - rule.as_of > STOP_AFTER
    return strictest((decision, "review")) if old else decision


def _owed(owed: Iterable[Owed], subject: str, use: str) -> tuple[Obligation, ...]:
    return tuple(
        Obligation(item.id, item.arg.replace("$seed", subject)) for item in owed if covers(item.on, use)
    )


def _silences(registry: Registry, ask: Ask, facts: Facts, use: str, hits: list[Hit], part: Part) -> list[Hit]:
    """Denials for what nothing speaks on: unknown route, model, seed or student, or a purpose without a rule."""
    spoken_for = {(hit.rule.layer, hit.subject) for hit in hits}
    missing = [("default.unknown-route", route) for route in facts.unknown_routes]
    if facts.routes and facts.family is None:
        rule = "default.model-not-on-route" if facts.named_elsewhere else "default.unknown-model"
        missing.append((rule, part.hf or part.model))
    if ask.student_base and facts.student is None and use.startswith(("train-", "publish-weights")):
        missing.append(("default.unknown-student", ask.student_base))
    missing += [
        ("default.unknown-seed", seed) for seed in facts.seeds if not _seed_known(registry, part, seed)
    ]
    if use not in MANNERS:
        asked = [("route", route) for route in facts.routes]
        asked += [("licence", licence) for licence in facts.licences]
        missing += [("default.no-rule", name) for layer, name in asked if (layer, name) not in spoken_for]
    found = [Hit(registry.rules[rule], use, "deny", subject) for rule, subject in missing]
    if facts.served_other and part.served is not None:
        aside = (Obligation("QUARANTINE-ROWS"),)
        found.append(Hit(registry.rules["default.served-identity"], use, "review", part.served, aside))
    return found


def _seed_known(registry: Registry, part: Part, seed: str) -> bool:
    """Whether a rule is about that licence in that relation, for whatever use."""
    about = (rule.match for rule in registry.speaking("seed", seed))
    return any(not match.relation or part.seed_relation in match.relation for match in about)


def _soften(hit: Hit, part: Part) -> Hit:
    """A model that only selects rows writes none of them: a clause against training on output needs a person."""
    softens = hit.about_training and hit.use.startswith("train-") and hit.rule.layer in ("route", "licence")
    if part.role not in FILTER_ONLY_ROLES or hit.decision != "deny" or not softens:
        return hit
    return replace(hit, decision="review", obligations=(Obligation("STRIP-JUDGE-COLUMNS"),))


def _conflicts(registry: Registry, owed: set[Obligation], uses: tuple[str, ...]) -> list[Hit]:
    """Duties inside one part that no use can satisfy together."""
    rules, hits = registry.rules, []
    publishing = [use for use in uses if use.startswith("publish-")]
    if any(obligation.id == "NO-DISTRIBUTE" for obligation in owed):
        spread = [*publishing, *(use for use in uses if use.startswith("train-task-distributed"))]
        hits += [Hit(rules["conflict.no-distribute"], use, "deny", "NO-DISTRIBUTE") for use in spread]
    limited = sorted({obligation.arg for obligation in owed if obligation.id == "NC-ONLY"})
    if limited and "commercial" in uses:
        hits.append(Hit(rules["conflict.nc-commercial"], "commercial", "deny", " + ".join(limited)))
    alike = sorted({obligation.arg for obligation in owed if obligation.id == "SHARE-ALIKE"})
    merged = [(one, other) for one in alike for other in limited if one != other]
    merged += [(one, other) for one in alike for other in alike if one < other]
    for one, other in merged:
        rule = rules["seed.sa-nc-merge" if other in limited else "conflict.share-alike"]
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
    """One line per cited rule whose text was last seen long ago, or whose review is overdue."""
    rules = {hit.rule.id: hit.rule for hit in hits if not hit.rule.is_own}
    lines = []
    for name, rule in sorted(rules.items()):
        age = ask.today - rule.as_of
        if rule.layer == "route" and age > WARN_AFTER:
            lines.append(f"{name}: the terms were last seen {age.days} days ago, read them again")
        elif rule.review_by < ask.today:
            lines.append(f"{name}: a review was due on {rule.review_by}, read the text again")
    return tuple(lines)


def _generation(part: Part, facts: Facts) -> int:
    """See `Decision.generation`."""
    behind = facts.family.distilled if facts.family else 0
    written = SYNTHETIC in facts.seeds and part.seed_relation in ("verbatim", "adapted")
    return 1 + behind + written


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
