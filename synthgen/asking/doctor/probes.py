"""What an endpoint does with what it is asked: one function a probe, over the paid path.

In: a `Caller`, and the reply to the plain question. Out: `Finding`s. Guarantees: "yes" needs the thing itself in the
reply (a valid instance, a valid call, two choices), not a 200; "no" needs a refusal, or an answer that plainly ignores
what was asked; whatever a weak model may have got wrong by itself is "unknown". Nothing here raises for what a server
says.
"""

from collections.abc import Mapping
from typing import cast

import jsonschema_rs
import orjson

from synthgen.asking.doctor.caller import Caller, Heard
from synthgen.asking.doctor.findings import Finding
from synthgen.asking.doctor.questions import (
    CHOICE,
    CHOICES,
    COMPLETION_LIMIT,
    MANY,
    SCHEMA,
    STOP,
    STORY,
    STRUCTURED,
    SYSTEM,
    TOOL_NAME,
    TOOL_SCHEMA,
    TOOLS,
    request_for,
)
from synthgen.asking.outcome import Answer, SeenLimit
from synthgen.asking.wire.loose import as_object, shorten
from synthgen.asking.wire.waits import named_limits
from synthgen.types import Completion, JSONValue, ToolCall

__all__ = [
    "find_limits",
    "find_reasoning",
    "find_usage",
    "probe_choice",
    "probe_completion_limit",
    "probe_many",
    "probe_stop",
    "probe_story",
    "probe_structured",
    "probe_system",
    "probe_tools",
]

_SHOWN = 60
_INSTANCE = jsonschema_rs.validator_for(SCHEMA)
_ARGUMENTS = jsonschema_rs.validator_for(TOOL_SCHEMA)
_NO_SEED = "this dialect has no seed; none is sent"


# ---- read off the plain answer, nothing is asked for them


def find_usage(chat: Completion) -> Finding:
    """Whether tokens are counted: without it every answer costs its reservation under a budget."""
    usage = chat.usage
    if usage is None:
        return Finding("usage", "no", "the reply counts no tokens: under a budget each costs its upper bound")
    counted = f"{usage.input_tokens} in, {usage.output_tokens} out"
    if not usage.input_tokens or not usage.output_tokens:
        return Finding("usage", "no", f"the reply counts {counted}")
    return Finding("usage", "yes", counted)


def find_limits(limits: tuple[SeenLimit, ...], headers: Mapping[str, str]) -> Finding:
    """The limits the headers of the plain answer name."""
    if not limits:
        named = named_limits(headers)
        if named:
            told = "a day's or a minute's, which only further replies tell"
            return Finding("limits", "unknown", f"{'; '.join(named)} ({told})")
        return Finding("limits", "no", "no rate-limit headers")
    said = [f"{limit.limit:g} {limit.kind} in {limit.window_s:g} s" for limit in limits]
    value: list[JSONValue] = [
        {"kind": limit.kind, "limit": limit.limit, "remaining": limit.remaining, "window_s": limit.window_s}
        for limit in limits
    ]
    return Finding("limits", "yes", ", ".join(said), value)


def find_reasoning(heard: Heard, chat: Completion) -> Finding:
    """In which form the model's reasoning comes back, if it does."""
    hidden = chat.usage.reasoning_tokens if chat.usage else 0
    if chat.reasoning:
        form = _reasoning_form(heard)
        return Finding("reasoning", "yes", f"{form}: {_quote(chat.reasoning)}", form)
    if hidden:
        return Finding("reasoning", "no", f"{hidden} reasoning tokens are counted, their text is kept back")
    return Finding("reasoning", "unknown", "no reasoning came with a small question")


def _reasoning_form(heard: Heard) -> str:
    message = as_object(heard.choices[0].get("message")) if heard.choices else {}
    for name in ("reasoning_content", "reasoning", "reasoning_details"):
        if message.get(name):
            return name
    content = message.get("content", heard.payload.get("content"))
    return "content blocks" if isinstance(content, list) else "<think> in the text"


# ---- one question each


async def probe_system(caller: Caller) -> Finding:
    """Whether a system message is taken and followed."""
    heard = await caller.ask(SYSTEM)
    if heard.completion is None:
        return heard.refusal("system")
    text = heard.completion.text
    if "marmalade" in text.lower():
        return Finding("system", "yes", "the answer follows it")
    return Finding("system", "unknown", f"accepted, not followed: {_quote(text)}")


async def probe_story(caller: Caller, *, has_seed: bool) -> list[Finding]:
    """`max_tokens` and `seed`, from one long text that is asked for up to three times."""
    first = await caller.ask(STORY, seed=1)
    if first.completion is None:
        return [first.refusal("max_tokens"), first.refusal("seed")]
    allowed = request_for(caller.spec, STORY).sampling.max_tokens or 0
    limit = _find_limit("max_tokens", first.completion, allowed)
    if not has_seed:
        return [limit, Finding("seed", "no", _NO_SEED, "ignored")]
    again, other = await caller.ask(STORY, seed=1), await caller.ask(STORY, seed=2)
    for heard in (again, other):
        if heard.completion is None:
            return [limit, heard.refusal("seed")]
    texts = [_said(heard.completion) for heard in (first, again, other) if heard.completion]
    return [limit, _find_seed(*texts)]


def _find_seed(first: str, again: str, other: str) -> Finding:
    if not (first and again and other):
        return Finding("seed", "unknown", "the answers were empty", "unknown")
    if first != again:
        return Finding("seed", "no", "the same seed gave two texts", "ignored")
    if first == other:
        return Finding("seed", "unknown", "every seed gave the same text", "unknown")
    return Finding("seed", "yes", "the same seed gave the same text, another one another", "honoured")


def _find_limit(probe: str, completion: Completion, limit: int) -> Finding:
    used = completion.usage.output_tokens if completion.usage else None
    if used is not None and used > limit:
        return Finding(probe, "no", f"{used} tokens came where {limit} were allowed")
    if completion.finish_reason == "length":
        return Finding(probe, "yes", f"cut at {limit if used is None else used} tokens, and said so")
    return Finding(probe, "unknown", f"the answer ended by itself ({completion.finish_reason})")


async def probe_many(caller: Caller) -> Finding:
    """Whether two samples come in one reply; `value` is how many came."""
    heard = await caller.ask(MANY)
    if not isinstance(heard.outcome, Answer):
        return heard.refusal("n")
    texts = [_said(completion) for completion in heard.outcome.completions]
    if len(texts) < MANY.choices:
        return Finding("n", "no", f"HTTP 200, but {len(texts)} of {MANY.choices} choices", len(texts))
    if len(set(texts)) < len(texts):
        return Finding("n", "unknown", f"{len(texts)} choices, but of one text", len(texts))
    return Finding("n", "yes", f"{len(texts)} different choices in one reply", len(texts))


async def probe_stop(caller: Caller) -> Finding:
    """Whether a stop sequence ends the answer and is left out of it."""
    heard = await caller.ask(STOP)
    if heard.completion is None:
        return heard.refusal("stop")
    text, stop = heard.completion.text, STOP.stop[0]
    if stop in text:
        return Finding("stop", "no", f"the answer goes on: {_quote(text)}")
    if _names_stop(heard, stop) or text.rstrip(" ,.\n").endswith("5"):
        return Finding("stop", "yes", f"ended before {stop!r}: {_quote(text)}")
    return Finding("stop", "unknown", f"the model did not count: {_quote(text)}")


def _names_stop(heard: Heard, stop: str) -> bool:
    """vLLM says which text ended it, Anthropic that one did."""
    said = heard.choices[0].get("stop_reason") if heard.choices else heard.payload.get("stop_reason")
    return said in (stop, "stop_sequence")


async def probe_structured(caller: Caller) -> Finding:
    """Whether a JSON schema is obeyed by a model that was never told about it in words."""
    heard = await caller.ask(STRUCTURED)
    completion = heard.completion
    if completion is None:
        return heard.refusal("structured")
    if _INSTANCE.is_valid(_parsed(completion.text)):
        return Finding(
            "structured", "yes", f"the answer is what the schema asks for: {_quote(completion.text)}"
        )
    if completion.finish_reason == "length":
        return Finding("structured", "unknown", "the answer was cut before it ended")
    if _INSTANCE.is_valid(_parsed(completion.reasoning or "")):
        return Finding(
            "structured", "no", "what the schema asks for stands in the reasoning, not in the answer"
        )
    return Finding("structured", "no", f"accepted and ignored: {_quote(completion.text)}")


async def probe_tools(caller: Caller) -> Finding:
    """Whether a tool is called with valid arguments; `value` says of `auto` whether it needs no forcing."""
    free = await caller.ask(TOOLS)
    if free.completion and _is_called(free.completion.tool_calls):
        said = f"called with {_quote(free.completion.tool_calls[0].arguments)}"
        return Finding("tools", "yes", said, {"auto": "yes"})
    forced = await caller.ask(TOOLS, tool_choice=TOOL_NAME)
    if forced.completion and _is_called(forced.completion.tool_calls):
        refused = free.refusal("tools") if free.completion is None else None
        said = refused.evidence if refused else "else it answers in words"
        value: JSONValue = {"auto": refused.verdict if refused else "unknown"}
        return Finding("tools", "yes", f"called when tool_choice names it; {said}", value)
    if free.completion is None:
        return free.refusal("tools")
    if forced.completion is None:
        return Finding("tools", "unknown", f"not called: {_quote(free.completion.text)}")
    calls = forced.completion.tool_calls
    if calls:
        return Finding("tools", "unknown", f"called, with wrong arguments: {_quote(calls[0].arguments)}")
    return Finding("tools", "no", f"accepted and ignored, even when forced: {_quote(forced.completion.text)}")


def _is_called(calls: tuple[ToolCall, ...]) -> bool:
    return bool(calls) and calls[0].name == TOOL_NAME and _ARGUMENTS.is_valid(_parsed(calls[0].arguments))


# ---- quirks of one dialect


async def probe_completion_limit(caller: Caller) -> Finding:
    """Whether the newer name `max_completion_tokens` is known: the smaller of two limits shows it."""
    name, small = "max_completion_tokens", COMPLETION_LIMIT.max_tokens // 4
    heard = await caller.ask(COMPLETION_LIMIT, {name: small})
    completion = heard.completion
    if completion is None:
        return heard.refusal(name)
    used = completion.usage.output_tokens if completion.usage else None
    if used is None:
        return Finding(name, "unknown", "the reply counts no tokens")
    if used > small:
        return Finding(name, "no", f"ignored: {used} tokens came where it allowed {small}")
    if completion.finish_reason != "length":
        return Finding(name, "unknown", f"the answer ended by itself ({completion.finish_reason})")
    return Finding(name, "yes", f"honoured: cut at {used} tokens")


async def probe_choice(caller: Caller) -> Finding:
    """vLLM's own `structured_outputs` field; a server that does not know it answers as if it were not there."""
    heard = await caller.ask(CHOICE, {"structured_outputs": cast(JSONValue, {"choice": list(CHOICES)})})
    if heard.completion is None:
        return heard.refusal("structured_outputs")
    text = heard.completion.text.strip()
    if text in CHOICES:
        return Finding("structured_outputs", "yes", f"obeyed: {_quote(text)}")
    return Finding("structured_outputs", "no", f"an unknown field, silently ignored: {_quote(text)}")


def _said(completion: Completion) -> str:
    """All a model wrote: one that thinks may have spent a small limit on that alone."""
    return (completion.reasoning or "") + completion.text


def _parsed(text: str) -> JSONValue:
    """The JSON value of a text; None, which no schema here allows, where it is none."""
    try:
        return cast(JSONValue, orjson.loads(text))
    except orjson.JSONDecodeError:
        return None


def _quote(text: str) -> str:
    return repr(shorten(text, _SHOWN)) if text.strip() else "an empty text"
