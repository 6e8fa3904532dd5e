"""Replies as journal entries and back.

In: a completion or a failure with its circumstances. Out: an `R` or `F` entry; `Reply` when read again. Guarantee: a
reply as it was stored, `without_logprobs`, is what `read_reply` gives: whoever bought it need not read it. Costs are frozen in the entry at
purchase: later prices never change the past.
"""

from dataclasses import replace
from typing import cast

from synthgen.dataclasses import inner
from synthgen.journal.lines import Entry
from synthgen.types import Completion, FinishReason, JSONValue, Logprobs, ToolCall, Usage

__all__ = [
    "Circumstances",
    "Reply",
    "answer_entry",
    "entry_of",
    "failure_entry",
    "read_logprobs",
    "read_reply",
    "without_logprobs",
]

# Finer than float32 has it for anything below -8; nearer to 0 it is half a millionth of a probability.
_DECIMALS = 6


@inner(frozen=True, slots=True)
class Circumstances:
    """How a reply came about. `sent_at`: Unix seconds of the last attempt, to the millisecond; `latency_s`: of that one, to
    the tenth of one. Whoever makes it rounds: it is stored as it is."""

    step: str
    teacher: str
    endpoint: str
    attempts: int
    sent_at: float
    latency_s: float


@inner(frozen=True, slots=True)
class Reply:
    """What the journal holds for a request: a completion, or the reason it failed for good."""

    key: str
    completion: Completion | None
    reason: str | None
    message: str | None
    cost_usd: float | None
    at: Circumstances


def entry_of(reply: Reply) -> Entry:
    """What is stored of a reply."""
    if reply.completion is None:
        return failure_entry(reply.key, reply.reason or "", reply.message or "", reply.at)
    return answer_entry(reply.key, reply.completion, reply.cost_usd, reply.at)


def answer_entry(key: str, completion: Completion, cost_usd: float | None, at: Circumstances) -> Entry:
    """The `R` entry of a completion; None as cost means its price is not known."""
    usage = completion.usage
    entry: Entry = {
        "k": key,
        "t": "R",
        **_circumstances(at),
        "text": completion.text,
        "finish": completion.finish_reason,
        "reasoning": completion.reasoning,
        "tool_calls": [call.as_json() for call in completion.tool_calls],
        "usage": usage.as_json() if usage else None,
        "usd": cost_usd,
        "model": completion.served_model,
        "upstream": completion.upstream,
        "reply_id": completion.reply_id,
    }
    if completion.flags:
        entry["flags"] = list(completion.flags)
    if completion.logprobs is not None:
        entry["logprobs"] = _logprobs_json(completion.logprobs)
    return entry


def failure_entry(key: str, reason: str, message: str, at: Circumstances) -> Entry:
    """The `F` entry of a request that will not be asked again."""
    return {"k": key, "t": "F", **_circumstances(at), "reason": reason, "message": message}


def _circumstances(at: Circumstances) -> Entry:
    return {
        "step": at.step,
        "teacher": at.teacher,
        "endpoint": at.endpoint,
        "attempts": at.attempts,
        "sent_at": at.sent_at,
        "latency_s": at.latency_s,
    }


def read_reply(entry: Entry) -> Reply:
    """The reply an `R` or `F` entry holds, without its logprobs: they are a hundred times the text (`read_logprobs`)."""
    at = Circumstances(
        step=str(entry["step"]),
        teacher=str(entry["teacher"]),
        endpoint=str(entry["endpoint"]),
        attempts=cast(int, entry["attempts"]),
        sent_at=cast(float, entry["sent_at"]),
        latency_s=cast(float, entry["latency_s"]),
    )
    key = str(entry["k"])
    if entry["t"] == "F":
        return Reply(key, None, str(entry["reason"]), str(entry["message"]), 0.0, at)
    usage = cast(dict[str, int] | None, entry["usage"])
    calls = cast(list[dict[str, str]], entry["tool_calls"])
    completion = Completion(
        text=str(entry["text"]),
        finish_reason=cast(FinishReason, entry["finish"]),
        reasoning=cast(str | None, entry["reasoning"]),
        tool_calls=tuple(ToolCall(**call) for call in calls),
        usage=Usage(**usage) if usage else None,
        served_model=cast(str | None, entry["model"]),
        upstream=cast(str | None, entry["upstream"]),
        reply_id=cast(str | None, entry["reply_id"]),
        flags=tuple(cast(list[str], entry.get("flags") or ())),
    )
    return Reply(key, completion, None, None, cast(float | None, entry["usd"]), at)


def without_logprobs(reply: Reply) -> Reply:
    """The reply as `read_reply` gives it."""
    if reply.completion is None or reply.completion.logprobs is None:
        return reply
    return replace(reply, completion=replace(reply.completion, logprobs=None))


def _logprobs_json(logprobs: Logprobs) -> dict[str, JSONValue]:
    """Columns, and of those only what there is: ids and texts of alternatives come from different servers."""
    out: dict[str, JSONValue] = {
        "token": list(logprobs.tokens),
        "lp": [round(value, _DECIMALS) for value in logprobs.logprobs],
        "top_lp": [[round(value, _DECIMALS) for value in values] for values in logprobs.top_logprobs],
    }
    odd = {str(at): raw.hex() for at, raw in enumerate(logprobs.token_bytes) if raw is not None}
    if odd:
        out["bytes"] = cast(JSONValue, odd)
    if any(one is not None for one in logprobs.ids):
        out["id"] = list(logprobs.ids)
    if any(one is not None for ids in logprobs.top_ids for one in ids):
        out["top_id"] = [list(ids) for ids in logprobs.top_ids]
    if any(one is not None for tokens in logprobs.top_tokens for one in tokens):
        out["top_token"] = [list(tokens) for tokens in logprobs.top_tokens]
    return out


def read_logprobs(entry: Entry) -> Logprobs | None:
    """The logprobs an `R` entry holds; None where none were captured."""
    stored = cast(dict[str, JSONValue] | None, entry.get("logprobs"))
    if stored is None:
        return None
    tokens = cast(list[str | None], stored["token"])
    top_logprobs = cast(list[list[float]], stored["top_lp"])
    odd = cast(dict[str, str], stored.get("bytes") or {})
    unknown: list[list[None]] = [[None] * len(values) for values in top_logprobs]
    return Logprobs(
        tokens=tuple(tokens),
        token_bytes=tuple(
            bytes.fromhex(odd[str(at)]) if str(at) in odd else None for at in range(len(tokens))
        ),
        ids=tuple(cast(list[int | None], stored.get("id") or [None] * len(tokens))),
        logprobs=tuple(cast(list[float], stored["lp"])),
        top_tokens=tuple(map(tuple, cast(list[list[str | None]], stored.get("top_token") or unknown))),
        top_ids=tuple(map(tuple, cast(list[list[int | None]], stored.get("top_id") or unknown))),
        top_logprobs=tuple(map(tuple, top_logprobs)),
    )
