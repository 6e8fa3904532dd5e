"""A table of cases: what the gate should say, against what it says.

In: a CSV with the columns id, kind, teachers, routes, roles, uses, context, seeds, expected_decision,
expected_obligations (others are carried by people). Out: one `CaseResult` a row. `teachers`, `routes` and `roles` are
parallel, parted by ` + `; `uses`, `context` and obligations by `;`. Seeds are `licence:relation`, with ` + ` for texts
merged in one row and `;` for separate rows. A name may carry a note: `x/y (weights)`, `x/y (0324)`.

`context` holds actor facts (`mau>700M`, `territory=DE`, `maas=true`, `revenue12m>20M`), `student_base=`, `today=`,
`served=` (the name in the reply), `upstream=` (the host behind a router), `hf=` (the weights behind the name),
`on-deny=drop` (parts that are refused alone are left out), `lineage=attested`, and overrides: `waiver=REF`,
`attestation=REF`, with `expires=`, `use=` and `subject=`. An override stands for an entry of the lock file on every
rule that stops the case; one that has expired, or with a wildcard, lifts nothing.

A case is met if the decision is the expected one and every expected obligation id is owed; arguments may vary.
"""

import csv
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import date, timedelta
from itertools import product
from pathlib import Path
from typing import Literal, cast, get_args

from synthgen.dataclasses import dataclass
from synthgen.errors import UsageError
from synthgen.policy.gate import GateResult, gate
from synthgen.policy.model import Ask, Citation, Outcome, Override, Overrides, Part, PartRole, rank
from synthgen.policy.registry import Registry
from synthgen.policy.resolve import candidates
from synthgen.policy.uses import parse_uses
from synthgen.recipe.model import SEED_RELATIONS, Actor
from synthgen.types import JSONValue

__all__ = ["CASES_DATE", "CaseResult", "run_cases"]

CASES_DATE = date(2026, 11, 21)
_COLUMNS = ("id", "teachers", "routes", "uses", "expected_decision")
_ITEM = re.compile(r"^(?P<name>[\w-]+)\s*(?P<op>>=|<=|>|<|=)\s*(?P<value>.+)$")
_NUMBER = re.compile(r"^(?P<digits>\d+(\.\d+)?)\s*(?P<unit>[kKmMbB]?)\s*(USD)?$")
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}
_NUMBER_FACTS = {
    "mau": "mau",
    "revenue": "revenue12m_usd",
    "revenue12m": "revenue12m_usd",
    "revenue12m_usd": "revenue12m_usd",
}
_UNKNOWN = ("unknown", "undeclared", "none", "?")


@dataclass(frozen=True, slots=True)
class CaseResult:
    """What became of one row. `missing` are expected obligation ids that are not owed; `notes` what was not understood.

    `found` is None where the row cannot be read; `problem` then says why.
    """

    id: str
    expected: str
    found: Outcome | None
    missing: tuple[str, ...]
    owed: tuple[str, ...]
    chain: tuple[Citation, ...]
    notes: tuple[str, ...]
    problem: str | None = None

    @property
    def met(self) -> bool:
        """Whether decision and obligations are as expected."""
        return self.found == self.expected and not self.missing

    def as_json(self) -> dict[str, JSONValue]:
        """One element of `policy cases --json`."""
        return {
            "id": self.id,
            "met": self.met,
            "expected": self.expected,
            "found": self.found,
            "missing": list(self.missing),
            "owed": list(self.owed),
            "notes": list(self.notes),
            "problem": self.problem,
            "rules": [citation.as_json() for citation in self.chain],
        }


def run_cases(registry: Registry, path: Path) -> list[CaseResult]:
    """Every case of the table, in its order.

    Raises:
        UsageError: the file cannot be read, or lacks a column.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restval="")
            rows = [(reader.line_num, row) for row in reader]
            columns = reader.fieldnames or ()
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from error
    if lacking := [name for name in _COLUMNS if name not in columns]:
        raise UsageError(f"{path}:1: no column {', '.join(lacking)}; found {', '.join(columns) or 'none'}")
    return [_run(registry, row, f"{path}:{line}") for line, row in rows]


def _run(registry: Registry, row: Mapping[str, str], where: str) -> CaseResult:
    expected = row["expected_decision"].strip()
    try:
        context = _Context.read(row.get("context", ""))
        result = _decide(registry, row, context)
    except (UsageError, ValueError) as error:
        return CaseResult(row["id"], expected, None, (), (), (), (), f"{where}: {error}")
    owed = {obligation.id for obligation in result.obligations}
    wanted = [item.partition(":")[0] for item in _split(row.get("expected_obligations", ""), ";")]
    chain = [citation for item in result.parts for citation in item.decision.citations]
    return CaseResult(
        id=row["id"],
        expected=expected,
        found=result.outcome,
        missing=tuple(item for item in wanted if item not in owed),
        owed=tuple(str(obligation) for obligation in result.obligations),
        chain=tuple(sorted([*result.conflicts, *chain], key=lambda citation: -rank(citation.decision))),
        notes=context.notes,
    )


def _decide(registry: Registry, row: Mapping[str, str], context: "_Context") -> GateResult:
    uses = parse_uses(_split(row["uses"], ";"))
    ask = Ask(uses, context.actor, context.facts.get("student_base"), today=context.today)
    parts = list(_parts(registry, row, context))
    result = gate(registry, parts, ask)
    entries = context.overrides(result, uses)
    if entries:
        ask = replace(ask, overrides=Overrides(entries))
    kept = [part for part in parts if gate(registry, [part], ask).passed]
    dropping = context.facts.get("on_deny") in ("drop", "split") and kept
    return gate(registry, kept if dropping else parts, ask)


def _parts(registry: Registry, row: Mapping[str, str], context: "_Context") -> Iterable[Part]:
    teachers, routes = _split(row["teachers"], " + "), _split(row["routes"], " + ")
    roles = _split(row.get("roles", ""), " + ") or ["teacher"]
    count = len(teachers)
    lists = [teachers, *(names * count if len(names) == 1 else names for names in (routes, roles))]
    if not count or {len(names) for names in lists} != {count}:
        raise UsageError("teachers, routes and roles are not equally many")
    seeds = [_seed(group) for group in _split(row.get("seeds", ""), ";")] or [("own", "adapted")]
    for (number, (teacher, route, role)), (licence, relation) in product(
        enumerate(zip(*lists, strict=True)), seeds
    ):
        if role not in get_args(PartRole):
            raise UsageError(f"unknown role {role!r}; one of {', '.join(get_args(PartRole))}")
        yield Part(
            alias=f"t{number}",
            provider="",
            route=route,
            model=_model(registry, teacher),
            hf=context.facts.get("hf"),
            role=cast(PartRole, role),
            row_license=licence,
            seed_relation=cast(SEED_RELATIONS, relation),
            upstream=tuple(_split(context.facts.get("upstream", ""), ",")),
            served=context.facts.get("served"),
        )


def _model(registry: Registry, written: str) -> str:
    """The model's name; a note in brackets with a number is a version where the registry knows it."""
    name, _, note = written.partition("(")
    name, note = name.strip(), note.rstrip(") ").strip()
    versioned = f"{name}-{note}"
    return versioned if any(c.isdigit() for c in note) and candidates(registry, versioned) else name


def _seed(group: str) -> tuple[str, str]:
    """Licence and relation of one row; of merged texts, those that reach the row."""
    texts = []
    for item in _split(group, " + "):
        licence, _, relation = item.rpartition(":")
        texts.append((licence, relation) if licence else (item, "adapted"))
    unknown = {relation for _, relation in texts} - set(get_args(SEED_RELATIONS))
    if unknown:
        raise UsageError(f"unknown seed relation {', '.join(sorted(unknown))}")
    reaching = [text for text in texts if text[1] in ("verbatim", "adapted")] or texts
    relations = {relation for _, relation in reaching}
    relation = "adapted" if "adapted" in relations else reaching[0][1]  # the stricter one of a mixed row
    return " AND ".join(licence for licence, _ in reaching), relation


@dataclass(frozen=True, slots=True)
class _Context:
    """The column `context`, read."""

    actor: Actor
    facts: Mapping[str, str]
    notes: tuple[str, ...]

    @classmethod
    def read(cls, text: str) -> "_Context":
        actor: dict[str, object] = {}
        facts: dict[str, str] = {}
        notes = []
        for item in _split(text, ";"):
            found = _ITEM.match(item)
            if found is None:
                notes.append(f"context {item!r} was not understood")
                continue
            name, op, value = found["name"].replace("-", "_"), found["op"], found["value"].strip()
            if name in _NUMBER_FACTS:
                actor[_NUMBER_FACTS[name]] = _number(op, value)
            elif name in ("maas", "foundation_model_developer"):
                actor[name] = None if value in _UNKNOWN else value  # pydantic reads true and false
            elif name == "territory":
                actor[name] = None if value in _UNKNOWN else value
            elif name in _KNOWN_FACTS:
                facts[_SPELT.get(name, name)] = value
            else:
                notes.append(f"context {item!r} was not understood")
        return cls(Actor.model_validate(actor), facts, tuple(notes))

    @property
    def today(self) -> date:
        return date.fromisoformat(self.facts["today"]) if "today" in self.facts else CASES_DATE

    def overrides(self, result: GateResult, uses: tuple[str, ...]) -> tuple[Override, ...]:
        """The entries the case says the lock file holds."""
        stops = [item for part in result.parts for item in part.decision.citations] + list(result.conflicts)
        stopping = [item.rule for item in stops if rank(item.decision) >= rank("review")]
        entries = []
        for kind in ("attestation", "waiver"):
            if kind in self.facts and "*" not in self.facts[kind]:
                entries += self._entries(kind, self.facts[kind], stopping, uses)
        if self.facts.get("lineage") == "attested":
            assigned = [rule for rule in stopping if rule.startswith("model.")]
            entries += self._entries("attestation", "lineage", assigned, uses)
        return tuple(entries)

    def _entries(self, kind: str, ref: str, rules: list[str], uses: tuple[str, ...]) -> list[Override]:
        expires = self.facts.get("expires")
        entry = Override(
            kind=cast(Literal["attestation", "waiver"], kind),
            rules=tuple(dict.fromkeys(rules)),
            use="",
            justification="as the case says",
            who="the case",
            signed=min(self.today, CASES_DATE) - timedelta(days=1),
            expires=date.fromisoformat(expires) if expires else self.today + timedelta(days=1),
            subject=self.facts.get("subject"),
            contract_ref=ref if kind == "waiver" else None,
        )
        scope = (self.facts["use"],) if "use" in self.facts else uses
        return [replace(entry, use=use) for use in scope] if rules else []


_SPELT = {"served_model": "served", "scope": "use"}
_KNOWN_FACTS = frozenset(
    [
        "hf",
        "on_deny",
        "student_base",
        "today",
        "served",
        "upstream",
        "lineage",
        "waiver",
        "attestation",
        "expires",
        "use",
        "subject",
    ]
) | set(_SPELT)


def _number(op: str, value: str) -> float | None:
    """A number that satisfies the comparison; None for `unknown`."""
    if value in _UNKNOWN:
        return None
    found = _NUMBER.match(value)
    if found is None:
        raise UsageError(f"{value!r} is no number like 700M")
    number = round(float(found["digits"]) * _UNITS[found["unit"].lower()])
    return number + 1 if op == ">" else max(number - 1, 0) if op == "<" else number


def _split(text: str, by: str) -> list[str]:
    return [item.strip() for item in text.split(by) if item.strip()]
