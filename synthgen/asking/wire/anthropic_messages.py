"""The Messages dialect: Anthropic's own, and the servers that imitate it.

In: a `Request`, or an `HttpReply`. Out: a JSON body, or an `Outcome`. Guarantees: `read` never raises; `max_tokens` is
always sent; `input_tokens` counts cache reads and writes, as the bill does.
The body follows API version 2023-06-01, which the transports pin: later versions of the vendor's SDK drop the
sampling parameters from its signatures, not from the API. Rejected: sending what the version does not know
(`seed`): a seed is a hint everywhere, a refused row is not.
"""

import time
from collections.abc import Callable

import orjson

from synthgen.asking.outcome import Answer, HttpReply, Outcome
from synthgen.asking.wire.loose import as_count, as_list, as_object, as_text, parse_object
from synthgen.asking.wire.schemas import narrowed
from synthgen.asking.wire.streamed import joined_messages
from synthgen.asking.wire.taxonomy import has_error, no_object, read_error, unusable
from synthgen.asking.wire.waits import read_limits
from synthgen.types import Completion, FinishReason, JSONValue, Message, Request, ToolCall, Usage

__all__ = ["DEFAULT_MAX_TOKENS", "AnthropicMessagesWire"]

DEFAULT_MAX_TOKENS = 4096

_FINISH: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "pause_turn": "length",
    "tool_use": "tool_calls",
    "refusal": "refusal",
}


class AnthropicMessagesWire:
    """`/messages` below a base URL that ends with its version."""

    path = "/messages"

    def __init__(self, *, clock: Callable[[], float] = time.time):
        self._clock = clock

    def body(self, request: Request, samples: int = 1) -> dict[str, JSONValue]:
        """System messages go to the top level, tool results into user turns; `seed` is not sent.

        The dialect knows one sample a request.
        """
        body = dict(request.sampling.extra)  # the recipe refuses what is set here
        body["model"] = request.teacher.model
        body["messages"] = _turns(request.messages)
        body.update(_sampling(request))
        system = "\n\n".join(message.content for message in request.messages if message.role == "system")
        if system:
            body["system"] = system
        if request.tools is not None:
            body["tools"] = [_tool(as_object(tool)) for tool in as_list(orjson.loads(request.tools))]
        if request.tool_choice is not None:
            body["tool_choice"] = _tool_choice(request.tool_choice)
        if request.response_schema is not None:
            output_format: JSONValue = {
                "type": "json_schema",
                "schema": narrowed(orjson.loads(request.response_schema)),
            }
            body["output_config"] = {**as_object(body.get("output_config")), "format": output_format}
        return body

    def read(self, reply: HttpReply, request: Request | None = None) -> Outcome:
        """What the reply means; never raises, whatever the body holds."""
        payload = parse_object(reply.body)
        if not 200 <= reply.status < 300:
            return read_error(reply, payload, self._clock())
        if payload is None and (payload := joined_messages(reply)) is None:
            return no_object(reply)
        if has_error(payload):
            return read_error(reply, payload, self._clock())
        if not isinstance(payload.get("content"), list):
            return unusable(reply, "the reply holds no content")
        return Answer(_completion(payload), read_limits(reply.headers, self._clock()))


def _sampling(request: Request) -> dict[str, JSONValue]:
    fields = request.sampling.as_json()
    for unsent in ("extra", "seed"):
        fields.pop(unsent, None)
    if "stop" in fields:
        fields["stop_sequences"] = fields.pop("stop")
    fields.setdefault("max_tokens", DEFAULT_MAX_TOKENS)
    return fields


def _turns(messages: tuple[Message, ...]) -> list[JSONValue]:
    """User and assistant turns; the results of parallel tool calls share one user turn, as the API demands."""
    turns: list[JSONValue] = []
    results: list[JSONValue] | None = None
    for message in messages:
        if message.role == "tool":
            block: JSONValue = {
                "type": "tool_result",
                "tool_use_id": message.tool_call_id or "",
                "content": message.content,
            }
            if results is None:
                results = []
                turns.append({"role": "user", "content": results})
            results.append(block)
        elif message.role != "system":
            results = None
            turns.append({"role": message.role, "content": _content(message)})
    return turns


def _content(message: Message) -> JSONValue:
    if not message.tool_calls:
        return message.content
    blocks: list[JSONValue] = [{"type": "text", "text": message.content}] if message.content else []
    for call in message.tool_calls:
        arguments = as_object(parse_object(call.arguments.encode()))
        blocks.append({"type": "tool_use", "id": call.id, "name": call.name, "input": arguments})
    return blocks


def _tool(tool: dict[str, JSONValue]) -> dict[str, JSONValue]:
    """A tool in OpenAI's shape becomes one in Anthropic's; one that is in Anthropic's shape stays."""
    function = tool.get("function")
    if not isinstance(function, dict):
        return tool
    out: dict[str, JSONValue] = {
        name: value for name, value in function.items() if name in ("name", "description")
    }
    out["input_schema"] = function.get("parameters") or {"type": "object", "properties": {}}
    return out


def _tool_choice(choice: str) -> JSONValue:
    if choice in ("auto", "none"):
        return {"type": choice}
    return {"type": "any"} if choice == "required" else {"type": "tool", "name": choice}


def _completion(payload: dict[str, JSONValue]) -> Completion:
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[ToolCall] = []
    for block in map(as_object, as_list(payload.get("content"))):
        kind = block.get("type")
        if kind == "text":
            texts.append(as_text(block.get("text")))
        elif kind == "thinking":
            thoughts.append(as_text(block.get("thinking")))
        elif kind == "tool_use":
            arguments = orjson.dumps(block.get("input") or {}).decode()
            calls.append(ToolCall(as_text(block.get("id")), as_text(block.get("name")), arguments))
    usage = _usage(as_object(payload.get("usage")))
    if usage is not None and not usage.output_tokens and (texts or thoughts or calls):
        usage = None
    return Completion(
        text="".join(texts),
        finish_reason=_FINISH.get(as_text(payload.get("stop_reason")), "unknown"),
        reasoning="\n\n".join(filter(None, thoughts)) or None,
        tool_calls=tuple(calls),
        usage=usage,
        served_model=as_text(payload.get("model")) or None,
        reply_id=as_text(payload.get("id")) or None,
    )


def _usage(usage: dict[str, JSONValue]) -> Usage | None:
    """None where the server does not count: every prompt has tokens."""
    cached = as_count(usage.get("cache_read_input_tokens"))
    written = as_count(usage.get("cache_creation_input_tokens"))
    output_tokens = as_count(usage.get("output_tokens"))
    thinking = as_count(as_object(usage.get("output_tokens_details")).get("thinking_tokens"))
    input_tokens = as_count(usage.get("input_tokens")) + cached + written
    if not input_tokens:
        return None
    return Usage(
        input_tokens=input_tokens,
        cached_input_tokens=cached,
        output_tokens=output_tokens,
        reasoning_tokens=min(thinking, output_tokens),
    )
