"""Decisions, rules, cases and changes for people, and the registry as rows.

In: results of the policy. Out: tables on stdout. Names come from users and servers: control characters are shown escaped.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import date
from typing import TYPE_CHECKING, cast

from rich.table import Table
from rich.text import Text

from synthgen.assets import suggest
from synthgen.cli.output import console
from synthgen.cli.terminal import safe
from synthgen.errors import UsageError
from synthgen.policy import Citation, GateResult, PartDecision, Registry
from synthgen.policy.cases import CaseResult
from synthgen.policy.compare import Change
from synthgen.policy.evaluate import STOP_AFTER, WARN_AFTER
from synthgen.policy.model import rank
from synthgen.policy.rules import Rule
from synthgen.types import JSONValue

if TYPE_CHECKING:
    from synthgen.pipeline.recheck import Recheck

__all__ = ["listed", "print_cases", "print_changes", "print_gate", "print_groups", "print_listed"]

WHAT = ("rules", "routes", "licences", "models", "seeds")
_WORDS = {
    "allow": "ALLOW",
    "allow_with_obligations": "ALLOW, OWES",
    "review": "REVIEW",
    "deny": "DENY",
}


def print_gate(result: GateResult, *, chain: bool = False) -> None:
    """The decision on every part, what decided it, what is owed; with `chain` every rule that spoke."""
    out = console()
    table = Table("teacher", "route", "decision", "decided by", "for", "as of", box=None, pad_edge=False)
    for item in result.parts:
        first = item.decision.citations[0] if item.decision.citations else None
        table.add_row(*(Text(safe(cell)) for cell in _gate_row(item, first)))
    out.print(table)
    for citation in _told(result, chain):
        lifted = f", lifted by {citation.lifted}" if citation.lifted else ""
        out.print(
            Text(
                safe(
                    f"  {citation.decision} by {citation.rule} for {citation.use}{lifted}: {citation.clause} "
                    f"[{citation.doc} {citation.section}, {citation.effective}; "
                    f"as of {citation.as_of} {citation.evidence}] {citation.url}".rstrip()
                )
            )
        )
    lines = [f"  owes {obligation}" for obligation in result.obligations]
    lines += [f"  question: {question}" for question in result.questions]
    lines += [f"  warning: {warning}" for warning in result.warnings]
    for line in lines:
        out.print(Text(safe(line)))
    out.print(f"policy: {result.outcome}")


def _gate_row(item: PartDecision, first: Citation | None) -> tuple[str, ...]:
    part = item.part
    return (
        f"{part.hf or part.model} ({part.role})",
        part.route,
        _WORDS[item.decision.outcome],
        first.rule if first else "",
        first.use if first else "",
        f"{first.as_of} {first.evidence}" if first else "",
    )


def _told(result: GateResult, chain: bool) -> Iterable[Citation]:
    """What stops, or everything that spoke; strictest first, each once."""
    spoke = [*result.conflicts, *(c for item in result.parts for c in item.decision.citations)]
    wanted = [c for c in spoke if chain or rank(c.decision) >= rank("review")]
    return sorted(dict.fromkeys(wanted), key=lambda citation: -rank(citation.decision))


def print_groups(found: "Recheck") -> None:
    """The rows of a run by what is decided on them."""
    if not found.groups:
        return
    out = console()
    table = Table("rows", "decision", "written by", "seeds", "kept in", box=None, pad_edge=False)
    for group in found.groups:
        written = ", ".join(f"{part.hf or part.model} on {part.route} ({part.role})" for part in group.parts)
        seeds = f"{group.parts[0].row_license} {group.parts[0].seed_relation}" if group.parts else ""
        kept = "nothing" if group.kept_in is None else f"config {group.kept_in}"
        cells = (str(group.rows), _WORDS[group.outcome], written, seeds, kept)
        table.add_row(*(Text(safe(cell)) for cell in cells))
    out.print(table)
    out.print(f"rows kept with --on-deny={found.on_deny}: {found.rows_kept} of {found.rows}")


def listed(registry: Registry, what: str, today: date, *, stale: bool) -> dict[str, JSONValue]:
    """The rows of `policy list`, and how well the registry is known.

    Raises:
        UsageError: `what` is unknown.
    """
    if what not in WHAT:
        raise UsageError(f"list {what}: unknown{suggest(what, list(WHAT))}; list one of {', '.join(WHAT)}")
    rules = [rule for rule in registry.rules.values() if not stale or _stale(rule, today)]
    rows = _rows(registry, what, rules, today)
    counts = Counter(rule.evidence for rule in registry.rules.values())
    return {
        what: cast(JSONValue, rows),
        "registry": registry.version,
        "counts": {
            "rules": len(registry.rules),
            **{f"evidence {grade}": counts[grade] for grade in ("V", "Q", "S", "M")},
            "unreviewed": sum(not rule.reviewed_by for rule in registry.rules.values()),
            "review overdue": sum(rule.review_by < today for rule in registry.rules.values()),
            "terms older than 180 days": sum(_aged(rule, today) for rule in registry.rules.values()),
        },
    }


def _rows(registry: Registry, what: str, rules: Iterable[Rule], today: date) -> list[dict[str, JSONValue]]:
    if what == "rules":
        return [_rule_row(rule, today) for rule in rules]
    if what == "routes":
        return [
            {
                "route": r.id,
                "party": r.party,
                "serves": r.serves,
                "hosts": list(r.hosts),
                "aliases": list(r.aliases),
            }
            for r in registry.routes.values()
        ]
    if what == "licences":
        return [{"licence": lic.id, "name": lic.name, "url": lic.url} for lic in registry.licences.values()]
    if what == "seeds":
        return _seed_rows(registry)
    return [
        {
            "model": family.id,
            "party": family.party,
            "weights": family.weights,
            "licences": list(registry.licences_of(family)),
            "evidence": family.evidence,
            "names": list(family.names),
        }
        for family in registry.families.values()
    ]


def _aged(rule: Rule, today: date) -> bool:
    return rule.layer == "route" and not rule.is_own and today - rule.as_of > WARN_AFTER


def _stale(rule: Rule, today: date) -> bool:
    return rule.review_by < today or _aged(rule, today)


def _rule_row(rule: Rule, today: date) -> dict[str, JSONValue]:
    age = today - rule.as_of
    stopped = _aged(rule, today) and age > STOP_AFTER
    return {
        "rule": rule.id,
        "layer": rule.layer,
        "decides": ", ".join(f"{use} {outcome}" for use, outcome in rule.decision.items()),
        "evidence": rule.evidence,
        "as_of": rule.as_of.isoformat(),
        "review_by": rule.review_by.isoformat() + (" OVERDUE" if rule.review_by < today else ""),
        "age_days": f"{age.days}{' (allows nothing any more)' if stopped else ''}",
        "source": f"{rule.source.doc} {rule.source.section}, {rule.source.effective}",
        "url": rule.source.url,
    }


def _seed_rows(registry: Registry) -> list[dict[str, JSONValue]]:
    spelt: dict[str, list[JSONValue]] = {}
    for alias, name in registry.seed_aliases.items():
        spelt.setdefault(name, []).append(alias)
    return [
        {"seed": name, "also": [alias for alias in also if alias != name.lower()]}
        for name, also in spelt.items()
    ]


def print_listed(found: dict[str, JSONValue]) -> None:
    """Tables."""
    out = console()
    rows = cast(list[dict[str, JSONValue]], next(iter(found.values())))
    table = Table(box=None, pad_edge=False)
    for column in rows[0] if rows else ():
        table.add_column(column)
    for row in rows:
        cells = (
            ", ".join(map(str, value)) if isinstance(value, list) else str(value) for value in row.values()
        )
        table.add_row(*(Text(safe(cell)) for cell in cells))
    out.print(table)
    counts = cast(dict[str, JSONValue], found["counts"])
    out.print(
        f"registry {found['registry']}: " + ", ".join(f"{count} {name}" for name, count in counts.items())
    )


def print_cases(results: Sequence[CaseResult]) -> None:
    """Every miss with its rules, and what of a context was not understood."""
    out = console()
    for result in results:
        for note in result.notes:
            out.print(Text(safe(f"{result.id}: note: {note}")))
        if result.met:
            continue
        missing = f"; not owed: {', '.join(result.missing)}" if result.missing else ""
        found = result.problem or f"found {result.found}{missing}"
        out.print(Text(safe(f"{result.id}: expected {result.expected}, {found}")))
        for citation in result.chain:
            out.print(
                Text(
                    safe(
                        f"  {citation.decision} by {citation.rule} for {citation.use} on {citation.subject}: "
                        f"{citation.clause} [{citation.doc} {citation.section}; {citation.as_of} {citation.evidence}]"
                    )
                )
            )
    met = sum(result.met for result in results)
    out.print(f"{met} of {len(results)} cases met")


def print_changes(changes: Sequence[Change]) -> None:
    """One line a change."""
    out = console()
    for change in changes:
        out.print(
            Text(safe(f"{change.kind}: {change.what}: {change.before or '-'} -> {change.after or '-'}"))
        )
    out.print(f"{len(changes)} changes")
