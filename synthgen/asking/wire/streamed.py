"""Replies of servers that stream although nobody asked: the events put together to the reply they stand for.

In: the body of a 200 as server-sent events. Out: the payload that the same server would have sent whole, or None where it is no
stream or broke off before its end. Guarantees: never raises; an error among the events is the payload, so that it is read as
one. Nothing is asked for as a stream: this saves what was paid for behind gateways that know nothing else.
Source: WHATWG HTML, "Server-sent events" (lines, `data:`); the chunk objects of both vendors' API references.
"""

from collections.abc import Iterator
from dataclasses import field

from synthgen.asking.outcome import HttpReply
from synthgen.asking.wire.loose import as_count, as_list, as_object, as_text, parse_object
from synthgen.asking.wire.taxonomy import has_error
from synthgen.dataclasses import dataclass
from synthgen.types import JSONValue

__all__ = ["joined_chat", "joined_messages"]

_STARTS = (b"data:", b"event:", b":")
_END = b"[DONE]"
_DELTA_TEXTS = ("content", "reasoning_content", "reasoning", "refusal")
# Of Anthropic's deltas: the field of the delta -> the field of its block.
_BLOCK_TEXTS = {"text": "text", "thinking": "thinking", "partial_json": "partial_json"}


def joined_chat(reply: HttpReply) -> dict[str, JSONValue] | None:
    """A chat completion out of its chunks."""
    whole: dict[str, JSONValue] = {}
    choices: dict[int, _Choice] = {}
    ended = False
    for event in _events(reply):
        if event is None:
            ended = True
            continue
        if has_error(event):
            return event
        for name in ("id", "model", "provider", "usage"):
            if event.get(name):
                whole[name] = event[name]
        for part in map(as_object, as_list(event.get("choices"))):
            choices.setdefault(as_count(part.get("index")), _Choice()).take(part)
    if not choices or not (ended or all(choice.finish for choice in choices.values())):
        return None
    whole["choices"] = [choice.whole(place) for place, choice in sorted(choices.items())]
    return whole


def joined_messages(reply: HttpReply) -> dict[str, JSONValue] | None:
    """A message of Anthropic's out of its events."""
    whole: dict[str, JSONValue] = {}
    usage: dict[str, JSONValue] = {}
    blocks: dict[int, dict[str, JSONValue]] = {}
    for event in _events(reply):
        if event is None:
            continue
        if has_error(event):
            return event
        place, delta = as_count(event.get("index")), as_object(event.get("delta"))
        match event.get("type"):
            case "message_start":
                whole |= as_object(event.get("message"))
                usage |= as_object(whole.get("usage"))
            case "content_block_start":
                blocks[place] = dict(as_object(event.get("content_block")))
            case "content_block_delta":
                block = blocks.setdefault(place, {"type": "text"})
                for named, name in _BLOCK_TEXTS.items():
                    if text := as_text(delta.get(named)):
                        block[name] = as_text(block.get(name)) + text
            case "message_delta":
                whole |= delta
                usage |= as_object(event.get("usage"))
    if not whole.get("stop_reason"):
        return None
    for block in blocks.values():
        if written := as_text(block.pop("partial_json", None)):
            block["input"] = parse_object(written.encode()) or {}
    whole["content"] = [block for _, block in sorted(blocks.items())]
    whole["usage"] = usage
    return whole


@dataclass(slots=True)
class _Choice:
    """One choice as far as it has come."""

    texts: dict[str, str] = field(default_factory=dict)
    calls: dict[int, dict[str, str]] = field(default_factory=dict)
    tokens: list[JSONValue] = field(default_factory=list)
    token_ids: list[JSONValue] = field(default_factory=list)
    finish: str = ""

    def take(self, part: dict[str, JSONValue]) -> None:
        """The next piece of it."""
        delta = as_object(part.get("delta")) or as_object(part.get("message"))
        for name in _DELTA_TEXTS:
            if text := as_text(delta.get(name)):
                self.texts[name] = self.texts.get(name, "") + text
        for order, call in enumerate(map(as_object, as_list(delta.get("tool_calls")))):
            place = as_count(call.get("index")) if "index" in call else order
            known = self.calls.setdefault(place, {"id": "", "name": "", "arguments": ""})
            function = as_object(call.get("function"))
            known["id"] = known["id"] or as_text(call.get("id"))
            known["name"] += as_text(function.get("name"))
            known["arguments"] += as_text(function.get("arguments"))
        self.tokens += as_list(as_object(part.get("logprobs")).get("content"))
        self.token_ids += as_list(part.get("token_ids"))
        self.finish = as_text(part.get("finish_reason")) or self.finish

    def whole(self, place: int) -> dict[str, JSONValue]:
        """It as a choice of a reply that came at once."""
        message: dict[str, JSONValue] = {"role": "assistant", "content": None, **self.texts}
        if self.calls:
            message["tool_calls"] = [
                {"id": call["id"], "function": {"name": call["name"], "arguments": call["arguments"]}}
                for _, call in sorted(self.calls.items())
            ]
        choice: dict[str, JSONValue] = {"index": place, "message": message, "finish_reason": self.finish}
        if self.tokens:
            choice["logprobs"] = {"content": self.tokens}
        if self.token_ids:
            choice["token_ids"] = self.token_ids
        return choice


def _events(reply: HttpReply) -> Iterator[dict[str, JSONValue] | None]:
    """The objects of the events, None for the end that OpenAI's streams mark; nothing where this is no stream."""
    body = reply.body.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not body.startswith(_STARTS):
        return
    lines: list[bytes] = []
    for line in [*body.splitlines(), b""]:
        if line.startswith(b"data:"):
            lines.append(line.removeprefix(b"data:").removeprefix(b" "))
        elif not line and lines:
            said, lines = b"\n".join(lines), []
            if said.strip() == _END:
                yield None
            elif (event := parse_object(said)) is not None:
                yield event
