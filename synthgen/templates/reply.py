"""From a teacher's reply to fields of the row.

In: how a prompt wants its reply read, and the text. Out: `Parsed` items, each a mapping of every output of the prompt
(one item, or several for `list`), or `Unusable` with a reason code. Guarantees: never raises, whatever the text; time
is linear in the text but for broken JSON objects, of which 200 are tried; every value found is JSON that can be stored.
A thinking block at the start (`<think>...</think>`, or all before a lone `</think>`) is set aside first.
Rejected: repairing broken JSON (a guess at what the teacher meant would enter the data unmarked).
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import field
from typing import TYPE_CHECKING, Literal

import orjson

from synthgen.dataclasses import dataclass, inner
from synthgen.templates.lists import split_list
from synthgen.types import JSONValue, canonical_json

if TYPE_CHECKING:  # loaded where there is a schema to check
    from jsonschema_rs import Validator

__all__ = ["PREFERENCES", "Parsed", "Reply", "ReplyKind", "Unusable", "UnusableReason", "split_thinking"]

ReplyKind = Literal["text", "json", "list", "sections", "score", "rubric", "preference"]
PREFERENCES = ("A", "B", "tie")
UnusableReason = Literal["empty", "not_json", "schema", "missing_section", "empty_list"]

_BROKEN_OBJECTS = 200
_NUMBER = re.compile(r"[+-]?\d{1,9}(\.\d{1,9})?")


@inner(frozen=True, slots=True)
class Parsed:
    """Field mappings found in a reply, at least one; `thinking` is what stood in its thinking block."""

    items: tuple[Mapping[str, JSONValue], ...]
    thinking: str | None = None


@dataclass(frozen=True, slots=True)
class Unusable:
    """The reply does not hold what the prompt asked for. `detail` is for people and quotes no text."""

    reason: UnusableReason
    detail: str


@dataclass(frozen=True, slots=True)
class Reply:
    """How to read a reply: `kind`, the fields it gives, and for the kinds that are JSON the JSON Schema as text.

    `weights`: the fields that are scores, with what they count in an overall score; `preference`: the field that says
    which of two answers is better (`PREFERENCES`).
    """

    kind: ReplyKind
    outputs: tuple[str, ...]
    schema: str | None = None
    weights: tuple[tuple[str, float], ...] = ()
    preference: str | None = None
    _validator: "Validator | None" = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Compiles the schema; never fetches what a `$ref` points to.

        Raises:
            ValueError: not a valid JSON Schema.
        """
        validator = None
        if self.schema is not None:
            import jsonschema_rs  # 25 ms

            validator = jsonschema_rs.validator_for(orjson.loads(self.schema), offline=True)
        object.__setattr__(self, "_validator", validator)

    def read(self, text: str) -> Parsed | Unusable:
        """The fields in `text`."""
        thinking, answer = split_thinking(text)
        if not answer:
            return Unusable("empty", "nothing but thinking" if thinking else "no text")
        found = self._read(answer)
        return found if isinstance(found, Unusable) else Parsed(found, thinking)

    def _read(self, answer: str) -> tuple[Mapping[str, JSONValue], ...] | Unusable:
        match self.kind:
            case "text":
                return self._text(answer)
            case "list":
                return self._list(answer)
            case "sections":
                return self._sections(answer)
            case "json" | "score" | "rubric" | "preference":
                return self._object(answer)

    def _text(self, answer: str) -> tuple[Mapping[str, JSONValue], ...] | Unusable:
        """The answer, unwrapped where a teacher puts the tags of the prompt around its reply."""
        name = self.outputs[0]
        wrapped = answer.startswith("<") and re.fullmatch(rf"<{name}>(.*)</{name}>", answer, re.DOTALL)
        text = wrapped[1].strip() if wrapped else answer
        return ({name: text},) if text else Unusable("empty", f"no text in <{name}>")

    def _list(self, answer: str) -> tuple[Mapping[str, JSONValue], ...] | Unusable:
        try:
            items = split_list(answer, key=self.outputs[0])
        except ValueError as error:
            return Unusable("not_json", str(error))
        if not items:
            return Unusable("empty_list", "no item in the reply")
        return tuple({self.outputs[0]: item} for item in items)

    def _sections(self, answer: str) -> tuple[Mapping[str, JSONValue], ...] | Unusable:
        fields: dict[str, JSONValue] = {}
        for name in self.outputs:
            section = _section(answer, name, self.outputs)
            if not section:
                return Unusable("missing_section", f"no text in <{name}>")
            fields[name] = section
        return (fields,)

    def _object(self, answer: str) -> tuple[Mapping[str, JSONValue], ...] | Unusable:
        """The last object that satisfies the schema: a teacher that thinks aloud drafts before it decides."""
        assert self._validator is not None  # both kinds have a schema
        problem = Unusable("not_json", "no JSON object in the reply")
        chosen: dict[str, JSONValue] | None = None
        for value in _json_objects(answer):
            candidate = self._as_meant(value)
            error = next(self._validator.iter_errors(candidate), None)
            if error is None:
                chosen = candidate
            else:
                at = ".".join(map(str, error.instance_path))[:80] or "the object"
                problem = Unusable("schema", f"{at} breaks `{error.kind.name}`")
        return problem if chosen is None else ({name: chosen.get(name) for name in self.outputs},)

    def _as_meant(self, value: dict[str, JSONValue]) -> dict[str, JSONValue]:
        """The object with scores as numbers and a preference as one of its words, however they are spelled."""
        for name, _ in self.weights:
            value = _with_number(value, name)
        said = value.get(self.preference) if self.preference else None
        if self.preference and isinstance(said, str):
            meant = next((word for word in PREFERENCES if word.lower() == said.strip().lower()), said)
            value = {**value, self.preference: meant}
        return value


def split_thinking(text: str) -> tuple[str | None, str]:
    """Thinking block at the start (None: there is none) and the answer, both without outer white space.

    A block that never closes is all there is: the answer is empty. Where a chat template already opened the block,
    the text only closes it.
    """
    stripped = text.strip()
    if "<" not in stripped:
        return None, stripped
    head, closed, tail = stripped.partition("</think>")
    if stripped.startswith("<think>"):
        return head.removeprefix("<think>").strip(), tail.strip()
    if closed and "<think>" not in head:
        return head.strip(), tail.strip()
    return None, stripped


def _json_objects(text: str) -> Iterator[dict[str, JSONValue]]:
    """JSON objects in `text` from left to right, none inside another; prose and code fences are passed over."""
    decoder = json.JSONDecoder(
        strict=False, parse_constant=_no_constant
    )  # not strict: raw line breaks in strings
    broken = 0
    at = text.find("{")
    while at >= 0 and broken < _BROKEN_OBJECTS:
        try:
            value, end = decoder.raw_decode(text, at)
            _check_storable(value)
        except (ValueError, RecursionError, TypeError):
            broken += 1
            end = at + 1
        else:
            yield value
        at = text.find("{", end)


def _no_constant(name: str) -> JSONValue:
    raise ValueError(f"{name} is not JSON")


def _check_storable(value: JSONValue) -> None:
    """TypeError for what orjson cannot write: half a surrogate pair, integers over 64 bits, 254 levels.

    Sixteen levels are kept for the journal line around the value.
    """
    for _ in range(16):
        value = [value]
    canonical_json(value)


def _with_number(value: dict[str, JSONValue], name: str) -> dict[str, JSONValue]:
    """The object with a score written as a string (`"4"`) turned into the number it is."""
    score = value.get(name)
    if isinstance(score, str) and _NUMBER.fullmatch(score.strip()):
        return {**value, name: float(score)}
    return value


def _section(text: str, name: str, names: tuple[str, ...]) -> str:
    """Text of the first `<name>...</name>`, or of an unclosed `<name>` up to the next section or the end."""
    tag = re.escape(name)
    whole = re.search(rf"<{tag}>((?:(?!<{tag}>).)*?)</{tag}>", text, re.DOTALL | re.IGNORECASE)
    if whole is None:
        others = "|".join(map(re.escape, names))
        whole = re.search(rf"<{tag}>(.*?)(?=</?(?:{others})>|\Z)", text, re.DOTALL | re.IGNORECASE)
    return whole[1].strip() if whole else ""
