"""A record as the trainer sees it, and as chat templates of transformers read it.

In: our messages, which are everybody's after reading. Out: `Conversation`, and `chat`, the list of plain dicts that
`apply_chat_template` takes: tool calls nested under `function` with their arguments as an object, where they are one.
"""

from collections.abc import Sequence
from dataclasses import replace

import orjson

from synthgen.dataclasses import dataclass
from synthgen.types import JSONValue, Message, ToolCall

__all__ = ["Conversation", "chat", "tool_list"]


@dataclass(frozen=True, slots=True)
class Conversation:
    """`trained`: for each message whether its author's words are wanted; only assistant turns are ever targets.

    `id` names the record, `row` its root row, `where` its file and line.
    """

    messages: tuple[Message, ...]
    trained: tuple[bool, ...]
    tools: str | None = None
    id: str = ""
    row: str = ""
    where: str = ""

    def __post_init__(self) -> None:
        if len(self.messages) != len(self.trained):
            raise ValueError(f"{len(self.trained)} flags for {len(self.messages)} messages")

    def turns(self, *, last: bool = False) -> list[int]:
        """Which messages are targets: assistant turns whose flag is set; with `last` only the last of them."""
        found = [
            at
            for at, (message, trained) in enumerate(zip(self.messages, self.trained, strict=True))
            if message.role == "assistant" and trained
        ]
        return found[-1:] if last else found

    def with_messages(self, messages: Sequence[Message], *, only: int | None = None) -> "Conversation":
        """The same record with other messages, cut behind them; with `only`, that one is the only target."""
        trained = (
            tuple(self.trained[: len(messages)])
            if only is None
            else tuple(at == only for at in range(len(messages)))
        )
        return replace(self, messages=tuple(messages), trained=trained)


def chat(messages: Sequence[Message]) -> list[dict[str, JSONValue]]:
    """The messages for a chat template; what a message does not have is left out."""
    return [_turn(message) for message in messages]


def _turn(message: Message) -> dict[str, JSONValue]:
    turn: dict[str, JSONValue] = {"role": message.role, "content": message.content}
    if message.reasoning is not None:
        turn["reasoning_content"] = message.reasoning
    if message.tool_calls:
        turn["tool_calls"] = [_call(call) for call in message.tool_calls]
    if message.tool_call_id is not None:
        turn["tool_call_id"] = message.tool_call_id
    if message.name is not None:
        turn["name"] = message.name
    return turn


def _call(call: ToolCall) -> JSONValue:
    try:
        arguments: JSONValue = orjson.loads(call.arguments)
    except orjson.JSONDecodeError:
        arguments = call.arguments
    if not isinstance(arguments, dict):
        arguments = call.arguments
    return {"type": "function", "id": call.id, "function": {"name": call.name, "arguments": arguments}}


def tool_list(tools: str | None) -> list[JSONValue] | None:
    """The tool definitions of a record."""
    if tools is None:
        return None
    listed = orjson.loads(tools)
    return listed if isinstance(listed, list) else None
