"""What changed between two states of the policy: rules of two registries, or decisions of the same parts.

In: two registries, or a recorded POLICY.json and a registry to ask again. Out: `Change`s in a stable order.
Guarantee: a recorded decision is asked again with its own uses, actor facts and date unless another day is given; the
recorded overrides are not applied anew, because the lock file beside the recipe is what counts.
"""

from collections.abc import Iterator, Mapping
from dataclasses import fields
from datetime import date
from typing import cast

from synthgen.dataclasses import dataclass
from synthgen.errors import UsageError
from synthgen.policy.gate import GateResult, gate
from synthgen.policy.model import Ask, Outcome, Part, rank
from synthgen.policy.registry import Registry
from synthgen.policy.rules import Rule
from synthgen.recipe.model import Actor
from synthgen.types import JSONValue

__all__ = ["Change", "Recorded", "ask_again", "changed_decisions", "changed_rules", "read_recorded"]

# What of a rule decides; dates and evidence are told as well, because they cap and age.
_TOLD = (
    "decision",
    "applies",
    "match",
    "when",
    "obligations",
    "except_",
    "clause",
    "evidence",
    "as_of",
    "source",
)


@dataclass(frozen=True, slots=True)
class Change:
    """One line of a diff. `what` is a rule id or a part; `before` and `after` are empty where it was or is absent."""

    kind: str
    what: str
    before: str
    after: str

    def as_json(self) -> dict[str, JSONValue]:
        """One element of `policy diff --json`."""
        return {"kind": self.kind, "what": self.what, "before": self.before, "after": self.after}


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a POLICY.json says: the question, its parts, and the answers of then."""

    registry_version: str
    ask: Ask
    parts: tuple[Part, ...]
    outcomes: Mapping[Part, tuple[Outcome, frozenset[str]]]


def changed_rules(old: Registry, new: Registry) -> Iterator[Change]:
    """Rules that came, went or changed, by id; then models that moved to other licences."""
    for name in sorted(old.rules.keys() | new.rules.keys()):
        before, after = old.rules.get(name), new.rules.get(name)
        if before is None or after is None:
            kind = "rule added" if before is None else "rule removed"
            yield Change(kind, name, _summary(before), _summary(after))
        elif before != after:
            for field in _TOLD:
                was, now = getattr(before, field), getattr(after, field)
                if was != now:
                    yield Change(f"rule {field.strip('_')}", name, _text(was), _text(now))
    for name in sorted(old.families.keys() & new.families.keys()):
        was, now = (reg.licences_of(reg.families[name]) for reg in (old, new))
        if was != now:
            yield Change("model licences", name, ", ".join(was), ", ".join(now))


def _summary(rule: Rule | None) -> str:
    return "" if rule is None else f"{_text(rule.decision)}: {rule.clause}"


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    if isinstance(value, tuple):
        return "; ".join(_text(item) for item in value)
    return str(value)


def changed_decisions(recorded: Recorded, result: GateResult) -> Iterator[Change]:
    """Parts whose outcome or obligations differ from what was recorded."""
    for item in result.parts:
        before = recorded.outcomes.get(item.part)
        if before is None:
            continue
        name = f"{item.part.hf or item.part.model} on {item.part.route} ({item.part.role})"
        outcome, owed = before
        if outcome != item.decision.outcome:
            kind = "stricter" if rank(item.decision.outcome) > rank(outcome) else "milder"
            yield Change(kind, name, outcome, item.decision.outcome)
        now = frozenset(map(str, item.decision.obligations))
        if owed != now:
            yield Change("obligations", name, ", ".join(sorted(owed)), ", ".join(sorted(now)))


def ask_again(recorded: Recorded, registry: Registry, today: date | None) -> GateResult:
    """The recorded question, put to another registry or on another day."""
    ask = recorded.ask
    return gate(
        registry, recorded.parts, Ask(ask.uses, ask.actor, ask.student_base, today=today or ask.today)
    )


def read_recorded(policy: JSONValue, where: str) -> Recorded:
    """A POLICY.json.

    Raises:
        UsageError: it is none, or of a form we do not know.
    """
    try:
        content = cast(dict[str, JSONValue], policy)
        parts = [cast(dict[str, JSONValue], item) for item in cast(list[JSONValue], content["parts"])]
        actor = {
            key: value
            for key, value in cast(dict[str, object], content["actor"]).items()
            if key in Actor.model_fields
        }
        ask = Ask(
            tuple(cast(list[str], content["uses"])),
            Actor.model_validate(actor),
            cast(str | None, content["student_base"]),
            today=date.fromisoformat(cast(str, content["evaluated"])),
        )
        outcomes = {
            _part(item): (cast(Outcome, item["decision"]), frozenset(cast(list[str], item["obligations"])))
            for item in parts
        }
        return Recorded(cast(str, content["registry_version"]), ask, tuple(outcomes), outcomes)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{where}: is no POLICY.json of synthgen ({error})") from error


def _part(item: Mapping[str, JSONValue]) -> Part:
    names = {field.name for field in fields(Part)}
    renamed: dict[str, object] = {
        "alias": item["teacher"],
        **{key: value for key, value in item.items() if key in names},
    }
    renamed["upstream"] = tuple(cast(list[str], item.get("upstream") or []))
    return Part(**renamed)  # type: ignore[arg-type]  # the JSON that `emit` wrote
