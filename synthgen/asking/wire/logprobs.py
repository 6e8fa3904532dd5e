"""Log-probabilities of a chat completion's choice: read, checked, or refused with the reason.

In: a choice as a server sent it, and what is known of the reply. Out: `Logprobs`, or why there are none. Guarantees,
of what is returned: one entry per generated token; every value is a log-probability (<= 0, no placeholder); the
alternatives of a position descend and their probabilities do not pass 1; the generated token has the same value in
both places. A reply whose capture fails any of this is kept without it: the answer is paid.

Servers differ. OpenAI writes tokens as text and, for parts of characters, as bytes. vLLM writes `token_id:123` for
each token where `return_tokens_as_token_ids` is set (then only the generated token has its text, in `bytes`), lists
the ids of the generated ones as `token_ids` where `return_token_ids` is set, and puts the generated token first
among the alternatives, whatever its rank. Alternatives are therefore sorted here. Under a schema, what the grammar
rules out has the placeholder among vLLM's alternatives: those are left out; anywhere else a placeholder is a refusal.
Rejected: repairing (renormalising, filling gaps): a number that nobody measured would be trained on.
"""

import math
import re

from synthgen.asking.wire.loose import as_list, as_object, as_text
from synthgen.dataclasses import dataclass
from synthgen.types import JSONValue, Logprobs

__all__ = ["MISSING", "read_logprobs"]

MISSING = "logprobs_missing"

# vLLM's stand-in for minus infinity, OpenAI's for "not among the likeliest", DeepSeek's for everything.
_PLACEHOLDER = -9999.0
# A log-softmax in float32 is right to about 1e-6 near 0 (24 bits), one in bfloat16 to 2**-8 of the value: near 0,
# where it matters, less than this. Sums of 20 probabilities stay within it too.
_ROUNDING = 1e-3
_TOKEN_ID = re.compile(r"token_id:(\d{1,9})", re.ASCII)
_KEPT = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True)
class _Token:
    text: str | None
    raw: bytes | None
    id: int | None
    logprob: float


class _Invalid(Exception):
    """The capture cannot be trusted; the text is the reason code."""


def read_logprobs(
    choice: dict[str, JSONValue],
    *,
    top: int,
    text: str,
    output_tokens: int | None = None,
    constrained: bool = False,
) -> Logprobs | str:
    """The logprobs of `choice`, or the flag that says why not.

    `top` alternatives were asked for; `constrained`: a grammar ruled tokens out. `text` is the answer as it was read; `output_tokens` what the usage says of
    this choice alone, None where it says nothing.
    """
    entries = as_list(as_object(choice.get("logprobs")).get("content"))
    if not entries:
        return MISSING
    try:
        chosen = [_token(as_object(entry)) for entry in entries]
        if output_tokens and len(chosen) > output_tokens:
            raise _Invalid("length")
        if not _covers(chosen, text):
            raise _Invalid("text")
        listed = [as_list(as_object(entry).get("top_logprobs")) for entry in entries]
        return _columns(
            chosen,
            _ids(chosen, as_list(choice.get("token_ids"))),
            [
                _alternatives(one, token, top, constrained=constrained)
                for one, token in zip(listed, chosen, strict=True)
            ],
        )
    except _Invalid as problem:
        return f"logprobs_invalid:{problem}"


def _columns(chosen: list[_Token], ids: tuple[int | None, ...], tops: list[list[_Token]]) -> Logprobs:
    return Logprobs(
        tokens=tuple(token.text for token in chosen),
        token_bytes=tuple(token.raw for token in chosen),
        ids=ids,
        logprobs=tuple(token.logprob for token in chosen),
        top_tokens=tuple(tuple(token.text for token in tokens) for tokens in tops),
        top_ids=tuple(tuple(token.id for token in tokens) for tokens in tops),
        top_logprobs=tuple(tuple(token.logprob for token in tokens) for tokens in tops),
    )


def _token(entry: dict[str, JSONValue]) -> _Token:
    value = entry.get("logprob")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Invalid("number")
    if not math.isfinite(value) or value <= _PLACEHOLDER:
        raise _Invalid("placeholder")
    if value > _ROUNDING:
        raise _Invalid("positive")
    token = as_text(entry.get("token"))
    raw = _bytes(entry.get("bytes"))
    named = _TOKEN_ID.fullmatch(token)
    if named is None:
        return _spelled(token, raw, None, min(value, 0.0))
    # The text of a token whose id stands in its place is in `bytes`, but for alternatives: there they repeat the id.
    text = None if raw is None or raw == token.encode() else raw.decode("utf-8", "replace")
    return _spelled(text, raw if text is not None else None, int(named[1]), min(value, 0.0))


def _spelled(text: str | None, raw: bytes | None, id_: int | None, logprob: float) -> _Token:
    """A token; its bytes are kept only where they say more than its text."""
    same = text is None or raw is None or raw == text.encode("utf-8", "replace")
    return _Token(text, None if same else raw, id_, logprob)


def _bytes(value: JSONValue) -> bytes | None:
    """None where there are none; empty for the first parts of a character (vLLM)."""
    if not isinstance(value, list):
        return None
    numbers = [one for one in value if isinstance(one, int) and 0 <= one < 256]
    return bytes(numbers) if len(numbers) == len(value) else None


def _ids(chosen: list[_Token], token_ids: list[JSONValue]) -> tuple[int | None, ...]:
    """Ids of the generated tokens, from either place; they must not disagree."""
    listed = [one for one in token_ids if isinstance(one, int) and not isinstance(one, bool)]
    if not listed:
        return tuple(token.id for token in chosen)
    if len(listed) != len(chosen):
        raise _Invalid("length")
    if any(token.id not in (None, one) for token, one in zip(chosen, listed, strict=True)):
        raise _Invalid("ids")
    return tuple(listed)


def _covers(chosen: list[_Token], text: str) -> bool:
    """Whether the answer is made of these tokens.

    Compared are the visible ASCII characters: decoders of single tokens drop spaces and break other characters up.
    """
    if any(token.text is None for token in chosen):
        return True
    spelled = b"".join(token.raw or (token.text or "").encode("utf-8", "replace") for token in chosen)
    return _visible(text) in _visible(spelled.decode("utf-8", "replace"))


def _visible(text: str) -> str:
    return "".join(_KEPT.findall(text))


def _alternatives(listed: list[JSONValue], chosen: _Token, top: int, *, constrained: bool) -> list[_Token]:
    if len(listed) > top + 1 or (top and not listed):  # one more: the generated token beside the likeliest
        raise _Invalid("top")
    possible = (as_object(one) for one in listed)
    if constrained:
        possible = (one for one in possible if one.get("logprob") != _PLACEHOLDER)
    found = sorted(map(_token, possible), key=lambda token: -token.logprob)
    if sum(math.exp(token.logprob) for token in found) > 1 + _ROUNDING:
        raise _Invalid("sum")
    # Without ids several tokens may read alike (a leading space that decoding drops): one of them has to agree.
    alike = [token for token in found if _is_same(token, chosen)]
    if alike and all(abs(token.logprob - chosen.logprob) > _ROUNDING for token in alike):
        raise _Invalid("chosen")
    return found


def _is_same(one: _Token, other: _Token) -> bool:
    if one.id is not None and other.id is not None:
        return one.id == other.id
    return one.text is not None and (one.text, one.raw) == (other.text, other.raw)
