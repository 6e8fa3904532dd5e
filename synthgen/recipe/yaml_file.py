"""YAML text to validated values, with every error at its file:line and key.

In: the bytes of a YAML file (recipe, prompt, chain). Out: a `Document` that remembers the line of every key, and
`validate`, which turns it into a pydantic model. Guarantees: safe loader, duplicate keys refused, unknown keys
refused with the nearest allowed one, `${ENV}` never expanded here.
Rejected: ruamel.yaml (keeps lines too, but a second YAML dialect beside the one our users' tools read).
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from synthgen.assets import suggest
from synthgen.dataclasses import dataclass
from synthgen.errors import RecipeError
from synthgen.types import JSONValue

__all__ = ["Document", "Loc", "dotted", "parse_yaml", "read_yaml", "validate"]

Loc = tuple[str | int, ...]
M = TypeVar("M", bound=BaseModel)
_Loader: TypeAlias = "yaml.SafeLoader | yaml.CSafeLoader"
# A page in 0.2 instead of 4 ms, unless PyYAML was built without libyaml.
_Quick: "type[_Loader]" = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# YAML 1.1 reads dates as objects; a recipe's values are JSON values, so a date stays text.
_TEXT_TAGS = {"tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:binary"}


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed file: `value` is plain JSON data, `lines` maps a key path to its 1-based line.

    `overridden` are the key paths whose value came from the command line, `expanded` those into which the environment
    was put: messages do not repeat what stands there.
    """

    path: str
    value: JSONValue
    lines: Mapping[Loc, int]
    overridden: frozenset[Loc] = frozenset()
    expanded: frozenset[Loc] = frozenset()

    def where(self, loc: Sequence[str | int]) -> str:
        """`file:line` of the deepest part of `loc` that stands in the file; `--set KEY` where that was overridden."""
        at: Loc = ()
        for depth in range(1, len(loc) + 1):
            if tuple(loc[:depth]) in self.overridden:
                return f"--set {'.'.join(map(str, loc[:depth]))}"
        for part in loc:
            if (*at, part) in self.lines:
                at = (*at, part)
        return f"{self.path}:{self.lines.get(at, 1)}"


def read_yaml(path: Path) -> Document:
    """Parse a YAML file.

    Raises:
        RecipeError: missing, unreadable, not UTF-8, not YAML, or a duplicate key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        problem = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        raise RecipeError(f"{path}: cannot be read: {problem}") from error
    return parse_yaml(text, str(path))


def parse_yaml(text: str, path: str) -> Document:
    """Parse YAML text; `path` is only used in messages.

    Raises:
        RecipeError: not YAML, or a duplicate key.
    """
    try:
        try:
            return _parse(text, path, _Quick)
        except yaml.YAMLError:
            return _parse(text, path, yaml.SafeLoader)  # whose messages say more
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise RecipeError(f"{path}:{line}: not valid YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}:1: not valid YAML: {error}") from error


def _parse(text: str, path: str, kind: type[_Loader]) -> Document:
    lines: dict[Loc, int] = {}
    loader = kind(text)
    try:
        node = loader.get_single_node()
        value = _build(node, (), lines, loader, path) if node is not None else None
    finally:
        loader.dispose()
    return Document(path, value, lines)


def _build(node: yaml.Node, loc: Loc, lines: dict[Loc, int], loader: _Loader, path: str) -> JSONValue:
    lines[loc] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        loader.flatten_mapping(node)
        out: dict[str, JSONValue] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            if key in out:
                raise RecipeError(f"{path}:{key_node.start_mark.line + 1}: duplicate key {key!r}")
            out[key] = _build(value_node, (*loc, key), lines, loader, path)
            lines[(*loc, key)] = key_node.start_mark.line + 1
        return out
    if isinstance(node, yaml.SequenceNode):
        return [_build(item, (*loc, i), lines, loader, path) for i, item in enumerate(node.value)]
    if node.tag in _TEXT_TAGS:
        return str(node.value)
    scalar = loader.construct_object(node)
    if isinstance(scalar, int) and not -(2**63) <= scalar < 2**63:
        raise RecipeError(f"{path}:{node.start_mark.line + 1}: {node.value} is beyond 64 bits")
    if isinstance(scalar, float) and not math.isfinite(scalar):
        raise RecipeError(f"{path}:{node.start_mark.line + 1}: {node.value} is not a finite number")
    if scalar is None or isinstance(scalar, bool | int | float | str):
        return scalar
    raise RecipeError(f"{path}:{node.start_mark.line + 1}: unsupported YAML value {node.value!r}")


def validate(model: type[M], document: Document, *, at: Loc = ()) -> M:
    """Validate the document (or its part at `at`) as `model`.

    Raises:
        RecipeError: one line per problem, each `file:line: key.path: what is wrong`.
    """
    value = document.value
    for part in at:
        value = value[part]  # type: ignore[index]  # `at` comes from the document itself
    if not isinstance(value, dict):
        raise RecipeError(
            f"{document.where(at)}: {dotted(at) or 'the file'}: must be a mapping of keys to values"
        )
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise RecipeError("\n".join(_explain(model, document, at, error))) from error


def _explain(model: type[BaseModel], document: Document, at: Loc, error: ValidationError) -> list[str]:
    messages: dict[str, str] = {}  # of a union each alternative says what it takes
    for problem in error.errors(include_url=False):
        loc = (*at, *problem["loc"])
        known_at = _in_document(document, loc)
        if problem["type"] == "extra_forbidden":
            allowed = _allowed_keys(model, problem["loc"][:-1])
            text = f"unknown key{suggest(str(loc[-1]), allowed)}"
            text += f"; allowed: {', '.join(allowed)}" if allowed else ""
        elif problem["type"] == "missing":
            text = "is required"
            known_at = (*_in_document(document, loc[:-1]), loc[-1])
        else:
            text = problem["msg"].removeprefix("Value error, ")
            text = text[:1].lower() + text[1:]
            given = None if loc[-1:] == ("[key]",) else problem["input"]  # a key is in the path already
            if isinstance(given, bool | int | float | str) and known_at not in document.expanded:
                text += f" (got {given!r})"
        place = f"{document.where(known_at)}: {dotted(known_at)}"
        if place in messages:
            before = messages[place].partition(" (got ")[0]
            text = f"{before}, or {text.removeprefix('input should be ')}"
        messages[place] = text
    return [f"{place}: {text}" for place, text in messages.items()]


def _in_document(document: Document, loc: Loc) -> Loc:
    """`loc` without the parts pydantic adds for unions and validators.

    Looked for in the value, not among the lines: an override has no line.
    """
    at: Loc = ()
    value = document.value
    for part in loc:
        children: dict[str | int, JSONValue] = {}
        if isinstance(value, dict):
            children.update(value)
        elif isinstance(value, list):
            children.update(enumerate(value))
        if part in children:
            at, value = (*at, part), children[part]
    return at


def _allowed_keys(model: type[BaseModel], loc: Loc) -> list[str]:
    current: type[BaseModel] | None = model
    for part in loc:
        if current is None:
            return []
        current = _submodel(current, part)
    if current is None:
        return []
    return sorted(info.alias or name for name, info in current.model_fields.items())


def _submodel(model: type[BaseModel], part: str | int) -> type[BaseModel] | None:
    for name, info in model.model_fields.items():
        if part in (name, info.alias):
            return _model_in(info.annotation)
    return model  # an index or a key inside a list or mapping of models: the same model goes on


def _model_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        if (found := _model_in(argument)) is not None:
            return found
    return None


def dotted(loc: Loc) -> str:
    """A key path as people write it: `steps[0].teacher`."""
    out = ""
    for part in loc:
        out += f"[{part}]" if isinstance(part, int) else f".{part}" if out else part
    return out
