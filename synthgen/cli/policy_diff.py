"""What two arguments of `synthgen policy diff` stand for, and what lies between them."""

from datetime import date
from pathlib import Path

import orjson

from synthgen.errors import UsageError
from synthgen.policy import Ask, GateResult, Registry, gate, load_registry
from synthgen.policy.compare import (
    Change,
    Recorded,
    ask_again,
    changed_decisions,
    changed_rules,
    read_recorded,
)

__all__ = ["differences"]

SHIPPED = "shipped"


def differences(old: str, new: str, recipe: Path | None, today: date | None) -> list[Change]:
    """Every change from `old` to `new`; with a recipe, only what its parts and uses notice.

    Raises:
        UsageError: an argument is neither a run, a POLICY.json nor a registry folder.
    """
    before, after = _state(old), _state(new)
    if isinstance(before, Recorded):
        if recipe is not None:
            raise UsageError(
                "--recipe: a POLICY.json already holds its question; give two registries instead"
            )
        if isinstance(after, Recorded):
            return list(_between(before, after))
        return list(changed_decisions(before, ask_again(before, after, today)))
    if isinstance(after, Recorded):
        raise UsageError(f"{new}: a recorded decision comes first, as OLD")
    if recipe is None:
        return list(changed_rules(before, after))
    return list(_for_recipe(recipe, before, after))


def _state(name: str) -> Recorded | Registry:
    path = Path(name)
    if name == SHIPPED:
        return load_registry()
    if (path / "registry.toml").is_file():
        return load_registry(path)
    policy = path / "POLICY.json" if path.is_dir() else path
    if not policy.is_file():
        raise UsageError(f"{name}: no POLICY.json, no registry.toml, and not the word {SHIPPED!r}")
    try:
        return read_recorded(orjson.loads(policy.read_bytes()), str(policy))
    except (OSError, orjson.JSONDecodeError) as error:
        raise UsageError(f"{policy}: cannot be read: {error}") from error


def _between(before: Recorded, after: Recorded) -> list[Change]:
    changes = []
    for part, (outcome, owed) in after.outcomes.items():
        name = f"{part.hf or part.model} on {part.route} ({part.role})"
        if part not in before.outcomes:
            changes.append(Change("part added", name, "", outcome))
        elif before.outcomes[part] != (outcome, owed):
            was = before.outcomes[part]
            changes.append(Change("part", name, _told(*was), _told(outcome, owed)))
    gone = [part for part in before.outcomes if part not in after.outcomes]
    changes += [
        Change("part removed", f"{p.hf or p.model} on {p.route} ({p.role})", before.outcomes[p][0], "")
        for p in gone
    ]
    return changes


def _told(outcome: str, owed: frozenset[str]) -> str:
    return outcome + (f": {', '.join(sorted(owed))}" if owed else "")


def _for_recipe(recipe: Path, before: Registry, after: Registry) -> list[Change]:
    from synthgen import api

    question = api.policy_check(recipe)
    first, second = (
        gate(registry, [p.part for p in question.result.parts], question.ask) for registry in (before, after)
    )
    return list(changed_decisions(_as_recorded(first, before, question.ask), second))


def _as_recorded(result: GateResult, registry: Registry, ask: Ask) -> Recorded:
    outcomes = {
        item.part: (item.decision.outcome, frozenset(map(str, item.decision.obligations)))
        for item in result.parts
    }
    return Recorded(registry.version, ask, tuple(outcomes), outcomes)
