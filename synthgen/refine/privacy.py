"""Credentials and personal data out of texts before somebody else reads them.

In: texts that belong together. Out: what is in them, or the same texts with a typed placeholder for each value.
Guarantees: pure and deterministic; one value has one placeholder in all the texts; numbers go on behind placeholders
that are already there, so that redacting twice changes nothing and never gives one name to two values.
Rejected: hashes or surrogate names as placeholders (a hash of a phone number is soon guessed; an invented name is
taken for a real one).
"""

import re
from collections.abc import Callable, Mapping, Sequence

from synthgen.refine.filters.private import private_values
from synthgen.types import JSONValue

__all__ = ["found_in", "redact", "redact_fields"]

_PLACEHOLDER = re.compile(r"\[([A-Z]+(?:_[A-Z]+)*)_(\d{1,6})\]")


def found_in(texts: Sequence[str]) -> dict[str, str]:
    """Value -> reason code (`pii_email`, `secret_aws`) of everything private in the texts, in order of place."""
    found: dict[str, str] = {}
    for text in texts:
        for value, reason in private_values(text).items():
            found.setdefault(value, reason)
    return found


def redact(texts: Sequence[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """The texts with `[EMAIL_1]`, `[SECRET_AWS_1]` and the like, and the reason codes of what was replaced."""
    found = found_in(texts)
    if not found:
        return tuple(texts), frozenset()
    names: dict[str, str] = {}
    last: dict[str, int] = {}
    for text in texts:
        for kind, number in _PLACEHOLDER.findall(text):
            last[kind] = max(last.get(kind, 0), int(number))
    for value, reason in found.items():
        kind = reason.removeprefix("pii_").upper()
        last[kind] = last.get(kind, 0) + 1
        names[value] = f"[{kind}_{last[kind]}]"
    longest = sorted(names, key=lambda value: (-len(value), value))  # a value may hold another one
    pattern = re.compile("|".join(map(re.escape, longest)))
    replaced = tuple(pattern.sub(lambda hit: names[hit[0]], text) for text in texts)
    return replaced, frozenset(found.values())


def redact_fields(fields: Mapping[str, JSONValue]) -> tuple[Mapping[str, JSONValue], frozenset[str]]:
    """A row's fields with placeholders in all their texts, lists and objects included; keys stay."""
    texts: list[str] = []
    _collect(dict(fields), texts)
    replaced, reasons = redact(texts)
    if not reasons:
        return fields, reasons
    rest = iter(replaced)
    out = _map(dict(fields), lambda _: next(rest))
    assert isinstance(out, dict)  # as it went in
    return out, reasons


def _collect(value: JSONValue, texts: list[str]) -> None:
    """Every text in a value, in the order of `_map`."""

    def note(text: str) -> str:
        texts.append(text)
        return text

    _map(value, note)


def _map(value: JSONValue, change: Callable[[str], str]) -> JSONValue:
    """The value with every text changed, always in the same order."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_map(item, change) for item in value]
    if isinstance(value, dict):
        return {key: _map(item, change) for key, item in value.items()}
    return value
