"""`policy.lock.toml`: the recorded decisions of people, beside the recipe.

In: the file, today's date, the registry and the declared uses. Out: `Overrides`. Guarantees: no entry is silently
ignored: an expired, wildcard or foreign entry is an error that says what to do. There is no switch that turns the
policy off.

    [[attestation]]                      # lifts review
    rules = ["anthropic.aup.training"]
    use = "train-task-internal:classifier"
    justification = "at least 40 characters on why this is fine"
    who = "name of the person who decided"
    date = 2026-11-21
    expires = 2027-11-20                 # at most 12 months later

    [[waiver]]                           # lifts deny; the same keys, and the contract
    contract_ref = "CONTRACT-123"
    document_sha256 = "64 hex digits of the signed document"

An optional `subject` (a route, model, hf id, seed licence or student base) narrows an entry; entries for `default.*`
rules need one, so that a typo in another teacher's name is never covered.
"""

import re
from collections.abc import Iterable
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated, Literal

import tomli
from pydantic import Field, ValidationError

from synthgen.assets import suggest
from synthgen.errors import RecipeError
from synthgen.policy.model import Override, Overrides
from synthgen.policy.registry import Registry
from synthgen.policy.uses import USES
from synthgen.recipe.model import Strict

__all__ = ["LOCK_NAME", "load_lock"]

LOCK_NAME = "policy.lock.toml"
MAX_TERM = timedelta(days=366)
MIN_JUSTIFICATION = 40


class _Attestation(Strict):
    rules: Annotated[tuple[str, ...], Field(min_length=1)]
    use: str
    justification: Annotated[str, Field(min_length=MIN_JUSTIFICATION)]
    who: Annotated[str, Field(min_length=1)]
    signed: Annotated[date, Field(alias="date")]
    expires: date
    subject: str | None = None


class _Waiver(_Attestation):
    contract_ref: Annotated[str, Field(min_length=1)]
    document_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def load_lock(path: Path, today: date, *, registry: Registry, uses: Iterable[str]) -> Overrides:
    """Every entry of the lock file; none if there is no file. `uses` are the declared ones, canonical.

    Raises:
        RecipeError: `file:line:` of each entry that does not parse, has expired, or reaches too far.
    """
    if not path.is_file():
        return Overrides()
    try:
        text = path.read_text(encoding="utf-8")
        content = tomli.loads(text)
    except (OSError, UnicodeDecodeError, tomli.TOMLDecodeError) as error:
        raise RecipeError(f"{path}:1: cannot be read: {error}") from error
    declared = tuple(uses)
    entries: list[Override] = []
    problems = [
        f"{path}:1: unknown key {key!r}; allowed: attestation, waiver"
        for key in content
        if key not in ("attestation", "waiver")
    ]
    kinds: tuple[Literal["attestation", "waiver"], ...] = ("attestation", "waiver")
    for kind in kinds:
        for index, line, raw in _tables(content.get(kind, []), text, kind):
            where = f"{path}:{line}: {kind}[{index}]"
            try:
                entry = _entry(kind, raw)
            except ValidationError as error:
                problems += [
                    f"{where}.{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()
                ]
                continue
            problems += [f"{where}: {problem}" for problem in _faults(entry, today, registry, declared)]
            entries.append(entry)
    if problems:
        raise RecipeError("\n".join(problems))
    return Overrides(tuple(entries))


def _tables(raw: object, text: str, kind: str) -> Iterable[tuple[int, int, object]]:
    """Index, line of its header, and content of each `[[kind]]`."""
    header = re.compile(rf"^\s*\[\[\s*{kind}\s*\]\]")
    lines = [number for number, line in enumerate(text.splitlines(), 1) if header.match(line)]
    for index, item in enumerate(raw if isinstance(raw, list) else [raw]):
        yield index, lines[index] if index < len(lines) else 1, item


def _entry(kind: Literal["attestation", "waiver"], raw: object) -> Override:
    model = (_Waiver if kind == "waiver" else _Attestation).model_validate(raw)
    return Override(
        kind=kind,
        rules=model.rules,
        use=model.use,
        justification=model.justification,
        who=model.who,
        signed=model.signed,
        expires=model.expires,
        subject=model.subject,
        contract_ref=model.contract_ref if isinstance(model, _Waiver) else None,
        document_sha256=model.document_sha256 if isinstance(model, _Waiver) else None,
    )


def _faults(entry: Override, today: date, registry: Registry, uses: tuple[str, ...]) -> Iterable[str]:
    if entry.signed > today:
        yield f"date {entry.signed} lies in the future; write the day it was decided"
    if entry.expires < today:
        yield f"expired on {entry.expires}; decide again and renew it, or remove the entry"
    if not entry.signed < entry.expires <= entry.signed + MAX_TERM:
        yield f"expires {entry.expires} must lie within 12 months after date {entry.signed}"
    if any("*" in word or "?" in word for word in (*entry.rules, entry.use)):
        yield "wildcards are not accepted; name each rule and the use"
        return
    for rule in entry.rules:
        if rule not in registry.rules:
            yield f"unknown rule {rule!r}{suggest(rule, sorted(registry.rules))}"
        elif rule.startswith("default.") and entry.subject is None:
            yield f"rule {rule} covers everything unknown; add subject = the one model, route or licence meant"
    if entry.use not in USES:
        yield f"unknown use {entry.use!r}{suggest(entry.use, list(USES))}"
    elif entry.use not in uses:
        yield f"use {entry.use!r} is not declared in the recipe ({', '.join(uses)}); remove the entry"
