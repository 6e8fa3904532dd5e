"""The rules as data: dated, cited TOML files, read once and checked as a whole.

In: a folder of TOML files (the packaged one by default). Out: a frozen `Registry`. Guarantees: unknown keys are
errors, rules hold no code (`when` is a closed set of comparisons), every id is unique, every reference resolves, and
every licence and route can be cited for every purpose (a missing rule is found here, not at the gate).
Rejected: one big file (a contract party changes alone and is reviewed alone); YAML (dates and comments are better
in TOML, and the standard library reads it).
"""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal, TypeAlias, TypeVar

from pydantic import AfterValidator, Field, ValidationError, field_validator, model_validator

from synthgen.errors import UsageError
from synthgen.policy.model import Evidence, Layer, Outcome
from synthgen.policy.uses import MANNERS, USES, covers, matching_uses
from synthgen.recipe.model import Strict

__all__ = [
    "Condition",
    "Licence",
    "Match",
    "ModelFamily",
    "Owed",
    "Registry",
    "Route",
    "Rule",
    "Source",
    "load_registry",
]

SCHEMA_VERSION = 1
MAX_CLAUSE_WORDS = 40
OWN_RULES = "synthgen default"
M = TypeVar("M", bound=Strict)
V = TypeVar("V")

Fact: TypeAlias = Literal[
    "territory", "mau", "revenue12m_usd", "foundation_model_developer", "student_family"
]
Op: TypeAlias = Literal[">", ">=", "<", "<=", "==", "!=", "in", "not-in"]
ObligationId: TypeAlias = Literal[
    "NAME-PREFIX", "DISPLAY", "DISPLAY?", "DISPLAY-IF", "FLOWDOWN", "PROHIBITED-USES", "AUP", "LIC-COPY", "NOTICE",
    "ATTR-NOTICE", "NC-ONLY", "NO-DISTRIBUTE", "MAU-LIMIT", "NOT-COMPETE", "BRAND-LIMIT", "NO-REVERSE-ENGINEERING",
    "SHARE-ALIKE", "ROW-LICENSE", "KEEP-GPL-NOTICE", "SEED-ATTRIBUTION", "ROUTE-PIN", "STRIP-JUDGE-COLUMNS",
    "QUARANTINE-ROWS", "DISCLOSE-AI", "INPUTS-TRAINED-ON", "PREVIEW-NO-PRODUCTION",
]  # fmt: skip


def _checked_patterns(patterns: tuple[str, ...]) -> tuple[str, ...]:
    for pattern in patterns:
        if not matching_uses(pattern):
            raise ValueError(f"{pattern!r} matches no use")
    return patterns


Patterns: TypeAlias = Annotated[tuple[str, ...], AfterValidator(_checked_patterns)]


class Source(Strict):
    """Where a clause stands. `effective` is as exact as the document; `url` is empty only for our own rules."""

    doc: str
    section: str
    effective: date | Annotated[str, Field(pattern=r"^(undated|\d{4}(-\d{2})?)$")]
    url: Annotated[str, Field(pattern=r"^(https://\S+)?$")] = ""


class Match(Strict):
    """What a rule is about: every non-empty list must contain the part's value. `seed` may hold globs."""

    route: tuple[str, ...] = ()
    licence: tuple[str, ...] = ()
    family: tuple[str, ...] = ()
    model: tuple[str, ...] = ()
    seed: tuple[str, ...] = ()
    relation: tuple[str, ...] = ()
    role: tuple[str, ...] = ()
    student_family: tuple[str, ...] = ()


class Condition(Strict):
    """Raises the decision to `decision` when the fact compares so, to `unknown` when it is not declared.

    Only for the uses that fit `on`.
    """

    fact: Fact
    op: Op
    value: bool | int | float | str | tuple[str, ...]
    decision: Outcome
    unknown: Outcome = "review"
    on: Patterns = ("*",)

    @model_validator(mode="after")
    def _comparable(self) -> "Condition":
        text_fact = self.fact in ("territory", "student_family")
        if self.op in ("in", "not-in"):
            fits = text_fact and isinstance(self.value, tuple)
        elif self.op in ("==", "!="):
            fits = isinstance(self.value, str if text_fact else bool | int | float)
        else:
            numeric = isinstance(self.value, int | float) and not isinstance(self.value, bool)
            fits = numeric and self.fact in ("mau", "revenue12m_usd")
        if not fits:
            raise ValueError(f"{self.fact} {self.op} {self.value!r} cannot be compared")
        return self


class Owed(Strict):
    """An obligation of a rule; `on` says which uses make it due. `$seed` in `arg` is the seed licence."""

    id: ObligationId
    arg: str = ""
    on: Patterns = ("*",)


class Rule(Strict):
    """One clause of one document, in our own words, and what it decides per use."""

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")]
    layer: Layer
    match: Match = Match()
    applies: Patterns = ("*",)
    decision: dict[str, Outcome]
    clause: str
    obligations: tuple[Owed, ...] = ()
    when: tuple[Condition, ...] = ()
    except_: tuple[str, ...] = Field(default=(), alias="except")
    source: Source
    as_of: date
    evidence: Evidence
    review_by: date
    text_sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    reviewed_by: tuple[str, ...] = ()

    @field_validator("clause")
    @classmethod
    def _short(cls, clause: str) -> str:
        if not 0 < len(clause.split()) <= MAX_CLAUSE_WORDS:
            raise ValueError(f"must have 1 to {MAX_CLAUSE_WORDS} words, in our own words")
        return clause

    @field_validator("decision")
    @classmethod
    def _keys_match(cls, decision: dict[str, Outcome]) -> dict[str, Outcome]:
        _checked_patterns(tuple(pattern for pattern in decision if pattern != "default"))
        return decision

    def at(self, use: str) -> Outcome | None:
        """The decision for `use` before conditions; None where the rule is silent. Longer patterns win."""
        if not covers(self.applies, use):
            return None
        fitting = [
            pattern for pattern in self.decision if pattern != "default" and use in matching_uses(pattern)
        ]
        return self.decision.get(max(fitting, key=len) if fitting else "default")


class Route(Strict):
    """A way to reach a model. `serves`: `own` = the party's own models, `open` = any published weights,
    `any` = a router: also closed models, whose vendor's terms then apply beside the router's."""

    id: str
    party: str
    serves: Literal["own", "open", "any"]
    hosts: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()


class Licence(Strict):
    """One version of one licence text. `card` is the Hugging Face id; `reaches_outputs`: its duties bind what is
    made from a model's output, so the dataset names it."""

    id: str
    name: str
    url: Annotated[str, Field(pattern=r"^https://\S+$")]
    card: str = "other"
    reaches_outputs: bool = False
    notice: str = ""


class ModelFamily(Strict):
    """Models under the same licences. `names` are patterns (see `resolve`); `routes` are the vendor's own."""

    id: str
    party: str
    names: Annotated[tuple[str, ...], Field(min_length=1)]
    orgs: tuple[str, ...] = ()
    weights: Literal["open", "closed"] = "open"
    routes: tuple[str, ...] = ()
    licences: tuple[str, ...] = ()
    lineage: tuple[str, ...] = ()
    clause: str
    source: Source
    as_of: date
    evidence: Evidence
    review_by: date

    def rule(self) -> Rule:
        """The assignment of these models to their licences, as a rule that can be cited and attested."""
        return Rule(
            id=f"model.{self.id}",
            layer="identity",
            match=Match(family=(self.id,)),
            decision={"default": "allow"},
            clause=self.clause,
            source=self.source,
            as_of=self.as_of,
            evidence=self.evidence,
            review_by=self.review_by,
        )


class _File(Strict):
    route: tuple[Route, ...] = ()
    licence: tuple[Licence, ...] = ()
    model: tuple[ModelFamily, ...] = ()
    alias: Mapping[str, str] = Field(default={})
    rule: tuple[Rule, ...] = ()


class _Head(Strict):
    schema_version: Literal[1]
    released: date


@dataclass(frozen=True, slots=True)
class Registry:
    """Everything the gate knows; `aliases` maps a local model name to its `org/name`."""

    released: date
    routes: Mapping[str, Route]
    licences: Mapping[str, Licence]
    families: Mapping[str, ModelFamily]
    aliases: Mapping[str, str]
    rules: Mapping[str, Rule]

    @property
    def version(self) -> str:
        """What artefacts name: schema version and release date."""
        return f"{SCHEMA_VERSION}/{self.released.isoformat()}"

    def route(self, name: str) -> Route | None:
        """The route of that id or alias."""
        if name in self.routes:
            return self.routes[name]
        return next((route for route in self.routes.values() if name in route.aliases), None)


def load_registry(folder: Path | None = None) -> Registry:
    """Read and check a registry folder; the packaged one when none is named.

    Raises:
        UsageError: a file does not parse, has an unknown key, or the registry as a whole is inconsistent.
    """
    folder = folder or Path(__file__).resolve().parent / "data"
    head_path = folder / "registry.toml"
    head = _parse(_Head, head_path)
    files = [_parse(_File, path) for path in sorted(folder.rglob("*.toml")) if path != head_path]
    families = [family for file in files for family in file.model]
    rules = [rule for file in files for rule in file.rule] + [family.rule() for family in families]
    registry = Registry(
        released=head.released,
        routes=_unique("route", ((route.id, route) for file in files for route in file.route)),
        licences=_unique("licence", ((item.id, item) for file in files for item in file.licence)),
        families=_unique("model", ((family.id, family) for family in families)),
        aliases=_unique("alias", (pair for file in files for pair in file.alias.items())),
        rules=_unique("rule", ((rule.id, rule) for rule in rules)),
    )
    if problems := list(_problems(registry)):
        raise UsageError("\n".join(f"{folder}: {problem}" for problem in problems))
    return registry


def _parse(model: type[M], path: Path) -> M:
    try:
        return model.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from error
    except ValidationError as error:
        lines = [
            f"{path}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()
        ]
        raise UsageError("\n".join(lines)) from error


def _unique(what: str, pairs: Iterable[tuple[str, V]]) -> Mapping[str, V]:
    out: dict[str, V] = {}
    for key, value in pairs:
        if key in out:
            raise UsageError(f"policy registry: {what} {key!r} is defined twice")
        out[key] = value
    return MappingProxyType(out)


def _problems(registry: Registry) -> Iterable[str]:
    """References that lead nowhere, and purposes on which a route or a licence is silent."""
    for rule in registry.rules.values():
        known: list[tuple[str, tuple[str, ...], Iterable[str]]] = [
            ("rule", rule.except_, registry.rules),
            ("route", rule.match.route, registry.routes),
            ("licence", rule.match.licence, registry.licences),
            ("model", (*rule.match.family, *rule.match.student_family), registry.families),
        ]
        for what, wanted, having in known:
            for name in wanted:
                if name not in having:
                    yield f"rule {rule.id}: {what} {name!r} is not defined"
        if not rule.source.url and rule.source.doc != OWN_RULES:
            yield f"rule {rule.id}: a clause of somebody's document needs a url"
    for family in registry.families.values():
        for licence in family.licences:
            if licence not in registry.licences:
                yield f"model {family.id}: licence {licence!r} is not defined"
        for route in family.routes:
            if route not in registry.routes:
                yield f"model {family.id}: route {route!r} is not defined"
    layers: list[tuple[Layer, Iterable[str]]] = [("route", registry.routes), ("licence", registry.licences)]
    for layer, defined in layers:
        for name in defined:
            for use in (use for use in USES if use not in MANNERS):
                if not any(_speaks(rule, layer, name, use) for rule in registry.rules.values()):
                    yield f"{layer} {name}: no rule speaks on {use}"


def _speaks(rule: Rule, layer: Layer, name: str, use: str) -> bool:
    """Whether the rule decides `use` for every part of that route or licence."""
    match = rule.match
    named = name in (match.route if layer == "route" else match.licence)
    narrowed = match.model or match.family or match.student_family
    return rule.layer == layer and named and not narrowed and rule.at(use) is not None
