"""The tools a step offers its teacher: read from the recipe or from a file, and checked before anything is sent.

In: `tools` and `tool_choice` of a step; the calls of a reply. Out: the JSON text that becomes part of requests and of
the records' column `tools`, in OpenAI's form; what is wrong with a call. Guarantee: names are unique and fit every vendor, parameters are JSON Schemas. The order of
tools and of their keys is kept: models read it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Literal

import orjson
from pydantic import Field

from synthgen.errors import RecipeError, UsageError
from synthgen.recipe.model import StepConfig, Strict
from synthgen.recipe.yaml_file import Document, Loc, dotted, parse_yaml, validate
from synthgen.types import JSONValue, ToolCall

if TYPE_CHECKING:
    from jsonschema_rs import Validator

__all__ = ["broken_call", "check_choice", "inline_tools", "missing_call", "read_tools"]

_WORDS = ("auto", "none", "required")


class _Function(Strict):
    """Names as OpenAI and Anthropic both take them (64 of these characters)."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    description: str = ""
    parameters: dict[str, JSONValue] = Field(default={})
    strict: bool = False


class _Tool(Strict):
    type: Literal["function"]
    function: _Function


class _Tools(Strict):
    tools: Annotated[list[_Tool], Field(min_length=1)]


def inline_tools(document: Document, index: int, step: StepConfig) -> str:
    """The tools a step's own key lists.

    Raises:
        RecipeError: they are not OpenAI's tool definitions.
    """
    own: JSONValue = {"tools": list(step.tools) if isinstance(step.tools, list) else None}
    value: JSONValue = {"steps": [*[None] * index, own]}
    return _checked(replace(document, value=value), ("steps", index))


def read_tools(text: str, path: str) -> str:
    """The tools of a file: a list in JSON or YAML.

    Raises:
        RecipeError: they are not OpenAI's tool definitions; every message starts with `file:line:`.
    """
    document = parse_yaml(text.replace("\t", " "), path)  # JSON allows tabs between values, YAML does not
    lines = {("tools", *loc): line for loc, line in document.lines.items()}
    return _checked(replace(document, value={"tools": document.value}, lines=lines))


def _checked(document: Document, step: Loc = ()) -> str:
    tools = validate(_Tools, document, at=step).tools
    seen: set[str] = set()
    for number, tool in enumerate(tools):
        function, at = tool.function, (*step, "tools", number, "function")
        if function.name in seen:
            where = document.where((*at, "name"))
            raise RecipeError(f"{where}: {dotted((*at, 'name'))}: {function.name!r} is there twice")
        seen.add(function.name)
        try:
            _validator(function.parameters)
        except ValueError as error:
            where, why = document.where((*at, "parameters")), str(error).splitlines()[0]
            raise RecipeError(f"{where}: {dotted((*at, 'parameters'))}: not a JSON Schema: {why}") from error
    return orjson.dumps([tool.model_dump(exclude_unset=True) for tool in tools]).decode()


def check_choice(choice: str | None, tools: str | None) -> None:
    """Check `tool_choice` of a step.

    Raises:
        UsageError: there are no tools, or none of that name.
    """
    if choice is None:
        return
    if tools is None:
        raise UsageError("there are no `tools` to choose from")
    names = [tool["function"]["name"] for tool in orjson.loads(tools)]
    if choice not in _WORDS and choice not in names:
        raise UsageError(f"{choice!r} is none of {', '.join((*_WORDS, *names))}")


def broken_call(tools: str, calls: Iterable[ToolCall]) -> str | None:
    """What is wrong with the first call that does not fit its tool; None where all do. Quotes no argument.

    Servers hold calls to the parameters only where a tool says `strict`, some not even then.
    """
    validators = _validators(tools)
    for call in calls:
        if call.name not in validators:
            return f"no tool {call.name[:64]!r}"
        try:
            arguments = orjson.loads(call.arguments)
        except ValueError:
            return f"{call.name}: the arguments are no JSON"
        error = next(validators[call.name].iter_errors(arguments), None)
        if error is not None:
            at = ".".join(map(str, error.instance_path))[:80] or "the object"
            return f"{call.name}: {at} breaks `{error.kind.name}`"
        if not isinstance(arguments, dict):
            return f"{call.name}: the arguments are no object"
    return None


def missing_call(choice: str | None, calls: Iterable[ToolCall]) -> str | None:
    """What `tool_choice` demanded and the calls lack; None for nothing. Some servers take it and ignore it."""
    if choice in (None, "auto", "none"):
        return None
    called = {call.name for call in calls}
    if choice == "required":
        return None if called else "no tool was called, though tool_choice is required"
    return None if choice in called else f"{choice} was not called, though tool_choice names it"


@lru_cache(maxsize=64)
def _validators(tools: str) -> "Mapping[str, Validator]":
    functions = [tool["function"] for tool in orjson.loads(tools)]
    return {function["name"]: _validator(function.get("parameters", {})) for function in functions}


def _validator(schema: dict[str, JSONValue]) -> "Validator":
    """Compiles a schema; never fetches what a `$ref` points to."""
    import jsonschema_rs  # 25 ms: few recipes have tools

    return jsonschema_rs.validator_for(schema, offline=True)
