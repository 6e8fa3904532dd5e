"""One row of somebody's chat dataset, in any of the common formats, as our messages.

In: a row as a mapping of plain Python values and the format of its file. Out: `Message` values, or a
`MalformedRow` whose text says what is wrong with it. Pure; `read` does the files.

    messages           [{role, content, ...}]                     OpenAI, TRL
    conversations      [{from, value}]                            ShareGPT
    prompt/completion  two texts, or two lists of messages        TRL
    instruction        instruction, output and maybe input        Alpaca

Lists may also be JSON text, tool calls nested under `function` or flat, content a list of text parts.
Rejected: guessing the format row by row. A row without its file's columns is an error worth seeing.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Literal

import orjson

from synthgen.shape import RecordShape
from synthgen.types import Message, Role, ToolCall

__all__ = [
    "ACCEPTED",
    "REASONING",
    "Format",
    "MalformedRow",
    "Row",
    "find_format",
    "read_messages",
    "read_tools",
    "shape_of",
]

Row = Mapping[str, object]
Format = Literal["messages", "conversations", "prompt/completion", "instruction"]

ACCEPTED = (
    "`messages` (role, content), `conversations` (from, value), `prompt` and `completion`, "
    "`instruction` and `output` (and `input`)"
)
REASONING = ("reasoning_content", "reasoning", "thinking")
_NEEDS: dict[Format, frozenset[str]] = {
    "messages": frozenset({"messages"}),
    "conversations": frozenset({"conversations"}),
    "prompt/completion": frozenset({"prompt", "completion"}),
    "instruction": frozenset({"instruction", "output"}),
}
_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "tool": "tool",
    "function": "tool",
    "function_response": "tool",
    "observation": "tool",
}


class MalformedRow(ValueError):
    """This row cannot become a record; the text says why and never quotes the row."""


def find_format(columns: Collection[str]) -> Format | None:
    """The first format, in the order of the module doc, whose columns are all there."""
    return next((name for name, needs in _NEEDS.items() if needs <= set(columns)), None)


def read_messages(row: Row, format: Format) -> tuple[Message, ...]:
    """The conversation of a row; a `system` column goes in front of one that has no system message.

    Raises:
        MalformedRow: no such conversation, or none with an assistant turn.
    """
    match format:
        case "messages" | "conversations":
            messages = _conversation(row.get(format), format)
        case "prompt/completion":
            prompt = _side(row.get("prompt"), "prompt", "user")
            messages = [
                *prompt,
                *_with_reasoning(_side(row.get("completion"), "completion", "assistant"), row),
            ]
        case "instruction":
            answer = [Message("assistant", _string(row.get("output"), "output"))]
            messages = [Message("user", _instruction(row)), *_with_reasoning(answer, row)]
    if not any(message.role == "assistant" for message in messages):
        raise MalformedRow("no assistant message")
    system = row.get("system")
    if isinstance(system, str) and system and messages[0].role != "system":
        messages.insert(0, Message("system", system))
    return tuple(messages)


def read_tools(row: Row) -> str | None:
    """The tool list of a row as JSON text, None where it has none.

    Raises:
        MalformedRow: `tools` is text that is not a JSON list, or no list.
    """
    tools = row.get("tools")
    if tools is None or tools in ("", "[]", []):
        return None
    listed = _list(tools, "tools")
    return tools if isinstance(tools, str) else _json_text(listed)


def shape_of(messages: Collection[Message], tools: str | None) -> RecordShape:
    """The smallest shape that holds the conversation."""
    return RecordShape(
        reasoning=any(message.reasoning is not None for message in messages),
        tools=tools is not None or any(m.tool_calls or m.tool_call_id is not None for m in messages),
        names=any(message.name is not None for message in messages),
    )


def _instruction(row: Row) -> str:
    instruction = _string(row.get("instruction"), "instruction")
    given = row.get("input")
    if given is None or given == "":
        return instruction
    return f"{instruction}\n\n{_string(given, 'input')}"


def _side(value: object, name: str, role: Role) -> list[Message]:
    """One half of a prompt/completion row: a text spoken by `role`, or a list of messages."""
    return [Message(role, value)] if isinstance(value, str) else _conversation(value, name)


def _with_reasoning(answer: list[Message], row: Row) -> list[Message]:
    reasoning = _reasoning(row)
    if reasoning is None or not answer or answer[-1].reasoning is not None:
        return answer
    return [*answer[:-1], replace(answer[-1], reasoning=reasoning)]


def _reasoning(holder: Row) -> str | None:
    texts = (holder.get(name) for name in REASONING)
    return next((text for text in texts if isinstance(text, str) and text), None)


def _conversation(value: object, name: str) -> list[Message]:
    turns = _list(value, name)
    if not turns:
        raise MalformedRow(f"{name} is empty")
    return [_message(turn, f"{name}[{index}]") for index, turn in enumerate(turns)]


def _message(turn: object, where: str) -> Message:
    if not isinstance(turn, Mapping):
        raise MalformedRow(f"{where} is {_kind(turn)}, not an object with role and content")
    said = turn.get("role") if turn.get("role") is not None else turn.get("from")
    role = _ROLES.get(said.lower()) if isinstance(said, str) else None
    if role is None:
        raise MalformedRow(f"{where} has no known role; known: {', '.join(_ROLES)}")
    calls = _tool_calls(turn.get("tool_calls"), where)
    content = turn.get("content") if turn.get("content") is not None else turn.get("value")
    return Message(
        role,
        "" if content is None and calls else _content(content, where),
        reasoning=_reasoning(turn),
        tool_calls=calls,
        tool_call_id=_optional(turn.get("tool_call_id")),
        name=_optional(turn.get("name")),
    )


def _content(value: object, where: str) -> str:
    if not isinstance(value, list):
        return _string(value, f"{where}.content")
    texts = []
    for part in value:
        if not isinstance(part, Mapping) or part.get("type", "text") != "text":
            raise MalformedRow(f"{where}.content has a part that is not text")
        texts.append(_string(part.get("text"), f"{where}.content.text"))
    return "".join(texts)


def _tool_calls(value: object, where: str) -> tuple[ToolCall, ...]:
    if value is None:
        return ()
    calls = []
    for item in _list(value, f"{where}.tool_calls"):
        function = item.get("function") or item if isinstance(item, Mapping) else None
        if not isinstance(item, Mapping) or not isinstance(function, Mapping):
            raise MalformedRow(f"{where}.tool_calls holds something that is not a call")
        name = _string(function.get("name"), f"{where}.tool_calls.name")
        arguments = function.get("arguments")
        text = arguments if isinstance(arguments, str) else _json_text(arguments or {})
        calls.append(ToolCall(_optional(item.get("id")) or "", name, text))
    return tuple(calls)


def _list(value: object, name: str) -> list[object]:
    if isinstance(value, str):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError as error:
            raise MalformedRow(f"{name} is text that is not JSON") from error
    if not isinstance(value, list):
        raise MalformedRow(f"{name} is {_kind(value)}, not a list")
    return value


def _string(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise MalformedRow(f"{name} is {_kind(value)}, not text")
    return value


def _optional(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _json_text(value: object) -> str:
    """JSON without null members: Parquet writers merge the keys of structs over rows and fill with null."""
    try:
        return orjson.dumps(_without_nulls(value), default=str).decode()
    except (RecursionError, orjson.JSONEncodeError) as error:
        raise MalformedRow("tools or tool-call arguments are nested too deeply") from error


def _without_nulls(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _kind(value: object) -> str:
    """What a person calls the type of a JSON value."""
    if value is None:
        return "missing"
    names = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list"}
    return names.get(type(value), "an object")
