"""The chat completions dialect: OpenAI, vLLM, SGLang, OpenRouter and everything that imitates them.

In: a `Request`, or an `HttpReply`. Out: a JSON body, or an `Outcome`. Guarantees: `read` never raises; reasoning is
taken from every place servers put it; a paid reply that can be read is an `Answer`, however short. What differs
between servers (`max_tokens` or `max_completion_tokens`, OpenRouter's provider pin, vLLM's token ids) is told to the
constructor. Of a reply with several choices each is a completion of its own, with its share of the usage.
Rejected: the Responses dialect (only one vendor serves it).
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import orjson

from synthgen.asking.outcome import Answer, HttpReply, Outcome
from synthgen.asking.wire.logprobs import read_logprobs
from synthgen.asking.wire.loose import as_count, as_list, as_object, as_text, parse_object
from synthgen.asking.wire.schemas import is_strict
from synthgen.asking.wire.shares import share_usage
from synthgen.asking.wire.streamed import joined_chat
from synthgen.asking.wire.taxonomy import has_error, no_object, read_error, unusable
from synthgen.asking.wire.waits import read_limits
from synthgen.types import Completion, FinishReason, JSONValue, Message, Request, Sampling, ToolCall, Usage

__all__ = ["OpenAIChatWire"]

MaxTokensField = Literal["max_tokens", "max_completion_tokens"]

_FINISH: dict[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "refusal": "refusal",
}
# The server gave up in the middle (vLLM, OpenRouter, DeepSeek): not the model's last word.
_BROKEN = {"abort", "error", "insufficient_system_resource"}
_OPEN, _CLOSE = "<think>", "</think>"


class OpenAIChatWire:
    """`/chat/completions` below a base URL that ends with its version."""

    path = "/chat/completions"

    def __init__(
        self,
        *,
        max_tokens_field: MaxTokensField = "max_tokens",
        provider_pin: Mapping[str, JSONValue] | None = None,
        token_ids: bool = False,
        clock: Callable[[], float] = time.time,
    ):
        """`token_ids`: the server knows vLLM's fields for them; others refuse what they do not know."""
        self._max_tokens_field = max_tokens_field
        self._provider_pin = dict(provider_pin) if provider_pin else None
        self._token_ids = token_ids
        self._clock = clock
        # Written once for each sampling: all requests of a step have the same.
        self._written: dict[bytes, dict[str, JSONValue]] = {}

    def body(self, request: Request, samples: int = 1) -> dict[str, JSONValue]:
        """Only what is set is sent. `sampling.extra` goes to the top level, under what synthgen itself sets."""
        sampling = request.sampling
        fields = self._written.get(sampling.hashed)
        if fields is None:
            fields = self._written[sampling.hashed] = self._sampling(sampling)
        body: dict[str, JSONValue] = {
            **fields,
            "model": request.teacher.model,
            "messages": [_message(message) for message in request.messages],
        }
        if sampling.seed is not None:
            body["seed"] = sampling.seed + request.sample
        if samples > 1:
            body["n"] = samples
        if request.capture and (top := request.top_logprobs) is not None:
            body |= {"logprobs": True, "top_logprobs": top}
            if self._token_ids and "texts" not in request.capture:
                body |= {"return_token_ids": True, "return_tokens_as_token_ids": True}
        if request.tools is not None:
            body["tools"] = orjson.loads(request.tools)
        if request.tool_choice is not None:
            body["tool_choice"] = _tool_choice(request.tool_choice)
        if request.response_schema is not None:
            schema: JSONValue = orjson.loads(request.response_schema)
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": schema, "strict": is_strict(schema)},
            }
        if self._provider_pin is not None:
            body["provider"] = {**as_object(body.get("provider")), **self._provider_pin}
        return body

    def _sampling(self, sampling: Sampling) -> dict[str, JSONValue]:
        """What the server calls its fields."""
        fields = sampling.as_json()
        fields.pop("extra", None)
        if "max_tokens" in fields:
            fields[self._max_tokens_field] = fields.pop("max_tokens")
        return {**sampling.extra, **fields}

    def read(self, reply: HttpReply, request: Request | None = None) -> Outcome:
        """What the reply means; never raises, whatever the body holds.

        Of several choices those behind the first that cannot be read are left out: they are asked again.
        """
        payload = parse_object(reply.body)
        if not 200 <= reply.status < 300:
            return read_error(reply, payload, self._clock())
        if payload is None and (payload := joined_chat(reply)) is None:
            return no_object(reply)
        if has_error(payload):
            return read_error(reply, payload, self._clock())
        choices = [as_object(choice) for choice in as_list(payload.get("choices"))] or [{}]
        if len(choices) > 1:
            choices.sort(key=_place)
        if has_error(choices[0]):
            return read_error(reply, choices[0], self._clock())
        usage = _usage(as_object(payload.get("usage")))
        completions = []
        for choice in choices:
            read = _choice(payload, choice, usage)
            if isinstance(read, str):
                break
            completions.append(read)
        if not completions:
            return unusable(reply, str(read))
        if usage is not None and (len(completions) > 1 or not usage.output_tokens):
            completions = _shared(completions, usage)
        if request is not None and request.capture:
            completions = _captured(completions, choices, request)
        return Answer(completions[0], read_limits(reply.headers, self._clock()), tuple(completions[1:]))


def _place(choice: dict[str, JSONValue]) -> int:
    return as_count(choice.get("index"))


def _choice(
    payload: dict[str, JSONValue], choice: dict[str, JSONValue], usage: Usage | None
) -> Completion | str:
    """A choice with the usage of the whole reply, or why it is none."""
    message = choice.get("message")
    if not isinstance(message, dict):
        return "the reply holds no message"
    reason = as_text(choice.get("finish_reason"))
    if reason in _BROKEN:
        return f"the server broke off: finish_reason {reason}"
    text, block_reasoning = _content(message.get("content"))
    text, think = _split_think(text)
    refusal = as_text(message.get("refusal"))
    reasoning = _reasoning_field(message)
    if block_reasoning or think:
        reasoning = "\n\n".join(dict.fromkeys(filter(None, (reasoning, block_reasoning, think))))
    return Completion(
        text=text or refusal,
        finish_reason="refusal" if refusal else _FINISH.get(reason, "unknown"),
        reasoning=reasoning or None,
        tool_calls=_tool_calls(message),
        usage=usage,
        served_model=as_text(payload.get("model")) or None,
        upstream=as_text(payload.get("provider")) or None,
        reply_id=as_text(payload.get("id")) or None,
    )


def _shared(completions: Sequence[Completion], usage: Usage) -> list[Completion]:
    """The completions with shares of the usage that add up to it; with none where it counts no token of a text."""
    written = [
        len(completion.text)
        + len(completion.reasoning or "")
        + sum(len(call.arguments) for call in completion.tool_calls)
        for completion in completions
    ]
    if not usage.output_tokens and any(written):
        return [replace(completion, usage=None) for completion in completions]
    return [
        replace(completion, usage=share)
        for completion, share in zip(completions, share_usage(usage, written), strict=True)
    ]


def _captured(
    completions: Sequence[Completion], choices: Sequence[dict[str, JSONValue]], request: Request
) -> list[Completion]:
    """The completions with the logprobs that were asked for, or with the flag that says why they are missing."""
    top = request.top_logprobs
    if top is None:
        return list(completions)
    constrained = request.response_schema is not None or request.tools is not None
    alone = completions[0].usage if len(completions) == 1 else None
    captured = []
    for completion, choice in zip(completions, choices, strict=False):
        found = read_logprobs(
            choice,
            top=top,
            text=completion.text,
            output_tokens=alone.output_tokens if alone else None,
            constrained=constrained,
        )
        if isinstance(found, str):
            captured.append(replace(completion, flags=(*completion.flags, found)))
        else:
            captured.append(replace(completion, logprobs=found))
    return captured


def _message(message: Message) -> dict[str, JSONValue]:
    """Reasoning of earlier turns is not sent back: servers ignore or refuse it."""
    out: dict[str, JSONValue] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        out["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        out["tool_call_id"] = message.tool_call_id
    if message.name is not None:
        out["name"] = message.name
    return out


def _tool_choice(choice: str) -> JSONValue:
    if choice in ("auto", "none", "required"):
        return choice
    return {"type": "function", "function": {"name": choice}}


def _content(content: JSONValue) -> tuple[str, str]:
    """(text, reasoning) of a plain or a block content (Mistral, Anthropic behind a gateway); a lone block counts, too."""
    if isinstance(content, str):
        return content, ""
    texts: list[str] = []
    reasoning: list[str] = []
    for block in as_list(content) or [content]:
        if isinstance(block, str):
            texts.append(block)
            continue
        block = as_object(block)
        if block.get("type") in ("thinking", "reasoning"):
            reasoning.append(_block_text(block))
        else:
            texts.append(as_text(block.get("text")))
    return "".join(texts), "\n\n".join(filter(None, reasoning))


def _block_text(block: dict[str, JSONValue]) -> str:
    """The text of a reasoning block, under any of the names and shapes it has."""
    for name in ("thinking", "reasoning", "text", "summary", "content"):
        value = block.get(name)
        if isinstance(value, str) and value:
            return value
        if isinstance(value, list) and value:
            return "".join(as_text(as_object(part).get("text")) for part in value)
    return ""


def _reasoning_field(message: dict[str, JSONValue]) -> str:
    """`reasoning_content` (DeepSeek, older vLLM), `reasoning` (newer vLLM, OpenRouter) or `reasoning_details`;
    servers that send two of them send the same text twice."""
    for name in ("reasoning_content", "reasoning"):
        if text := as_text(message.get(name)):
            return text
    if "reasoning_details" not in message:
        return ""
    details = (_block_text(as_object(detail)) for detail in as_list(message.get("reasoning_details")))
    return "\n\n".join(filter(None, details))


def _split_think(text: str) -> tuple[str, str]:
    """(answer, reasoning) of a text that starts with a `<think>` block, as open models write without a parser.

    An unclosed block is all reasoning: the token limit cut the model before it answered.
    """
    start = text.lstrip()
    if not start.startswith(_OPEN):
        return text, ""
    reasoning, _, answer = start.removeprefix(_OPEN).partition(_CLOSE)
    return answer.lstrip(), reasoning.strip()


def _tool_calls(message: dict[str, JSONValue]) -> tuple[ToolCall, ...]:
    if "tool_calls" not in message and "function_call" not in message:
        return ()
    calls = []
    for call in map(as_object, as_list(message.get("tool_calls"))):
        function = as_object(call.get("function") or call.get("custom"))
        calls.append(_tool_call(as_text(call.get("id")), function))
    legacy = as_object(message.get("function_call"))
    if legacy and not calls:
        calls.append(_tool_call("", legacy))
    return tuple(calls)


def _tool_call(call_id: str, function: dict[str, JSONValue]) -> ToolCall:
    arguments = function.get("arguments", function.get("input"))
    if not isinstance(arguments, str):
        arguments = orjson.dumps(arguments or {}).decode()
    return ToolCall(call_id, as_text(function.get("name")), arguments)


def _usage(usage: dict[str, JSONValue]) -> Usage | None:
    """None where the server does not count: every prompt has tokens. DeepSeek has its own name for cached input."""
    input_tokens = as_count(usage.get("prompt_tokens")) or as_count(usage.get("input_tokens"))
    output_tokens = as_count(usage.get("completion_tokens")) or as_count(usage.get("output_tokens"))
    if not input_tokens:
        return None
    cached = reasoning = 0
    if read := usage.get("prompt_tokens_details"):
        cached = as_count(as_object(read).get("cached_tokens"))
    if written := usage.get("completion_tokens_details"):
        reasoning = min(as_count(as_object(written).get("reasoning_tokens")), output_tokens)
    if not cached and (hit := usage.get("prompt_cache_hit_tokens")):
        cached = as_count(hit)
    return Usage(input_tokens, min(cached, input_tokens) if cached else 0, output_tokens, reasoning)
