"""One rule as data: a clause of one document in our own words, what it decides per use, and where it stands.

In: tables of the registry's TOML files. Out: frozen models. Guarantees: unknown keys are errors, a rule holds no code
(`when` is a closed set of comparisons), its clause has at most 40 words.
"""

from collections.abc import Mapping
from datetime import date
from functools import cache
from types import MappingProxyType
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field, field_validator, model_validator

from synthgen.policy.model import Evidence, Layer, Outcome
from synthgen.policy.uses import USES, covers, matching_uses
from synthgen.recipe.model import Strict

__all__ = ["OWN_RULES", "Comparison", "Condition", "Match", "Owed", "Rule", "Source"]

MAX_CLAUSE_WORDS = 40
OWN_RULES = "synthgen default"

Fact: TypeAlias = Literal[
    "territory", "mau", "revenue12m_usd", "maas", "foundation_model_developer", "student_family"
]
Op: TypeAlias = Literal[">", ">=", "<", "<=", "==", "!=", "in", "not-in"]
ObligationId: TypeAlias = Literal[
    "NAME-PREFIX", "DISPLAY", "DISPLAY?", "DISPLAY-IF", "FLOWDOWN", "PROHIBITED-USES", "AUP", "LIC-COPY", "NOTICE",
    "ATTR-NOTICE", "NC-ONLY", "NO-DISTRIBUTE", "MAU-LIMIT", "NOT-COMPETE", "BRAND-LIMIT", "NO-REVERSE-ENGINEERING",
    "SHARE-ALIKE", "ROW-LICENSE", "KEEP-GPL-NOTICE", "SEED-ATTRIBUTION", "ROUTE-PIN", "STRIP-JUDGE-COLUMNS",
    "QUARANTINE-ROWS", "DISCLOSE-AI", "INPUTS-TRAINED-ON", "PREVIEW-NO-PRODUCTION",
]  # fmt: skip
_TEXT_FACTS = ("territory", "student_family")
_NUMBER_FACTS = ("mau", "revenue12m_usd")


def _checked_patterns(patterns: tuple[str, ...]) -> tuple[str, ...]:
    for pattern in patterns:
        if not matching_uses(pattern):
            raise ValueError(f"{pattern!r} matches no use")
    return patterns


Patterns: TypeAlias = Annotated[tuple[str, ...], AfterValidator(_checked_patterns)]


class Source(Strict):
    """Where a clause stands. `effective` is as exact as the document; `url` is empty only for our own rules."""

    doc: Annotated[str, Field(min_length=1)]
    section: Annotated[str, Field(min_length=1)]
    effective: date | Annotated[str, Field(pattern=r"^(undated|\d{4}(-\d{2})?)$")]
    url: Annotated[str, Field(pattern=r"^(https://\S+)?$")] = ""


class Match(Strict):
    """What a rule is about: every non-empty list must contain the part's value. `model` and `seed` may hold globs."""

    route: tuple[str, ...] = ()
    licence: tuple[str, ...] = ()
    family: tuple[str, ...] = ()
    model: tuple[str, ...] = ()
    seed: tuple[str, ...] = ()
    relation: tuple[str, ...] = ()
    role: tuple[str, ...] = ()
    student_family: tuple[str, ...] = ()


class Comparison(Strict):
    """One fact against one value. A territory in the European Union also counts as `EU`."""

    fact: Fact
    op: Op
    value: bool | int | float | str | tuple[str, ...]

    @model_validator(mode="after")
    def _comparable(self) -> "Comparison":
        is_text = self.fact in _TEXT_FACTS
        if self.op in ("in", "not-in"):
            fits = is_text and isinstance(self.value, tuple)
        elif self.op in ("==", "!="):
            fits = isinstance(self.value, str if is_text else bool | int | float)
        else:
            number = isinstance(self.value, int | float) and not isinstance(self.value, bool)
            fits = number and self.fact in _NUMBER_FACTS
        if not fits:
            raise ValueError(f"{self.fact} {self.op} {self.value!r} cannot be compared")
        return self


class Owed(Strict):
    """An obligation of a rule; `on` says which uses make it due. `$seed` in `arg` is the seed licence."""

    id: ObligationId
    arg: str = ""
    on: Patterns = ("*",)


class Condition(Comparison):
    """Raises the decision to `decision` when the comparison (and those under `and`) hold, for the uses that fit `on`.

    Where they may hold, because a fact is not declared, the decision rises to `unknown`, and `owes_unknown` is owed.
    """

    and_: tuple[Comparison, ...] = Field(default=(), alias="and")
    decision: Outcome
    unknown: Outcome = "review"
    owes_unknown: tuple[Owed, ...] = ()
    on: Patterns = ("*",)

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """All that must hold."""
        return (self, *self.and_)


class Rule(Strict):
    """One clause of one document, in our own words, and what it decides per use.

    `basis` names the rows of the facts the registry was written from; `except` the rules that remove this one where
    they speak; `replaces` (in rule folders of users only) a shipped rule that rests on unread text. A permissive
    decision is `allow` where the rule owes nothing for the use, and `allow_with_obligations` where it does.
    """

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")]
    layer: Layer
    match: Match = Match()
    applies: Patterns = ("*",)
    decision: dict[str, Outcome]
    clause: str
    obligations: tuple[Owed, ...] = ()
    when: tuple[Condition, ...] = ()
    except_: tuple[str, ...] = Field(default=(), alias="except")
    replaces: tuple[str, ...] = ()
    source: Source
    basis: tuple[str, ...] = ()
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

    @property
    def is_own(self) -> bool:
        """Whether synthgen itself decided so, and no document of anybody else's."""
        return self.source.doc == OWN_RULES

    @property
    def by_use(self) -> Mapping[str, Outcome]:
        """The decision for each use before conditions; none where the rule is silent. Longer patterns win."""
        return _decided(self.applies, tuple(self.decision.items()))


@cache
def _decided(applies: tuple[str, ...], decision: tuple[tuple[str, Outcome], ...]) -> Mapping[str, Outcome]:
    """Remembered, for most rules decide as another does."""
    decided: dict[str, Outcome] = {}
    for use in USES:
        fitting = [
            pattern for pattern, _ in decision if pattern != "default" and use in matching_uses(pattern)
        ]
        outcome = dict(decision).get(max(fitting, key=len) if fitting else "default")
        if outcome is not None and covers(applies, use):
            decided[use] = outcome
    return MappingProxyType(decided)
