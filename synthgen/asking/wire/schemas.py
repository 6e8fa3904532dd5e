"""What vendors accept of JSON Schema for constrained answers.

In: a prompt's schema. Out: whether OpenAI takes it in strict mode, and the part of it that Anthropic takes.
Guarantee: what a schema loses here only makes the server's constraint wider; answers are read with the whole schema.
Sources: OpenAI, "Structured outputs", supported schemas; Anthropic, "Structured outputs", JSON Schema limitations
(objects must be closed; bounds and patterns are refused with a 400).
"""

from collections.abc import Mapping

import orjson

from synthgen.types import JSONValue

__all__ = ["is_strict", "narrowed"]

_KEPT = {"$ref", "type", "enum", "const", "title", "description", "required"}
_NESTED_LISTS = {"anyOf": "anyOf", "oneOf": "anyOf", "allOf": "allOf"}
_NESTED_MAPS = {"properties": "properties", "$defs": "$defs", "definitions": "definitions"}
_FORMATS = {
    "date-time",
    "time",
    "date",
    "duration",
    "email",
    "hostname",
    "uri",
    "ipv4",
    "ipv6",
    "uuid",
}


def is_strict(schema: JSONValue) -> bool:
    """True if OpenAI accepts `schema` in strict mode: every object closed, every property required."""
    if isinstance(schema, list):
        return all(is_strict(item) for item in schema)
    if not isinstance(schema, dict):
        return True
    if schema.get("type") == "object":
        properties, required = schema.get("properties"), schema.get("required")
        names = set(properties) if isinstance(properties, dict) else set()
        listed = {name for name in required if isinstance(name, str)} if isinstance(required, list) else set()
        if schema.get("additionalProperties") is not False or listed != names:
            return False
    return all(is_strict(value) for value in schema.values())


def narrowed(schema: JSONValue) -> JSONValue:
    """`schema` as Anthropic accepts it: closed objects, no bounds; what goes becomes part of the description."""
    if not isinstance(schema, dict):
        return schema
    out: dict[str, JSONValue] = {}
    lost: dict[str, JSONValue] = {}
    for name, value in schema.items():
        if name in _KEPT:
            out[name] = value
        elif name in _NESTED_LISTS and isinstance(value, list):
            out[_NESTED_LISTS[name]] = [narrowed(item) for item in value]
        elif name in _NESTED_MAPS and isinstance(value, dict):
            out[_NESTED_MAPS[name]] = {key: narrowed(item) for key, item in value.items()}
        elif name == "items":
            out[name] = narrowed(value)
        elif (name == "format" and value in _FORMATS) or (name == "minItems" and value in (0, 1)):
            out[name] = value
        elif name not in ("additionalProperties", "$schema"):
            lost[name] = value
    if out.get("type") == "object":
        out["additionalProperties"] = False
    if lost:
        out["description"] = " ".join(filter(None, [_text(out.get("description")), _spelled(lost)]))
    return out


def _text(value: JSONValue) -> str:
    return value if isinstance(value, str) else ""


def _spelled(lost: Mapping[str, JSONValue]) -> str:
    """`(minimum: 1, maximum: 5)`"""
    parts = (f"{name}: {orjson.dumps(value).decode()}" for name, value in lost.items())
    return f"({', '.join(parts)})"
