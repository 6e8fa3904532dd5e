"""A part and a question, looked up: which routes, licences, seeds and facts rules are matched against.

In: a registry, a `Part`, an `Ask`. Out: `Facts`, and whether a rule's condition holds on them. Guarantee: a fact that
is not declared, or not in a form we know, is undeclared; it is never taken for a harmless value.
"""

import operator
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase

from synthgen.dataclasses import dataclass
from synthgen.policy.model import Ask, Part
from synthgen.policy.registry import ModelFamily, Registry
from synthgen.policy.resolve import candidates, resolve, same_identity
from synthgen.policy.rules import Comparison, Condition, Match

__all__ = ["Facts", "declared_as", "holds", "look_up", "narrowed", "seed_ids"]

FactValue = bool | int | float | str | None

_EU = frozenset(
    [
        "AT",
        "BE",
        "BG",
        "HR",
        "CY",
        "CZ",
        "DE",
        "DK",
        "EE",
        "ES",
        "FI",
        "FR",
        "GR",
        "HU",
        "IE",
        "IT",
        "LT",
        "LU",
        "LV",
        "MT",
        "NL",
        "PL",
        "PT",
        "RO",
        "SE",
        "SI",
        "SK",
    ]
)
_SAME_CODE = {"UK": "GB", "EL": "GR"}
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What rules are matched against.

    `routes` are those whose terms bind: the part's own, the hosts behind a router, and the vendor's where a router
    waives nothing. `unknown_routes` are names without an entry. `subjects` are the words an override may be
    narrowed to.
    """

    routes: tuple[str, ...]
    unknown_routes: tuple[str, ...]
    names: tuple[str, ...]
    family: ModelFamily | None
    licences: tuple[str, ...]
    named_elsewhere: bool
    served_other: bool
    seeds: tuple[str, ...]
    student: ModelFamily | None
    student_licences: tuple[str, ...]
    values: dict[str, FactValue]
    subjects: frozenset[str]


def look_up(registry: Registry, part: Part, ask: Ask) -> Facts:
    """Everything about a part and an ask that rules may ask for."""
    family = resolve(registry, part.model, part.hf, part.route)
    routes, unknown = _routes(registry, part, family)
    student = next(iter(candidates(registry, ask.student_base)), None) if ask.student_base else None
    named = candidates(registry, part.model) or (candidates(registry, part.hf) if part.hf else ())
    subjects = (part.route, part.model, part.hf, part.row_license, ask.student_base, *routes)
    served = (part.hf.partition("@")[0],) if part.hf else ()
    return Facts(
        routes=routes,
        unknown_routes=unknown,
        names=tuple(name.lower() for name in (part.model, part.hf) if name),
        family=family,
        licences=registry.licences_of(family) if family else (),
        named_elsewhere=bool(named),
        served_other=not same_identity(registry, part.model, part.served, served),
        seeds=tuple(registry.seed(seed) for seed in seed_ids(part.row_license)),
        student=student,
        student_licences=registry.licences_of(student) if student else (),
        values={
            "territory": _territory(ask.actor.territory),
            "mau": ask.actor.mau,
            "revenue12m_usd": ask.actor.revenue12m_usd,
            "maas": ask.actor.maas,
            "foundation_model_developer": ask.actor.foundation_model_developer,
            "student_family": student.id if student else None,
        },
        subjects=frozenset(subject for subject in subjects if subject),
    )


def _routes(
    registry: Registry, part: Part, family: ModelFamily | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Routes whose terms bind, and names that are no route."""
    own = registry.route(part.route)
    if own is None:
        return (), (part.route,)
    behind = {name: registry.upstream(name) for name in part.upstream}
    found = [own.id, *(route.id for route in behind.values() if route)]
    if own.router and family and family.weights == "closed":
        found += family.routes[:1]  # a router waives nothing: the vendor's terms bind too
    return tuple(dict.fromkeys(found)), tuple(name for name, route in behind.items() if route is None)


def seed_ids(row_license: str) -> tuple[str, ...]:
    """The licences of one row: ids joined by ` AND `."""
    return tuple(part.strip() for part in row_license.split(" AND "))


def _territory(declared: str | None) -> str | None:
    """The two-letter code (or EU) in capitals; any other spelling counts as not declared, never as elsewhere."""
    code = (declared or "").upper()
    return _SAME_CODE.get(code, code) if len(code) == 2 and code.isalpha() else None


def narrowed(match: Match, part: Part, facts: Facts) -> bool:
    """Whether the part fits everything of `match` that its layer is not looked up by."""
    return (
        (not match.model or any(fnmatchcase(name, glob) for name in facts.names for glob in match.model))
        and (not match.family or (facts.family is not None and facts.family.id in match.family))
        and (not match.relation or part.seed_relation in match.relation)
        and (not match.role or part.role in match.role)
        and (not match.student_family or facts.values["student_family"] in match.student_family)
    )


def holds(condition: Condition, facts: Facts) -> bool | None:
    """Whether all comparisons hold; None where that depends on a fact that is not declared."""
    return _all(_compare(one, facts.values[one.fact]) for one in condition.comparisons)


def _all(results: Iterable[bool | None]) -> bool | None:
    """And, with three values: one false decides, else one unknown leaves it open."""
    seen = set(results)
    return False if False in seen else None if None in seen else True


def _compare(comparison: Comparison, fact: FactValue) -> bool | None:
    if fact is None:
        return None
    value = comparison.value
    if isinstance(value, tuple):
        within = fact in value or (comparison.fact == "territory" and "EU" in value and fact in _EU)
        return within == (comparison.op == "in")
    if comparison.op in ("==", "!="):
        return (fact == value) == (comparison.op == "==")
    assert isinstance(fact, int | float)  # the registry compares only numbers by size
    assert isinstance(value, int | float)
    return _COMPARE[comparison.op](fact, value)


def declared_as(condition: Condition, facts: Facts) -> list[str]:
    """Recipe keys of the facts that leave a condition open."""
    open_facts = [one.fact for one in condition.comparisons if facts.values[one.fact] is None]
    return ["student_base" if fact == "student_family" else f"actor.{fact}" for fact in open_facts]
